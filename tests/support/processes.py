"""Python in a process of its own, which ends with the test that started it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def python(*arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """An interpreter with its output in pipes; killed if it still runs when the block is left.

    SIGINT interrupts it, however this process was started: a job in the background of a shell, as under `nohup` and
    under CI runners, ignores SIGINT, and so would all that it starts.
    """
    with _start([sys.executable, *arguments], options) as process:
        try:
            yield process
        finally:
            process.kill()  # nothing happens if the test has seen its end


def _start(command: list[str], options: dict[str, Any]) -> subprocess.Popen[str]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a handler is not inherited, SIG_IGN is
    try:
        return subprocess.Popen(command, text=True, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options})
    finally:
        signal.signal(signal.SIGINT, before)
