"""Decimal arithmetic: interest over the years, and pi."""

from decimal import Decimal, localcontext


def interest():
    balance, rate, cent = Decimal("1000.00"), Decimal("0.0375") / 12, Decimal("0.01")
    for month in range(6000):
        balance += (balance * rate).quantize(cent)
        if month % 12 == 11:
            balance = min(balance, Decimal(100000)) - Decimal("12.50")
    return balance


def pi():
    with localcontext() as context:
        context.prec = 120
        three = Decimal(3)
        lasts, t, s, n, na, d, da = 0, three, 3, 1, 0, 0, 24
        while s != lasts:
            lasts = s
            n, na = n + na, na + 8
            d, da = d + da, da + 32
            t = (t * n) / d
            s += t
        return s


def main():
    value = [pi() for _ in range(10)][-1]
    return str(interest()), str(value)[:40]
