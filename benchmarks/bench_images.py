"""Images with packages: a fresh start in one beside the default image, and an exported image's start to first result.

Needs the package index. Images are built in a directory of their own, and forgotten.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wasm_sandbox import Image, Tool, run_tool
from wasm_sandbox.directories import DATA_VARIABLE
from wasm_sandbox.images.exported import this_target
from wasm_sandbox.images.exporting import export_image
from wasm_sandbox.switches import IMAGE_VARIABLE

ROUNDS = int(os.environ.get("WASM_SANDBOX_BENCH_ROUNDS", "200"))
BOUND = 1.3
"""What a fresh start in an image may take, relative to the default image."""

IMAGES = {
    "small": ["lark", "tabulate", "beautifulsoup4", "html5lib"],
    "large": ["sympy"],
}
TOOL = Tool.from_source("def add(a: int, b: int) -> int:\n    return a + b\n")
FIRST = r"""
from wasm_sandbox import Tool, run_tool
print(run_tool(Tool.from_source("def f():\n    return 42")).func_return)
"""


def _milliseconds(image: Image | None) -> float:
    started = time.perf_counter()
    assert run_tool(TOOL, {"a": 1, "b": 2}, image=image).func_return == 3
    return (time.perf_counter() - started) * 1000


@pytest.mark.parametrize("name", IMAGES)
def bench_fresh_start(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole tool call that uses no package, in turns with the default image."""
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    image = Image.build(IMAGES[name])
    contenders: list[Image | None] = [None, image]
    taken: dict[str, list[float]] = {"default": [], name: []}
    for number in range(ROUNDS + 10):
        for contender in contenders if number % 2 else reversed(contenders):
            milliseconds = _milliseconds(contender)
            if number >= 10:
                taken["default" if contender is None else name].append(milliseconds)
    medians = {which: statistics.median(values) for which, values in taken.items()}
    ratio = medians[name] / medians["default"]
    print(f"\n{name}: {medians[name]:.2f} ms, default {medians['default']:.2f} ms, {ratio:.2f} times")
    assert ratio <= BOUND


def bench_exported_first_result(tmp_path: Path) -> None:
    """A new process with no home and no cache, from its start to the first result, beside the cached default image."""
    export_image(None, this_target(), tmp_path / "image", lambda words: None)
    root = str(Path(__file__).parents[1])
    exported = {"HOME": "/nonexistent", "PYTHONPATH": root, IMAGE_VARIABLE: str(tmp_path / "image")}
    taken: dict[str, list[float]] = {"exported": [], "cached": []}
    for _ in range(11):
        for which, environment in (("exported", exported), ("cached", dict(os.environ))):
            started = time.perf_counter()
            done = subprocess.run([sys.executable, "-c", FIRST], env=environment, stdout=subprocess.PIPE, check=True)
            assert done.stdout.split() == [b"42"]
            taken[which].append((time.perf_counter() - started) * 1000)
    print("\n" + ", ".join(f"{which} {statistics.median(values):.0f} ms" for which, values in taken.items()))
