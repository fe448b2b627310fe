"""A gate against regressions that needs no clock: what is counted does not depend on the machine's speed.

The recorded counts and their tolerances are in ``counts.json``. After a change that is meant, record them anew:

    WASM_SANDBOX_RECORD_COUNTS=1 python -m pytest tests/test_counts.py
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.counts import COSTS, RECORD_VARIABLE, TOLERANCES, compare, costs, dirty_pages, machine
from wasm_sandbox.bench.contenders import request_of, run_generated
from wasm_sandbox.engine.compiled.artifact import find_artifact
from wasm_sandbox.engine.compiled.loaded import LoadedImage
from wasm_sandbox.engine.compiled.tool_codes import key_of
from wasm_sandbox.engine.engine import GuestEngine, process_engine
from wasm_sandbox.engine.memory.kept import is_supported
from wasm_sandbox.engine.world.surroundings import LiveSurroundings
from wasm_sandbox.outcome import Outcome
from wasm_sandbox.script.generate import ExecutionScript, generate_script
from wasm_sandbox.switches import engine_is_plain
from wasm_sandbox.tool.definition import Tool

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


def _counted(name: str) -> Outcome:
    """As the first run of a tool, whatever other tests ran: its code is never compiled ahead."""
    request = request_of(_script(name))._replace(tool_line_count=0)
    return process_engine().start(request, LiveSurroundings()).result()


def _dirty_pages(name: str, engine: GuestEngine) -> int:
    return dirty_pages(request_of(_script(name)), engine)


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
        outcomes = {name: _counted(name) for name in TOOLS}
        tolerances = {**TOLERANCES, **RECORDED.get("tolerances", {})}
        document = {
            "how": f"{RECORD_VARIABLE}=1 python -m pytest tests/test_counts.py",
            "image": image.id,
            "tolerances": tolerances,
            **costs(outcomes),
            "dirty_pages": {name: _dirty_pages(name, own_engine) for name in TOOLS},
            "artifact_bytes": find_artifact().compressed_bytes,
            "module_bytes": find_artifact().size_bytes,
            "image_bytes": {**RECORDED.get("image_bytes", {}), machine(): image.path.stat().st_size},
        }
        FILE.write_text(json.dumps(document, indent=2) + "\n")
        pytest.skip(f"recorded {FILE.name}")


def _compare(what: str, found: int, recorded: int, image: LoadedImage) -> None:
    compare(RECORDED, what, found, recorded, image)


@pytest.mark.parametrize("name", TOOLS)
def test_a_reference_tool_costs_what_is_recorded(name: str, image: LoadedImage) -> None:
    outcome = _counted(name)
    for what in COSTS:
        _compare(what, getattr(outcome, what), RECORDED[what][name], image)


@pytest.mark.skipif(not is_supported(), reason="linear memory is wasmtime's on this system")
@pytest.mark.parametrize("name", TOOLS)
def test_a_reference_tool_leaves_as_many_dirty_pages_as_are_recorded(
    name: str, image: LoadedImage, own_engine: GuestEngine
) -> None:
    _compare("dirty_pages", _dirty_pages(name, own_engine), RECORDED["dirty_pages"][name], image)


def test_fuel_is_nearly_the_same_from_run_to_run() -> None:
    request = request_of(_script("add two integers"))._replace(tool_line_count=0)  # never compiled ahead
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
    recorded = RECORDED["image_bytes"].get(machine())
    if recorded is None:
        pytest.skip(f"nothing is recorded for {machine()}")
    _compare("image_bytes", image.path.stat().st_size, recorded, image)
