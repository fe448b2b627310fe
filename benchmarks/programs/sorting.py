"""Sorting: by the built-in sort with keys, and by a quicksort written in Python."""


def numbers(count, seed=42):
    for _ in range(count):
        seed = (seed * 1103515245 + 12345) % 2147483648
        yield seed


def quicksort(values):
    if len(values) < 2:
        return values
    pivot = values[len(values) // 2]
    return [
        *quicksort([v for v in values if v < pivot]),
        *[v for v in values if v == pivot],
        *quicksort([v for v in values if v > pivot]),
    ]


def main():
    values = list(numbers(8000))
    rows = [(v % 100, str(v)) for v in values]
    rows.sort(key=lambda row: (row[0], row[1][::-1]))
    ordered = sorted(values, reverse=True)
    return quicksort(values)[0] == ordered[-1], rows[0]
