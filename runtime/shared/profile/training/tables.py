"""Rows and columns without pandas: CSV, groups, joins, running figures."""

import csv
import io
import math
import random
from collections import defaultdict
from functools import reduce
from itertools import accumulate, chain, pairwise, product, zip_longest


def made(count):
    chance = random.Random(5)
    out = io.StringIO()
    writer = csv.DictWriter(out, ["id", "region", "product", "units", "price", "note"])
    writer.writeheader()
    for n in range(count):
        region, article = chance.choice(["north", "south", "west", "öst"]), chance.choice("ABCDEFG")
        price, note = round(chance.uniform(1, 50), 2), 'a "quoted", note' if n % 9 == 0 else ""
        units = chance.randint(0, 20)
        writer.writerow({"id": n, "region": region, "product": article, "units": units, "price": price, "note": note})
    return out.getvalue()


def converted(row):
    return {key: number(text) for key, text in row.items()}


def number(text):
    if text.isdigit():
        return int(text)
    return float(text) if text.replace(".", "", 1).isdigit() else text or None


def grouped(rows, *names):
    groups = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in names)].append(row)
    return groups


def correlation(xs, ys):
    n, mx, my = len(xs), math.fsum(xs) / len(xs), math.fsum(ys) / len(ys)
    top = sum((x - mx) * (y - my) for x, y in zip(xs, ys, strict=True))
    return top / math.sqrt(sum((x - mx) ** 2 for x in xs) * sum((y - my) ** 2 for y in ys) or n)


def main():
    rows = [converted(row) for row in csv.DictReader(io.StringIO(made(2500)))]
    for row in rows:
        row["sales"] = round(row["units"] * row["price"], 2)
    sums = {
        key: {"units": sum(r["units"] for r in group), "sales": sum(r["sales"] for r in group)}
        for key, group in grouped(rows, "region", "product").items()
    }
    best = sorted(sums.items(), key=lambda item: (-item[1]["sales"], item[0]))[:10]
    labels = {letter: f"product {letter.lower()}" for letter in "ABCDEF"}
    joined = [{**row, "label": labels.get(row["product"], "?")} for row in rows if row["units"] > 0]
    running = list(accumulate(row["sales"] for row in joined))
    steps = [b - a for a, b in pairwise(running)]
    windows = [sum(steps[i : i + 7]) / 7 for i in range(len(steps) - 7)]
    pivot = [[sums.get((r, p), {}).get("units", 0) for p in "ABCDEFG"] for r in ("north", "south", "west", "öst")]
    turned = [list(column) for column in zip(*pivot, strict=True)]
    wide = reduce(lambda a, b: a + b, turned, [])
    pairs = [(a, b) for a, b in product(range(60), repeat=2) if (a * b) % 7 == 3]
    same = correlation([r["units"] for r in rows], [r["price"] for r in rows])
    flat = list(chain.from_iterable(zip_longest(wide, range(40), fillvalue=None)))
    return best, windows[-1], pivot, same, flat, len(pairs), min(steps), max(joined, key=lambda r: r["sales"])


for _ in range(8):
    main()
