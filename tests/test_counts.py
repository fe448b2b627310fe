"""A gate against regressions that needs no clock: what is counted does not depend on the machine's speed.

The recorded counts and their tolerances are in ``counts.json``. After a change that is meant, record them anew:

    WASM_SANDBOX_RECORD_COUNTS=1 python -m pytest tests/test_counts.py
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wasm_sandbox.bench.contenders import request_of, run_generated
from wasm_sandbox.engine.binding.version import wasmtime_version
from wasm_sandbox.engine.compiled.artifact import find_artifact
from wasm_sandbox.engine.compiled.loaded import LoadedImage
from wasm_sandbox.engine.compiled.tool_codes import key_of
from wasm_sandbox.engine.engine import GuestEngine, process_engine
from wasm_sandbox.engine.memory.address_space import PAGE_BYTES
from wasm_sandbox.engine.memory.kept import is_supported
from wasm_sandbox.engine.memory.slots import ImageMemory
from wasm_sandbox.engine.world.surroundings import FixedSurroundings, LiveSurroundings
from wasm_sandbox.events import Mark, listening
from wasm_sandbox.limits import Limits
from wasm_sandbox.outcome import Ending, Outcome
from wasm_sandbox.request import ExecutionRequest
from wasm_sandbox.script.generate import ExecutionScript, generate_script
from wasm_sandbox.switches import engine_is_plain
from wasm_sandbox.tool.definition import Tool

RECORD_VARIABLE = "WASM_SANDBOX_RECORD_COUNTS"
FILE = Path(__file__).with_name("counts.json")
RECORDED: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {}

TOOLS: dict[str, tuple[str, dict[str, Any]]] = {
    "add two integers": ("def add(a: int, b: int) -> int:\n    return a + b\n", {"a": 1, "b": 2}),
    "greet with a default": (
        "def greet(name: str, greeting: str = 'Hello') -> str:\n    return f'{greeting}, {name}!'\n",
        {"name": "Ada"},
    ),
    "await": (
        "import asyncio\nasync def doubled(n: int) -> list:\n"
        "    async def twice(i):\n        await asyncio.sleep(0)\n        return 2 * i\n"
        "    return await asyncio.gather(*map(twice, range(n)))\n",
        {"n": 10},
    ),
    "agent state": (
        "def visit(agent_state, name: str) -> int:\n    agent_state['seen'] = name\n    return len(agent_state)\n",
        {"name": "Ada"},
    ),
    "parse json": (
        "import json\ndef total(text: str) -> int:\n    return sum(row['n'] for row in json.loads(text))\n",
        {"text": json.dumps([{"n": n, "name": f"row {n}"} for n in range(200)])},
    ),
    "search a text": (
        "import re\ndef addresses(text: str) -> list:\n    return re.findall(r'[\\w.]+@[\\w.]+', text)\n",
        {"text": "a@example.org, nothing, b.c@example.com; " * 50},
    ),
    "decimal sum": (
        "from decimal import Decimal\ndef total(prices: list) -> Decimal:\n    return sum(map(Decimal, prices))\n",
        {"prices": ["9.90", "0.10"] * 100},
    ),
    "pydantic models": (
        "from pydantic import BaseModel\nclass Row(BaseModel):\n    n: int\n    name: str\n"
        "def rows(count: int) -> list:\n    return [Row(n=n, name=str(n)) for n in range(count)]\n",
        {"count": 50},
    ),
    "sort and group": (
        "from collections import defaultdict\ndef groups(count: int) -> dict:\n    found = defaultdict(list)\n"
        "    for n in sorted(range(count), key=lambda n: n * 7919 % 1009):\n        found[n % 5].append(n)\n"
        "    return dict(found)\n",
        {"count": 2000},
    ),
    "big text": ("def text(size: int) -> str:\n    return 'x' * size\n", {"size": 200_000}),
}


def _script(name: str) -> ExecutionScript:
    source, args = TOOLS[name]
    state = {"id": "agent-1"} if name == "agent state" else None
    return generate_script(Tool.from_source(source, _tool_name(name)), args, agent_state=state)


def _run(name: str) -> Outcome:
    return run_generated(_script(name))


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


def _dirty_pages(name: str, engine: GuestEngine) -> int:
    """How many pages of linear memory a run leaves different from the image's, with fixed clocks and entropy.

    The engine is one that nobody else uses.
    """
    memory = engine.image().instances.image
    assert memory is not None
    request = dataclasses.replace(request_of(_script(name)), limits=Limits(deterministic=True))
    listener = _DirtyPages(request, memory)
    with listening(listener):
        outcome = engine.start(request, FixedSurroundings()).result()
        assert (outcome.ending, outcome.exit_code) == (Ending.EXITED, 0)
        assert listener.is_put_back.wait(30)
    (counted,) = listener.counted
    return counted


def _tool_name(name: str) -> str | None:
    return {"await": "doubled", "pydantic models": "rows"}.get(name)


@pytest.fixture(scope="module")
def image() -> LoadedImage:
    return process_engine().image()


@pytest.fixture(scope="module")
def own_engine(image: LoadedImage) -> Iterator[GuestEngine]:
    engine = GuestEngine()
    yield engine
    engine.close()


@pytest.fixture(scope="module", autouse=True)
def _record(image: LoadedImage, own_engine: GuestEngine) -> None:
    if os.environ.get(RECORD_VARIABLE):
        outcomes = {name: _run(name) for name in TOOLS}
        tolerances = {**DEFAULT_TOLERANCES, **RECORDED.get("tolerances", {})}
        document = {
            "how": f"{RECORD_VARIABLE}=1 python -m pytest tests/test_counts.py",
            "image": image.id,
            "tolerances": tolerances,
            "fuel": {name: outcome.fuel for name, outcome in outcomes.items()},
            "host_calls": {name: outcome.host_calls for name, outcome in outcomes.items()},
            "memory_bytes": {name: outcome.memory_bytes for name, outcome in outcomes.items()},
            "dirty_pages": {name: _dirty_pages(name, own_engine) for name in TOOLS},
            "artifact_bytes": find_artifact().compressed_bytes,
            "module_bytes": find_artifact().size_bytes,
            "image_bytes": {**RECORDED.get("image_bytes", {}), _machine(): image.path.stat().st_size},
        }
        FILE.write_text(json.dumps(document, indent=2) + "\n")
        pytest.skip(f"recorded {FILE.name}")


DEFAULT_TOLERANCES = {
    "fuel": {"percent": 2, "why": "entropy and clocks differ from run to run: by less than 0.5 %"},
    "host_calls": {"percent": 0, "why": "the same script makes the same calls"},
    "memory_bytes": {"percent": 1, "why": "grows in pages of 64 KiB"},
    "dirty_pages": {"percent": 3, "why": "of 4 KiB, different from the image's after a run; each is put back"},
    "artifact_bytes": {"percent": 2, "why": "what a user downloads"},
    "module_bytes": {"percent": 2, "why": "what is compiled"},
    "image_bytes": {"percent": 3, "why": "what is loaded; by machine and version of wasmtime"},
}


def _machine() -> str:
    return f"{sys.platform} {platform.machine()}, wasmtime {wasmtime_version()}"


def _compare(what: str, found: int, recorded: int, image: LoadedImage) -> None:
    """Fails for more than is recorded, and for so much less that the record is out of date."""
    percent = RECORDED["tolerances"][what]["percent"]
    if abs(found - recorded) * 100 <= recorded * percent:
        return
    change = f"{(found - recorded) / recorded:+.1%}" if recorded else f"from {recorded}"
    message = f"{what}: {found:,}, recorded {recorded:,} ({change}, tolerated {percent} %)."
    if image.id != RECORDED["image"]:
        message += f" The record is of image {RECORDED['image'][:16]}, this is {image.id[:16]}."
    pytest.fail(f"{message} If that is meant, record it anew: {RECORDED['how']}")


@pytest.mark.parametrize("name", TOOLS)
def test_a_reference_tool_costs_what_is_recorded(name: str, image: LoadedImage) -> None:
    outcome = _run(name)
    for what in ("fuel", "host_calls", "memory_bytes"):
        _compare(what, getattr(outcome, what), RECORDED[what][name], image)


@pytest.mark.skipif(not is_supported(), reason="linear memory is wasmtime's on this system")
@pytest.mark.parametrize("name", TOOLS)
def test_a_reference_tool_leaves_as_many_dirty_pages_as_are_recorded(
    name: str, image: LoadedImage, own_engine: GuestEngine
) -> None:
    _compare("dirty_pages", _dirty_pages(name, own_engine), RECORDED["dirty_pages"][name], image)


def test_fuel_is_nearly_the_same_from_run_to_run() -> None:
    request = dataclasses.replace(request_of(_script("add two integers")), tool_line_count=0)  # never compiled ahead
    fuel = [process_engine().start(request, LiveSurroundings()).result().fuel or 0 for _ in range(5)]
    assert max(fuel) - min(fuel) < 0.005 * min(fuel)


def test_fuel_is_about_the_same_when_the_tool_is_compiled_ahead(image: LoadedImage) -> None:
    name, codes = "agent state", image.tool_codes
    if codes is None:
        pytest.skip("the plain engine keeps no code")
    key = key_of(request_of(_script(name)))
    assert key
    first = _run(name).fuel or 0
    deadline = time.monotonic() + 30
    while codes.find(key) is None and time.monotonic() < deadline:
        _run(name)
        time.sleep(0.01)
    assert codes.find(key)
    assert abs((_run(name).fuel or 0) - first) < 0.05 * first


def test_the_guest_module_has_the_recorded_size(image: LoadedImage) -> None:
    artifact = find_artifact()
    _compare("artifact_bytes", artifact.compressed_bytes, RECORDED["artifact_bytes"], image)
    _compare("module_bytes", artifact.size_bytes, RECORDED["module_bytes"], image)


@pytest.mark.skipif(engine_is_plain(), reason="the memory of an image is in its code then")
def test_the_compiled_image_has_the_recorded_size(image: LoadedImage) -> None:
    recorded = RECORDED["image_bytes"].get(_machine())
    if recorded is None:
        pytest.skip(f"nothing is recorded for {_machine()}")
    _compare("image_bytes", image.path.stat().st_size, recorded, image)
