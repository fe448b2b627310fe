"""The price of a parcel; the order is checked by pydantic inside the guest."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator, validate_call


class Item(BaseModel):
    sku: str = Field(min_length=1)
    grams: Annotated[int, Field(gt=0, le=30_000)]
    quantity: Annotated[int, Field(ge=1)] = 1


class Order(BaseModel):
    country: str = Field(pattern=r"^[A-Z]{2}$")
    items: list[Item] = Field(min_length=1)
    service: Literal["standard", "express"] = "standard"

    @property
    def grams(self) -> int:
        return sum(item.grams * item.quantity for item in self.items)

    @model_validator(mode="after")
    def fits_a_parcel(self) -> "Order":
        if self.grams > 30_000:
            raise ValueError(f"{self.grams} g are too heavy for one parcel (30000 g)")
        return self


class Quote(BaseModel):
    zone: int
    grams: int
    price: Decimal
    days: int


NEIGHBOURS = {"AT", "BE", "CH", "CZ", "DK", "FR", "LU", "NL", "PL"}
PRICES = {0: Decimal("4.90"), 1: Decimal("8.90"), 2: Decimal("17.90")}
DAYS = {0: 2, 1: 4, 2: 9}


@validate_call
def shipping(order: Order) -> Quote:
    """Quote the shipping of an order from Germany.

    Args:
        order: Where to, what, and how fast.

    Returns:
        Zone, weight, price in EUR and days of delivery.
    """
    zone = 0 if order.country == "DE" else 1 if order.country in NEIGHBOURS else 2
    extra_kilos = max(0, -(-order.grams // 1000) - 2)
    price = PRICES[zone] + extra_kilos * Decimal("0.85")
    days = DAYS[zone]
    if order.service == "express":
        price, days = price * 2, max(1, days // 2)
    return Quote(zone=zone, grams=order.grams, price=price, days=days)
