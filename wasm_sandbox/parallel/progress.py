"""The progress bar of a map, on standard error (rich)."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from typing import Any

from wasm_sandbox.parallel.rows import Bar


def bar_of(progress: bool | str, rows: Iterable[Any]) -> Bar | None:
    """Make a bar, if one is asked for.

    Args:
        progress: whether one is, or the words in front of it.
        rows: what it counts; its end is known if they have a length.

    Raises:
        ImportError: if rich is not installed.
    """
    if not progress:
        return None
    return _RichBar(progress if isinstance(progress, str) else "rows", len(rows) if isinstance(rows, Sized) else None)


class _RichBar:
    def __init__(self, words: str, total: int | None) -> None:
        try:
            from rich.console import Console  # lazy: only where a bar is shown
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )  # lazy: ^
        except ImportError as error:
            raise ImportError("a progress bar needs rich: pip install 'wasm-sandbox[parallel]'") from error
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task = self._progress.add_task(words, total=total)
        self._progress.start()

    def advance(self) -> None:
        self._progress.advance(self._task)

    def close(self) -> None:
        self._progress.stop()
