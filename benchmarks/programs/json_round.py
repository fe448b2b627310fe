"""JSON out and in again."""

import json


def main():
    records = [
        {"id": n, "name": f"user {n}", "score": n / 7, "tags": ["a", "é", str(n)], "address": {"zip": n, "city": None}}
        for n in range(600)
    ]
    total = 0
    for _ in range(6):
        text = json.dumps(records)
        total += len(text) + len(json.loads(text))
    return total
