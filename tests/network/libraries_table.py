"""Writes the table of client libraries in ``docs/network.md``: each program of `libraries` run, its value compared.

    python -m tests.network.libraries_table

Takes about a minute and a half, and needs the package index, PostgreSQL and Redis (Debian's packages ``postgresql`` and
``redis-server``).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.network.libraries import CASES, Ground, ground

DOCUMENT = Path(__file__).parents[2] / "docs" / "network.md"

START = "| library | version | tried | works | remark |\n| --- | --- | --- | --- | --- |\n"


def row(made: Ground, number: int) -> tuple[str, bool]:
    """Run a case: a row of the table, and whether it worked."""
    case = CASES[number]
    if made.services.ports[case.service] is None:
        return f"| {case.library} | | no {case.service} on this machine | no | |\n", False
    result = made.run(case)
    worked = result.error is None and result.value == case.expected
    if not worked:
        print(f"{case.library}: {result.error or result.value!r}")
    version = made.image.distributions.get(case.library, "of the guest")
    return f"| {case.library} | {version} | {case.tried} | {'yes' if worked else 'no'} | {case.remark} |\n", worked


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, ground(Path(directory)) as made:
        rows = [row(made, number) for number in range(len(CASES))]
    table = "".join(text for text, _ in rows)
    print(table)
    if not all(worked for _, worked in rows):
        sys.exit(1)
    before, start, rest = DOCUMENT.read_text(encoding="utf-8").partition(START)
    assert start, f"there is no table in {DOCUMENT}"
    DOCUMENT.write_text(f"{before}{start}{table}\n{rest.partition(chr(10) * 2)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
