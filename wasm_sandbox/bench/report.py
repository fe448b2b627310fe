"""What a benchmark found: as a table for a reader, as JSON for a program."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from wasm_sandbox.bench.contenders import JOBS, OURS
from wasm_sandbox.bench.measure import Absent, Series

if TYPE_CHECKING:
    from wasm_sandbox.bench.breakdown import Breakdown


@dataclass
class Report:
    """The figures of one benchmark, taken side by side."""

    rounds: int
    machine: dict[str, str]
    versions: dict[str, str]
    series: list[Series]
    absent: list[Absent] = field(default_factory=list)
    breakdown: Breakdown | None = None

    def jobs(self) -> Iterator[tuple[str, list[Series]]]:
        """The title of each job, and who did it: ours first, then the quickest first."""
        for job, title in JOBS.items():
            found = [series for series in self.series if series.job == job]
            if found:
                yield (
                    title,
                    sorted(found, key=lambda s: (s.contender != OURS, not s.contender.startswith(OURS), s.median)),
                )

    def ratio(self, series: Series) -> float | None:
        """A contender's median relative to ours of the same job."""
        ours = next((s for s in self.series if s.job == series.job and s.contender == OURS), None)
        return series.median / ours.median if ours else None

    def to_json(self) -> str:
        """One JSON document; times in milliseconds."""
        return json.dumps(self.document(), indent=2) + "\n"

    def document(self) -> dict[str, Any]:
        """What `to_json` writes."""
        return {
            "rounds": self.rounds,
            "machine": self.machine,
            "versions": self.versions,
            "results": [self._row(series) for series in self.series],
            "absent": [asdict(absent) for absent in self.absent],
            "breakdown": self.breakdown.document() if self.breakdown else None,
        }

    def _row(self, series: Series) -> dict[str, Any]:
        ratio = self.ratio(series)
        return {
            "job": series.job,
            "contender": series.contender,
            "note": series.note,
            "rounds": len(series.seconds),
            "min_ms": _ms(series.minimum),
            "p50_ms": _ms(series.median),
            "p95_ms": _ms(series.p95),
            "ratio": None if ratio is None else round(ratio, 4),
        }

    def print_to(self, console: Console) -> None:
        """Print it as a table."""
        console.print(self._table())
        console.print(f"min, p50 and p95 in milliseconds; ratio: p50 relative to {OURS}'s", style="dim")
        for absent in self.absent:
            console.print(f"not measured: {escape(absent.contender)}: {escape(absent.reason)}", style="yellow")
        for facts in (self.machine, self.versions):
            console.print(escape(", ".join(f"{name} {value}" for name, value in facts.items())), style="dim")
        if self.breakdown is not None:
            self.breakdown.print_to(console)

    def _table(self) -> Any:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("")
        for name in ("rounds", "min", "p50", "p95", "ratio"):
            table.add_column(name, justify="right", no_wrap=True)
        for title, found in self.jobs():
            table.add_row(Text(title, style="bold"))
            for series in found:
                note = f" ({series.note})" if series.note else ""
                label = Text.assemble(
                    "  ", (series.contender, "cyan" if series.contender == OURS else ""), (note, "dim")
                )
                ratio = self.ratio(series)
                table.add_row(
                    label,
                    str(len(series.seconds)),
                    *(shown_ms(seconds) for seconds in (series.minimum, series.median, series.p95)),
                    "" if ratio is None else f"{ratio:,.2f}" if ratio < 10 else f"{ratio:,.0f}",
                )
        return table


def shown_ms(seconds: float) -> str:
    """Milliseconds with three digits that mean something."""
    ms = seconds * 1000
    return f"{ms:.2f}" if ms < 10 else f"{ms:.1f}" if ms < 100 else f"{ms:,.0f}"


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 4)
