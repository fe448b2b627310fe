"""Counts that are recorded, and compared with what is found: dirty pages, tolerances, and words for a difference."""

from __future__ import annotations

import ctypes
import platform
import sys
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from wasm_sandbox.engine import BUILT_IN_IMAGE, FixedSurroundings, GuestEngine, ImageSource, LoadedImage
from wasm_sandbox.engine.binding.version import wasmtime_version
from wasm_sandbox.engine.memory.address_space import PAGE_BYTES
from wasm_sandbox.engine.memory.slots import ImageMemory
from wasm_sandbox.events import Mark, listening
from wasm_sandbox.limits import Limits
from wasm_sandbox.outcome import Ending, Outcome
from wasm_sandbox.request import ExecutionRequest

RECORD_VARIABLE = "WASM_SANDBOX_RECORD_COUNTS"
"""Environment variable with which tests of counts record what they find."""

TOLERANCES = {
    "fuel": {"percent": 2, "why": "entropy and clocks differ from run to run: by less than 0.5 %"},
    "host_calls": {"percent": 0, "why": "the same script makes the same calls"},
    "memory_bytes": {"percent": 1, "why": "grows in pages of 64 KiB"},
    "dirty_pages": {"percent": 3, "why": "of 4 KiB, different from the image's after a run; each is put back"},
    "artifact_bytes": {"percent": 2, "why": "what a user downloads"},
    "module_bytes": {"percent": 2, "why": "what is compiled"},
    "image_bytes": {"percent": 3, "why": "what is loaded; by machine and version of wasmtime"},
}


COSTS = ("fuel", "host_calls", "memory_bytes")
"""What an outcome tells of its run that is recorded."""


def costs(outcomes: Mapping[str, Outcome]) -> dict[str, dict[str, Any]]:
    """What runs took, by what it is and by the name of the run."""
    return {what: {name: getattr(outcome, what) for name, outcome in outcomes.items()} for what in COSTS}


def machine() -> str:
    """Kind of this machine, as far as the size of compiled code depends on it."""
    return f"{sys.platform} {platform.machine()}, wasmtime {wasmtime_version()}"


def compare(record: Mapping[str, Any], what: str, found: int, recorded: int, image: LoadedImage) -> None:
    """Fail for more than is recorded, and for so much less that the record is out of date.

    Args:
        record: the record, with its ``tolerances``, its ``image``, and ``how`` it is made anew.
        what: name of what is counted.
        found: what it is here.
        recorded: what it is in the record.
        image: the image that was found here.
    """
    percent = record["tolerances"][what]["percent"]
    if abs(found - recorded) * 100 <= recorded * percent:
        return
    change = f"{(found - recorded) / recorded:+.1%}" if recorded else f"from {recorded}"
    message = f"{what}: {found:,}, recorded {recorded:,} ({change}, tolerated {percent} %)."
    if image.id != record["image"]:
        message += f" The record is of image {record['image'][:16]}, this is {image.id[:16]}."
    pytest.fail(f"{message} If that is meant, record it anew: {record['how']}")


class _DirtyPages:
    """Counts the pages of linear memory that a run leaves different from the image's, before they are put back."""

    def __init__(self, request: ExecutionRequest, image: ImageMemory) -> None:
        self._request, self._image = request, image
        self._thread: int | None = None
        self.counted: list[int] = []
        self.is_put_back = threading.Event()

    def began(self, mark: Mark) -> None:
        if mark.name == "execute" and mark.subject is self._request:
            self._thread = threading.get_ident()
        elif self._is_put_back(mark):
            memory, image = mark.subject.slot.linear, self._image
            found = ctypes.string_at(memory.address, memory.size)
            wanted = ctypes.string_at(image.address, image.size).ljust(memory.size, b"\0")
            pages = range(0, memory.size, PAGE_BYTES)
            self.counted.append(sum(found[at : at + PAGE_BYTES] != wanted[at : at + PAGE_BYTES] for at in pages))

    def ended(self, mark: Mark) -> None:
        if self._is_put_back(mark):
            self.is_put_back.set()

    def _is_put_back(self, mark: Mark) -> bool:
        return mark.name == "replace" and self._thread == threading.get_ident()


def dirty_pages(request: ExecutionRequest, engine: GuestEngine, source: ImageSource = BUILT_IN_IMAGE) -> int:
    """How many pages of linear memory a run leaves different from the image's, with fixed clocks and entropy.

    Args:
        request: the run, whose limits are not used.
        engine: one that nobody else uses.
        source: of the image.
    """
    memory = engine.image(source).instances.image
    assert memory is not None
    request = request._replace(limits=Limits(deterministic=True))
    listener = _DirtyPages(request, memory)
    with listening(listener):
        outcome = engine.start(request, FixedSurroundings(), source).result()
        assert (outcome.ending, outcome.exit_code) == (Ending.EXITED, 0)
        assert listener.is_put_back.wait(30)
    (counted,) = listener.counted
    return counted
