"""The verb ``wasm-sandbox bench``: measure this installation here, beside other ways to run Python."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from wasm_sandbox import bench as measuring
from wasm_sandbox.cli.display import write_json
from wasm_sandbox.cli.inputs import CommandError
from wasm_sandbox.cli.progress import ready_image

PEERS_VARIABLE = "WASM_SANDBOX_PEERS_PYTHON"
HARNESS = Path(__file__).parents[2] / "benchmarks" / "peers.py"
"""The harness of a source checkout; a wheel has none, see ``--peers-harness``."""


@click.command("bench")
@click.option("--rounds", type=click.IntRange(min=1), default=60, show_default=True, help="How often to measure.")
@click.option("--json", "json_file", metavar="FILE", help="Write the figures as JSON; - is stdout.")
@click.option("--plot", "plot_file", metavar="FILE.svg", help="Draw them (needs the extra 'plot'); also .png, .pdf.")
@click.option("--breakdown", is_flag=True, help="Show where the time of one run goes, too.")
@click.option("--peers", is_flag=True, help="Measure other sandboxes too, as far as they are installed.")
@click.option(
    "--peers-python",
    metavar="PATH",
    help=f"The Python that has them; or set {PEERS_VARIABLE}. See benchmarks/README.md.",
)
@click.option("--peers-harness", metavar="FILE", help="The program that runs them.  [default: benchmarks/peers.py]")
def bench(
    *,
    rounds: int,
    json_file: str | None,
    plot_file: str | None,
    breakdown: bool,
    peers: bool,
    peers_python: str | None,
    peers_harness: str | None,
) -> None:
    """Measure how fast it is here: in rounds, every contender once in each, in alternating order.

    A fresh guest runs a trivial script, and a tool; a new process gets its first result; a subprocess
    does the same for comparison. Other load on the machine shows in p95, and the least in min.
    """
    if plot_file is not None:
        try:
            measuring.check_available(Path(plot_file))  # before the minutes of measuring
        except measuring.PlotUnavailable as error:
            raise CommandError(f"--plot: {error}") from None
    ready_image()
    with ExitStack() as stack:
        progress = stack.enter_context(_spinner())
        foreign = None
        if peers or peers_python or peers_harness:
            foreign = stack.enter_context(_foreign(peers_python, peers_harness))
        contenders: list[measuring.Contender] = [*measuring.local_contenders()]
        if foreign is not None:
            contenders += foreign.contenders
        series, failed = measuring.side_by_side(contenders, rounds, progress)
        report = measuring.Report(rounds, measuring.machine(), measuring.versions(), series, failed)
        if foreign is not None:
            report.versions |= foreign.versions
            report.absent += foreign.absent
        if breakdown:
            report.breakdown = measuring.take_breakdown(rounds, progress)
    _print(report, to_stderr=json_file == "-")
    if json_file is not None:
        _write(json_file, report.to_json())
    if plot_file is not None:
        try:
            measuring.draw(report, Path(plot_file))
        except OSError as error:
            raise CommandError(f"--plot {plot_file}: cannot be written: {error.strerror or error}") from None


def _foreign(python: str | None, harness: str | None) -> measuring.ForeignContenders:
    chosen = python or os.environ.get(PEERS_VARIABLE) or sys.executable
    program = Path(harness) if harness else HARNESS
    if not program.is_file():
        raise CommandError(
            f"--peers: {program} is not there: it is part of the source code, name it with --peers-harness"
        )
    try:
        return measuring.ForeignContenders(Path(chosen), program)
    except measuring.HarnessError as error:
        raise CommandError(f"--peers: {error}") from None


def _print(report: measuring.Report, *, to_stderr: bool) -> None:
    from rich.console import Console  # lazy: --help needs none of it

    console = Console(stderr=to_stderr)
    if not console.is_terminal:
        console = Console(stderr=to_stderr, width=110)  # a file has no width; lines are not broken at 80
    report.print_to(console)


def _write(file: str, text: str) -> None:
    if file == "-":
        write_json(text)
        return
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"--json {file}: cannot be written: {error.strerror or error}") from None


@contextmanager
def _spinner() -> Iterator[Callable[[str], None]]:
    """Say on stderr what is being measured, on a terminal only."""
    from rich.console import Console  # lazy: --help needs none of it

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda words: None
        return
    with console.status("measuring") as status:
        yield lambda words: status.update(f"measuring: {words}")
