"""Models of pydantic: made, validated, refused, dumped, called as arguments."""

import json
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    computed_field,
    field_validator,
    validate_call,
)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Address(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)
    street: str
    city: str = Field(max_length=40)
    code: Annotated[str, Field(pattern=r"^\d{5}$")]


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: list[str] = []


class Person(BaseModel):
    key: UUID
    name: str
    born: date
    seen: datetime | None = None
    wealth: Decimal = Decimal(0)
    likes: set[Colour] = set()
    home: Address
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]] = []
    extra: dict[str, Any] = {}

    @field_validator("name")
    @classmethod
    def capital(cls, value):
        if not value:
            raise ValueError("a name is needed")
        return value.title()

    @computed_field
    def year(self) -> int:
        return self.born.year


@validate_call
def area(width: float, height: float = 1.0, *, unit: str = "m") -> str:
    return f"{width * height:.1f} {unit}2"


def people(count):
    for n in range(count):
        yield {
            "key": f"{n:032x}", "name": f"person {n}", "born": f"19{50 + n % 50}-0{1 + n % 9}-11",
            "seen": "2026-02-03T04:05:06+01:00" if n % 2 else None, "wealth": f"{n}.50",
            "likes": ["red", "blue"][: n % 3],
            "home": {"street": " Weg 1 ", "city": "Ulm", "code": "89073" if n % 10 else "x"},
            "pets": [{"kind": "cat"}, {"kind": "dog", "tricks": ["sit", "roll"]}][: n % 3],
            "extra": {"n": n, "deep": {"list": [1, 2.5, None, True, "x"]}},
        }  # fmt: skip


def main():
    good, bad = [], []
    for raw in people(250):
        try:
            good.append(Person.model_validate(raw))
        except ValidationError as error:
            bad.append([(e["loc"], e["msg"]) for e in error.errors()])
    adapter = TypeAdapter(list[Person])
    text = adapter.dump_json(good)
    again = adapter.validate_json(text)
    dumped = [p.model_dump(mode="json", exclude={"extra"}) for p in again]
    changed = [p.model_copy(update={"name": p.name.upper()}) for p in good]
    areas = [area(str(n), height=n / 2) for n in range(150)]
    schema = Person.model_json_schema()
    fresh = type("Row", (BaseModel,), {"__annotations__": {"a": int, "b": list[str]}, "__module__": __name__})
    row = fresh(a="1", b=("x", "y"))
    return len(json.dumps(dumped)), len(changed), areas[-1], len(json.dumps(schema)), row, len(bad), again == good


for _ in range(4):
    main()
