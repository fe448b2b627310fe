"""Preparing the guest image in sight of the user: a spinner on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from wasm_sandbox import images
from wasm_sandbox.cli.display import complain, for_terminal

if TYPE_CHECKING:
    from rich.progress import Progress

Step = Callable[[str], None]
"""Called with a few words at the start of every slow step."""

T = TypeVar("T")


def ready_image(image: images.Image | None = None, counts_fuel: bool = True) -> images.Prepared:
    """Load an image, by default the default one, and prepare it in sight of the user if it is not in the cache.

    The work is done on another thread, so that Ctrl-C ends the command while the compiler runs.

    Args:
        image: which one.
        counts_fuel: whether it is the one that counts fuel.

    Raises:
        HostError: if it cannot be had.
    """
    return in_sight(lambda step: images.prepare(image, counts_fuel=counts_fuel, progress=step))


def in_sight(work: Callable[[Step], T]) -> T:
    """Result of ``work``, or what it raises; it is called on another thread, with a callback that shows its steps."""
    with PreparationDisplay() as display:
        return images.interruptibly(lambda: work(display.step))


class PreparationDisplay:
    """Display of slow steps on stderr, and at the end of how long they took; silent without any step."""

    def __init__(self) -> None:
        self._started: float | None = None
        self._spinner: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> PreparationDisplay:
        return self

    def step(self, words: str) -> None:
        """Show that a slow step begins."""
        if self._started is None:
            self._started = time.monotonic()
            self._spinner = _spinner()
            if self._spinner is not None:
                self._spinner.start()
                self._task = self._spinner.add_task("", total=None)
        if self._spinner is not None:
            self._spinner.update(self._task, description=_shown(f"preparing the guest image, once: {words}"))
        else:
            complain(f"preparing the guest image, once: {words}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._spinner is not None:
            self._spinner.stop()
        if self._started is not None and error is None:
            complain(f"the guest image is ready ({time.monotonic() - self._started:.1f} s)")


def _shown(text: str) -> str:
    """Text for the spinner: names in it may be a stranger's."""
    from rich.markup import escape  # lazy: where there is a terminal

    return escape(for_terminal(text).replace("\n", " "))


def _spinner() -> Progress | None:
    """A spinner with the elapsed time, if stderr is a terminal that can show one."""
    if sys.stderr is None or not sys.stderr.isatty():
        return None
    from rich.console import Console  # lazy: where there is a terminal
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # lazy: where there is a terminal

    console = Console(stderr=True)
    if not console.is_interactive or console.is_dumb_terminal:
        return None
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)
