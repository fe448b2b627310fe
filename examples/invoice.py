"""Invoice totals in exact decimal arithmetic."""

from decimal import ROUND_HALF_UP, Decimal
from typing import TypedDict


class Line(TypedDict, total=False):
    sku: str
    qty: int
    unit_price: str
    vat_percent: str


SMALLEST_UNIT = {"JPY": "1", "KRW": "1", "KWD": "0.001", "BHD": "0.001"}
"""Of the currencies that are not divided into hundredths."""


def invoice(lines: list[Line], currency: str = "EUR", vat_percent: str = "19") -> dict:
    """Total an invoice: net, VAT by rate, gross.

    Amounts are decimal strings, so that no cent is lost on the way. VAT is rounded once per rate, half up,
    as most tax offices ask for.

    Args:
        lines: The invoice's lines: sku, qty, unit_price (net), and vat_percent where a line has its own rate.
        currency: ISO 4217 code; it decides how many digits an amount has.
        vat_percent: The rate of lines that name none.

    Returns:
        The lines with their amounts, and the totals.
    """
    cent = Decimal(SMALLEST_UNIT.get(currency, "0.01"))

    def rounded(amount: Decimal) -> Decimal:
        return amount.quantize(cent, rounding=ROUND_HALF_UP)

    net_by_rate: dict[Decimal, Decimal] = {}
    shown = []
    for line in lines:
        amount = rounded(Decimal(line["unit_price"]) * line["qty"])
        rate = Decimal(line.get("vat_percent", vat_percent))
        net_by_rate[rate] = net_by_rate.get(rate, Decimal(0)) + amount
        shown.append({"sku": line["sku"], "qty": line["qty"], "amount": amount})
    vat = {str(rate): rounded(net * rate / 100) for rate, net in sorted(net_by_rate.items())}
    net = sum(net_by_rate.values(), rounded(Decimal(0)))
    return {
        "currency": currency,
        "lines": shown,
        "net": net,
        "vat": vat,
        "gross": net + sum(vat.values()),
    }
