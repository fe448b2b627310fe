"""What runs with numpy and pandas cost, counted, and what they give when they are deterministic.

As ``tests/test_counts.py``, for the image "science"; recorded in ``counts.json`` beside this file:

    WASM_SANDBOX_RECORD_COUNTS=1 python -m pytest tests/science/test_science_counts.py
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.counts import COSTS, RECORD_VARIABLE, TOLERANCES, compare, costs, dirty_pages, machine
from wasm_sandbox import Limits, Tool, run_tool
from wasm_sandbox.bench.contenders import request_of
from wasm_sandbox.engine import FLAVOUR_IMAGES, GuestEngine, LiveSurroundings, LoadedImage, process_engine
from wasm_sandbox.engine.binding.version import wasmtime_version
from wasm_sandbox.engine.compiled.artifact import find_artifact
from wasm_sandbox.engine.memory.kept import is_supported
from wasm_sandbox.outcome import Outcome
from wasm_sandbox.request import ExecutionRequest
from wasm_sandbox.script.generate import generate_script
from wasm_sandbox.switches import engine_is_plain

FILE = Path(__file__).with_name("counts.json")
RECORDED: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {}
SCIENCE = FLAVOUR_IMAGES["science"]

BODIES = {
    "nothing": "return n + 1",
    "both imported": "import numpy, pandas\n    return [numpy.__name__, pandas.__name__]",
    "solve": "import numpy as np\n    return np.linalg.solve(np.eye(20) * n + 1, np.ones(20))",
    "group": "import pandas as pd\n    table = pd.DataFrame({'key': list('abcab') * n, 'value': range(5 * n)})\n"
    "    return table.groupby('key', as_index=False).value.sum()",
    "read a table": "import io\n    import pandas as pd\n    text = 'a,b,when\\n' + '1,2.5,2024-01-02\\n' * 100\n"
    "    return pd.read_csv(io.StringIO(text), parse_dates=['when']).describe()",
    "random numbers": "import numpy as np\n    r = np.random.default_rng()\n"
    "    return [r.normal(size=3), r.integers(9, size=3), np.random.rand(2), r.permutation(9)]",
    "sort and transform": "import numpy as np\n    a = np.sin(np.arange(4096) * 1.1)\n"
    "    return [np.sort(a)[::999], np.abs(np.fft.rfft(a))[::999], np.linalg.svd(a[:64].reshape(8, 8))[1]]",
    "join": "import pandas as pd\n    left = pd.DataFrame({'k': range(50), 'x': 1.5})\n"
    "    return left.merge(left, on='k').rolling(3).mean().tail(2)",
    "texts": "import pandas as pd\n    s = pd.Series(['a1b22', 'c333', None] * 20)\n"
    "    return s.str.extract(r'(\\d+)').dropna().tail(3)",
    "refused": "import numpy as np\n    return np.ones((10**5, 10**5))",
}


def _tool(name: str) -> Tool:
    return Tool.from_source(f"def f(n: int):\n    {BODIES[name]}\n", "f")


def _request(name: str) -> ExecutionRequest:
    return request_of(generate_script(_tool(name), {"n": 2}))


def _run(name: str) -> Outcome:
    return process_engine().start(_request(name), LiveSurroundings(), SCIENCE).result()


def _deterministic(name: str) -> dict[str, Any]:
    """All of a deterministic run's result but the time it took."""
    result = run_tool(_tool(name), {"n": 2}, image="science", limits=Limits(deterministic=True))
    return json.loads(result.model_dump_json(exclude={"usage": {"wall_seconds"}}))  # type: ignore[no-any-return]


def _digest(name: str) -> list[Any]:
    result = _deterministic(name)
    text = json.dumps(result, sort_keys=True)
    return [result["usage"]["fuel"], hashlib.sha256(text.encode()).hexdigest()[:16]]


COUNTED = [name for name in BODIES if name != "refused"]


@pytest.fixture(scope="module")
def image() -> LoadedImage:
    return process_engine().image(SCIENCE)


@pytest.fixture(scope="module")
def own_engine(image: LoadedImage) -> Iterator[GuestEngine]:
    engine = GuestEngine()
    yield engine
    engine.close()


@pytest.fixture(scope="module", autouse=True)
def _record(image: LoadedImage, own_engine: GuestEngine) -> None:
    if os.environ.get(RECORD_VARIABLE):
        outcomes = {name: _run(name) for name in COUNTED}
        document = {
            "how": f"{RECORD_VARIABLE}=1 python -m pytest tests/science/test_science_counts.py",
            "image": image.id,
            "wasmtime": wasmtime_version(),
            "tolerances": {**TOLERANCES, **RECORDED.get("tolerances", {})},
            **costs(outcomes),
            "dirty_pages": {name: dirty_pages(_request(name), own_engine, SCIENCE) for name in COUNTED},
            "deterministic": {name: _digest(name) for name in BODIES},
            "artifact_bytes": find_artifact("science").compressed_bytes,
            "module_bytes": find_artifact("science").size_bytes,
            "image_bytes": {**RECORDED.get("image_bytes", {}), machine(): image.path.stat().st_size},
        }
        FILE.write_text(json.dumps(document, indent=2) + "\n")
        pytest.skip(f"recorded {FILE.name}")


@pytest.mark.parametrize("name", COUNTED)
def test_a_run_costs_what_is_recorded(name: str, image: LoadedImage) -> None:
    outcome = _run(name)
    for what in COSTS:
        compare(RECORDED, what, getattr(outcome, what), RECORDED[what][name], image)


@pytest.mark.skipif(not is_supported(), reason="linear memory is wasmtime's on this system")
@pytest.mark.parametrize("name", COUNTED)
def test_a_run_leaves_as_many_dirty_pages_as_are_recorded(
    name: str, image: LoadedImage, own_engine: GuestEngine
) -> None:
    found = dirty_pages(_request(name), own_engine, SCIENCE)
    compare(RECORDED, "dirty_pages", found, RECORDED["dirty_pages"][name], image)


@pytest.mark.parametrize("name", BODIES)
def test_a_deterministic_run_does_what_it_did_on_the_machine_of_the_record(name: str, image: LoadedImage) -> None:
    """Fuel and output: random numbers, rounding, orders and addresses, and what is refused."""
    if wasmtime_version() != RECORDED["wasmtime"]:
        pytest.skip(f"the record is of wasmtime {RECORDED['wasmtime']}")
    assert image.id == RECORDED["image"], f"the record is of another image; record it anew: {RECORDED['how']}"
    assert _digest(name) == RECORDED["deterministic"][name], f"if that is meant: {RECORDED['how']}"
    assert _deterministic(name) == _deterministic(name)


def test_random_numbers_differ_when_nothing_is_fixed() -> None:
    tool = _tool("random numbers")
    first, second = (run_tool(tool, {"n": 2}, image="science").func_return for _ in range(2))
    assert first != second


def test_sizes_are_those_of_the_record(image: LoadedImage) -> None:
    artifact = find_artifact("science")
    compare(RECORDED, "artifact_bytes", artifact.compressed_bytes, RECORDED["artifact_bytes"], image)
    compare(RECORDED, "module_bytes", artifact.size_bytes, RECORDED["module_bytes"], image)


@pytest.mark.skipif(engine_is_plain(), reason="the memory of an image is in its code then")
def test_the_compiled_image_has_the_size_of_the_record(image: LoadedImage) -> None:
    if machine() not in RECORDED["image_bytes"]:
        pytest.skip(f"nothing is recorded for {machine()}")
    compare(RECORDED, "image_bytes", image.path.stat().st_size, RECORDED["image_bytes"][machine()], image)
