"""Regular expressions over the lines of a log."""

import re

LINES = [
    f'10.0.{n % 256}.{n % 100} - user{n % 17} [12/Mar/2026:10:{n % 60:02}:00 +0000] "GET /items/{n}?q=x{n % 9} H/1.1" '
    f"{200 + n % 5} {n * 13} agent-{n}@example.org"
    for n in range(1200)
]
ENTRY = re.compile(r'(\d+\.\d+\.\d+\.\d+) - (\w+) \[([^\]]+)\] "(\w+) ([^ "]+) [^"]*" (\d+) (\d+)')


def main():
    hits = 0
    for line in LINES:
        match = ENTRY.match(line)
        hits += int(match[6]) + len(match[5])
        hits += len(re.findall(r"[a-z]+\d+", line))
        hits += len(re.sub(r"(?i)[aeiou](?=\d)", "_", line))
    return hits
