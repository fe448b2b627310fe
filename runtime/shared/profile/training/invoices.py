"""Orders become invoices: dataclasses, decimals, JSON, and a report."""

import json
from dataclasses import asdict, dataclass, field, replace
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal

CENT = Decimal("0.01")
RATES = {"food": Decimal("0.07"), "books": Decimal("0.05"), "other": Decimal("0.19")}


@dataclass(frozen=True)
class Position:
    article: str
    kind: str
    count: int
    price: Decimal

    @property
    def net(self):
        return self.count * self.price

    @property
    def tax(self):
        return (self.net * RATES.get(self.kind, RATES["other"])).quantize(CENT, ROUND_HALF_UP)


@dataclass(order=True)
class Invoice:
    due: date
    number: str
    customer: dict = field(compare=False)
    positions: list[Position] = field(default_factory=list, compare=False)
    discount: Decimal = field(default=Decimal(0), compare=False)

    def total(self):
        net = sum((p.net for p in self.positions), Decimal(0))
        tax = sum((p.tax for p in self.positions), Decimal(0))
        return ((net + tax) * (1 - self.discount)).quantize(CENT)


def orders(count):
    kinds = [*RATES, "unknown"]
    return json.dumps(
        [
            {
                "customer": {
                    "id": n % 40, "name": f"Kundin {n % 40}", "city": ["Ulm", "Köln", "Łódź"][n % 3], "vip": n % 7 == 0,
                },
                "day": str(date(2026, 1, 1) + timedelta(days=n % 300)),
                "lines": [
                    {
                        "article": f"A-{(n * 31 + i) % 211:04}", "kind": kinds[(n + i) % 4], "count": 1 + i,
                        "price": f"{(n * 7 + i) % 90}.{i}5",
                    }
                    for i in range(1 + n % 6)
                ],
            }
            for n in range(count)
        ],
        ensure_ascii=False,
    )  # fmt: skip


def main():
    invoices = []
    for n, order in enumerate(json.loads(orders(900))):
        try:
            lines = order["lines"]
            positions = [Position(x["article"], x["kind"], int(x["count"]), Decimal(x["price"])) for x in lines]
        except (KeyError, ValueError) as error:
            print(f"order {n}: {error!r}")
            continue
        due = date.fromisoformat(order["day"]) + timedelta(days=30 if order["customer"]["vip"] else 14)
        invoice = Invoice(due, f"{due:%Y%m}-{n:05d}", order["customer"], positions)
        if invoice.total() > 500:
            invoice = replace(invoice, discount=Decimal("0.03"))
        invoices.append(invoice)
    invoices.sort()
    by_customer = {}
    for invoice in invoices:
        by_customer.setdefault(invoice.customer["name"], []).append(invoice.total())
    ordered = sorted(by_customer.items(), key=lambda x: -sum(x[1]))
    lines = [f"{name:<20}{len(t):>5}{sum(t):>14,.2f}" for name, t in ordered]
    text = json.dumps([asdict(i) for i in invoices], default=str, indent=2, sort_keys=True)
    return len(text) + len("\n".join(lines)) + len(json.loads(text, parse_float=Decimal))


for _ in range(4):
    main()
