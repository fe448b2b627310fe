"""Preparing images before they are needed, as the command does in sight of its user."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from wasm_sandbox.engine import Metering, Progress, on_guest_thread, process_engine
from wasm_sandbox.images.default import default_source
from wasm_sandbox.images.image import Image

T = TypeVar("T")


class Prepared(NamedTuple):
    """An image that is loaded in this process."""

    id: str
    path: Path
    """File of its compiled code."""
    memory_bytes: int
    """Memory that an instance has from the start."""


def interruptibly(work: Callable[[], T]) -> T:
    """What ``work`` returns or raises; it is done on another thread, so that Ctrl-C ends the wait for a compiler."""
    return on_guest_thread(work)


def prepare(image: Image | None = None, *, counts_fuel: bool = True, progress: Progress | None = None) -> Prepared:
    """An image, by default the default one, loaded, and prepared if it is not in the cache.

    Args:
        image: which one.
        counts_fuel: whether it is the one that counts fuel.
        progress: told about every slow step.

    Raises:
        HostError: if it cannot be had; the message says what to do.
    """
    source = image.source if image is not None else default_source()
    metering = Metering.FUEL if counts_fuel else Metering.DEADLINE
    loaded = process_engine().image(source, metering, progress)
    return Prepared(loaded.id, loaded.path, loaded.memory_bytes)
