"""Numbers: floats, long integers, fractions, complex, matrices, chances."""

import cmath
import math
import random
import statistics
from decimal import Decimal, localcontext
from fractions import Fraction


class Vector:
    __slots__ = ("x", "y", "z")

    def __init__(self, x, y, z):
        self.x, self.y, self.z = x, y, z

    def __add__(self, other):
        return Vector(self.x + other.x, self.y + other.y, self.z + other.z)

    def __mul__(self, factor):
        return Vector(self.x * factor, self.y * factor, self.z * factor)

    __rmul__ = __mul__

    def __abs__(self):
        return math.sqrt(self.x**2 + self.y**2 + self.z**2)


def multiplied(a, b):
    columns = list(zip(*b, strict=True))
    return [[sum(x * y for x, y in zip(row, column, strict=True)) for column in columns] for row in a]


def solved(matrix, values):
    rows = [[*row, value] for row, value in zip(matrix, values, strict=True)]
    size = len(rows)
    for i in range(size):
        best = max(range(i, size), key=lambda r: abs(rows[r][i]))
        rows[i], rows[best] = rows[best], rows[i]
        for j in range(i + 1, size):
            factor = rows[j][i] / rows[i][i]
            for k in range(i, size + 1):
                rows[j][k] -= factor * rows[i][k]
    found = [0.0] * size
    for i in reversed(range(size)):
        found[i] = (rows[i][size] - sum(rows[i][k] * found[k] for k in range(i + 1, size))) / rows[i][i]
    return found


def loan(amount, rate, months):
    with localcontext() as context:
        context.prec = 30
        monthly = Decimal(rate) / 12
        payment = amount * monthly / (1 - (1 + monthly) ** -months)
        plan, rest = [], Decimal(amount)
        for month in range(1, months + 1):
            interest = round(rest * monthly, 2)
            rest = rest + interest - round(payment, 2)
            plan.append((month, interest, rest, f"{rest:,.2f}"))
    return plan


def escaped(point, most=60):
    z = 0j
    for n in range(most):
        if abs(z) > 2:
            return n
        z = z * z + point
    return most


def main():
    chance = random.Random(3)
    points = [(chance.random(), chance.gauss(0, 1)) for _ in range(3000)]
    inside = sum(math.hypot(x, y) < 1 for x, y in points)
    ys = [y for _, y in points]
    spread = statistics.fmean(ys), statistics.pstdev(ys[:500]), statistics.quantiles(ys, n=10)
    matrix = [[math.sin(i * j + 1) for j in range(24)] for i in range(24)]
    product, found = multiplied(matrix, matrix), solved(matrix, [1.0] * 24)
    place, speed = Vector(0, 0, 10), Vector(1.0, 0.5, 0)
    for _ in range(2500):
        speed = speed + 0.01 * Vector(0, 0, -9.81)
        place = place + speed * 0.01
        if place.z < 0:
            place, speed = Vector(place.x, place.y, -place.z), Vector(speed.x, speed.y, -0.8 * speed.z)
    huge = math.factorial(400) // 3**200 + pow(7, 12345, 10**40 + 7)
    digits = sum(map(int, str(huge)))
    thirds = sum((Fraction(1, n) for n in range(1, 60)), Fraction(0))
    picture = [[escaped(complex(x / 15 - 2, y / 10 - 1)) for x in range(45)] for y in range(20)]
    waves = [sum(v * cmath.exp(-2j * math.pi * k * n / 32) for n, v in enumerate(ys[:32])) for k in range(32)]
    bits = [(n ^ n >> 1) & 0xFFFF | n << 3 for n in range(3000)]
    shuffled = chance.sample(range(1000), 300)
    chance.shuffle(shuffled)
    rounded = [round(y, 3) + divmod(n, 7)[1] + n // 3 - n % 5 for n, y in enumerate(ys)]
    return (
        inside, spread, product[3][4], found[0], abs(place), digits, thirds, picture[10], waves[1], sum(bits),
        shuffled[0], loan(250000, "0.0375", 240)[-1], sum(rounded), math.gcd(*bits[1:20]),
    )  # fmt: skip


for _ in range(12):
    main()
