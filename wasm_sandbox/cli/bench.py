"""The verb ``wasm-sandbox bench``: measure this installation here, beside other ways to run Python."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

# What is heavy is imported where it is used: `--help` needs none of it.
if TYPE_CHECKING:
    from wasm_sandbox.bench.harness import ForeignContenders
    from wasm_sandbox.bench.measure import Contender

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
    from wasm_sandbox.bench.breakdown import take_breakdown
    from wasm_sandbox.bench.contenders import local_contenders
    from wasm_sandbox.bench.measure import machine, side_by_side, versions
    from wasm_sandbox.bench.plot import PlotUnavailable, check_available, draw
    from wasm_sandbox.bench.report import Report
    from wasm_sandbox.cli.progress import ready_image

    if plot_file is not None:
        try:
            check_available(Path(plot_file))  # before the minutes of measuring
        except PlotUnavailable as error:
            raise _error(f"--plot: {error}") from None
    ready_image()
    with ExitStack() as stack:
        progress = stack.enter_context(_spinner())
        foreign = None
        if peers or peers_python or peers_harness:
            foreign = stack.enter_context(_foreign(peers_python, peers_harness))
        contenders: list[Contender] = [*local_contenders(), *(foreign.contenders if foreign else [])]
        series, failed = side_by_side(contenders, rounds, progress)
        report = Report(rounds, machine(), versions(), series, failed)
        if foreign is not None:
            report.versions |= foreign.versions
            report.absent += foreign.absent
        if breakdown:
            report.breakdown = take_breakdown(rounds, progress)
    _print(report, to_stderr=json_file == "-")
    if json_file is not None:
        _write(json_file, report.to_json())
    if plot_file is not None:
        try:
            draw(report, Path(plot_file))
        except OSError as error:
            raise _error(f"--plot {plot_file}: cannot be written: {error.strerror or error}") from None


def _foreign(python: str | None, harness: str | None) -> ForeignContenders:
    from wasm_sandbox.bench.harness import ForeignContenders, HarnessError

    chosen = python or os.environ.get(PEERS_VARIABLE) or sys.executable
    program = Path(harness) if harness else HARNESS
    if not program.is_file():
        raise _error(f"--peers: {program} is not there: it is part of the source code, name it with --peers-harness")
    try:
        return ForeignContenders(Path(chosen), program)
    except HarnessError as error:
        raise _error(f"--peers: {error}") from None


def _print(report: object, *, to_stderr: bool) -> None:
    from rich.console import Console

    from wasm_sandbox.bench.report import Report

    assert isinstance(report, Report)
    console = Console(stderr=to_stderr)
    if not console.is_terminal:
        console = Console(stderr=to_stderr, width=110)  # a file has no width; lines are not broken at 80
    report.print_to(console)


def _write(file: str, text: str) -> None:
    from wasm_sandbox.cli.display import write

    if file == "-":
        write(sys.stdout, text)
        return
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise _error(f"--json {file}: cannot be written: {error.strerror or error}") from None


@contextmanager
def _spinner() -> Iterator[Callable[[str], None]]:
    """Says on stderr what is being measured, on a terminal only."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda words: None
        return
    with console.status("measuring") as status:
        yield lambda words: status.update(f"measuring: {words}")


def _error(message: str) -> click.ClickException:
    from wasm_sandbox.cli.app import CommandError

    return CommandError(message)
