"""Validating and dumping pydantic models."""

from datetime import datetime
from decimal import Decimal

from pydantic import BaseModel, Field


class Line(BaseModel):
    sku: str = Field(min_length=1)
    quantity: int = Field(gt=0)
    price: Decimal
    tags: list[str] = []


class Order(BaseModel):
    id: int
    created: datetime
    lines: list[Line]
    notes: dict[str, str | int] = {}


def main():
    total = 0
    for n in range(400):
        order = Order.model_validate(
            {
                "id": n,
                "created": "2026-01-02T03:04:05Z",
                "lines": [{"sku": f"s{i}", "quantity": "2", "price": "9.90", "tags": ["x"]} for i in range(5)],
                "notes": {"a": 1, "b": "c"},
            }
        )
        total += len(order.model_dump_json()) + len(order.model_dump()["lines"])
        total += Order.model_validate_json(order.model_dump_json()).lines[0].quantity
    return total
