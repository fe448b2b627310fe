"""Preparing the guest image in sight of the user: a spinner on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from wasm_sandbox.cli.display import complain
from wasm_sandbox.images import Image, interruptibly, prepare

if TYPE_CHECKING:
    from rich.progress import Progress

    from wasm_sandbox.engine import LoadedImage

Step = Callable[[str], None]
"""Called with a few words at the start of every slow step."""

T = TypeVar("T")


def ready_image(image: Image | None = None, counts_fuel: bool = True) -> LoadedImage:
    """An image, by default the default one, prepared if it is not in the cache; silent if it is.

    The work is done on another thread, so that Ctrl-C ends the command while the compiler runs.

    Args:
        image: which one.
        counts_fuel: whether it is the one that counts fuel.

    Raises:
        HostError: if it cannot be had.
    """
    return in_sight(lambda step: prepare(image, counts_fuel=counts_fuel, progress=step))


def in_sight(work: Callable[[Step], T]) -> T:
    """What ``work`` returns or raises; it is called on another thread, with what shows its steps."""
    with PreparationDisplay() as display:
        return interruptibly(lambda: work(display.step))


class PreparationDisplay:
    """Shows the steps it is told about on stderr, and at the end how long they took. No step, no word."""

    def __init__(self) -> None:
        self._started: float | None = None
        self._spinner: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> PreparationDisplay:
        return self

    def step(self, words: str) -> None:
        """A slow step begins."""
        if self._started is None:
            self._started = time.monotonic()
            self._spinner = _spinner()
            if self._spinner is not None:
                self._spinner.start()
                self._task = self._spinner.add_task("", total=None)
        if self._spinner is not None:
            self._spinner.update(self._task, description=f"preparing the guest image, once: {words}")
        else:
            complain(f"preparing the guest image, once: {words}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._spinner is not None:
            self._spinner.stop()
        if self._started is not None and error is None:
            complain(f"the guest image is ready ({time.monotonic() - self._started:.1f} s)")


def _spinner() -> Progress | None:
    """A spinner with the elapsed time, if stderr is a terminal that can show one."""
    if sys.stderr is None or not sys.stderr.isatty():
        return None
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_interactive or console.is_dumb_terminal:
        return None
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)
