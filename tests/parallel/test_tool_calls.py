"""`ToolCall`, `Sandbox` and `Image` as values that travel: pickled here, run in another process, from any directory."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from wasm_sandbox import (
    AsyncSandbox,
    HostDir,
    HostFunction,
    Image,
    ImageNotFound,
    Limits,
    Sandbox,
    Tool,
    ToolSourceError,
    run_tool,
)
from wasm_sandbox.parallel import ToolCall, run_call

ADD = Tool.from_source("def add(a: int, b: int) -> int:\n    return a + b")
GREET = Tool.from_source("def greet() -> str:\n    import greetings\n    return greetings.WORD")

RUN = """
import pickle, sys
from wasm_sandbox.parallel import run_call
print(run_call(pickle.loads(sys.stdin.buffer.read())).func_return)
"""


def double(x: int) -> int:
    return 2 * x


def test_a_call_is_a_value() -> None:
    call = ToolCall(ADD, {"a": 1, "b": 2}, Limits(fuel=10**9))
    twin = pickle.loads(pickle.dumps(call))
    assert twin == call
    assert hash(twin) == hash(call)
    assert run_call(twin).func_return == run_tool(ADD, {"a": 1, "b": 2}).func_return == 3


def test_a_call_cannot_be_changed_also_not_by_who_made_it() -> None:
    args = {"a": 1, "b": 2}
    call = ToolCall(ADD, args)
    args["a"] = 5
    assert call.args == {"a": 1, "b": 2}
    with pytest.raises(AttributeError):
        call.args = {}  # type: ignore[misc]
    with pytest.raises(TypeError):
        call.args["a"] = 5  # type: ignore[index]


def test_a_call_takes_a_function_and_limits_as_a_mapping() -> None:
    call: Any = ToolCall(double, {"x": 4}, {"fuel": 10**9})  # type: ignore[arg-type]
    assert (call.tool.name, call.limits) == ("double", Limits(fuel=10**9))
    assert run_call(call).func_return == 8


def test_limits_of_a_call_are_kept_where_it_runs() -> None:
    result = run_call(ToolCall(ADD, {"a": 1, "b": 2}, Limits(fuel=1)))
    assert result.error is not None
    assert result.error.kind == "out_of_fuel"


@pytest.mark.parametrize(
    ("parts", "error", "words"),
    [
        ((5, {}), TypeError, "must be a Tool or a function, not a int"),
        ((ADD, [1]), TypeError, "arguments must map names to values, not be a list"),
        ((ADD, {1: 2}), TypeError, "the name of an argument must be text, not 1"),
        ((ADD, {}, {"fuel": -1}), ValueError, "fuel"),
        ((ADD, {}, None, 5), TypeError, "image must be an Image, its id or its name, not a int"),
        ((lambda x: x, {}), ToolSourceError, "not a function defined with def"),
    ],
)
def test_a_call_that_is_none_is_refused_in_words(parts: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ToolCall(*parts)


def test_only_calls_are_run() -> None:
    with pytest.raises(TypeError, match="run_call runs a ToolCall, not a dict"):
        run_call({"tool": ADD})  # type: ignore[arg-type]


def test_a_call_in_an_image_that_is_not_there_says_so(images_directory: Path) -> None:
    with pytest.raises(ImageNotFound, match="there is no image 'nowhere'"):
        run_call(ToolCall(ADD, {"a": 1, "b": 2}, image="nowhere"))
    with pytest.raises(ImageNotFound):
        run_call(ToolCall(ADD, {"a": 1, "b": 2}, image="0" * 64))


# --- Sandboxes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Sandbox, AsyncSandbox])
def test_a_sandbox_travels_with_all_its_options(kind: type[Any], tmp_path: Path) -> None:
    box = kind(
        limits={"fuel": 10**9},
        env={"A": "1"},
        files={"/in": b"x"},
        mounts={"/data": HostDir(tmp_path)},
        functions={"mine": [double, ADD, HostFunction.deferred("ask", question=str)]},
    )
    twin = pickle.loads(pickle.dumps(box))
    assert type(twin) is kind
    different = {name for name, value in box.options.items() if twin.options[name] != value}
    assert different == {"functions"}
    assert twin.functions.modules == box.functions.modules


def test_host_functions_and_tools_of_a_sandbox_are_called_by_its_twin() -> None:
    twin = pickle.loads(pickle.dumps(Sandbox(functions=[HostFunction.of(double), ADD])))
    assert twin.run_code("double(20) + add(1, b=1)").value == 42


class _Held:
    def __init__(self) -> None:
        self.lock = threading.Lock()

    def method(self, x: int) -> int:
        return x


def test_a_sandbox_that_cannot_travel_names_the_part() -> None:
    def nested(x: int) -> int:
        return x

    parts: list[tuple[str, Any]] = [
        ("gate", lambda call: None),
        ("on_event", lambda event: None),
        ("functions", [nested]),
        ("functions", [_Held().method]),
    ]
    for option, value in parts:
        box = Sandbox(**{option: value})
        with pytest.raises(TypeError, match=f"a Sandbox with this option '{option}' cannot be pickled"):
            pickle.dumps(box)


# --- Images ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def image(images_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    package = tmp_path_factory.mktemp("package") / "greetings.py"
    package.write_text("WORD = 'hello'\n")
    return Image.build(packages=[package], name="greetings")


def run_elsewhere(call: ToolCall, **environment: str) -> str:
    """Run a call in another process, whose directories are others."""
    command = [sys.executable, "-c", RUN]
    env = {**os.environ, **environment}
    done = subprocess.run(command, input=pickle.dumps(call), capture_output=True, check=False, env=env)
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    return done.stdout.decode().strip()


@pytest.mark.long
def test_a_call_goes_by_the_hash_of_its_image(image: Image, images_directory: Path, tmp_path: Path) -> None:
    call = ToolCall(GREET, {}, image=image)  # type: ignore[arg-type]  # taken by its id
    assert call.image == image.id
    assert run_call(call).func_return == "hello"
    # another machine: its own cache, and the directory of images that all of them see
    shared = {"WASM_SANDBOX_DATA_DIR": str(images_directory), "WASM_SANDBOX_CACHE_DIR": str(tmp_path / "cache")}
    assert run_elsewhere(call, **shared) == "hello"


@pytest.mark.long
def test_an_image_travels_as_its_hash_and_nothing_else(image: Image, images_directory: Path) -> None:
    data = pickle.dumps(Sandbox(image=image))
    assert image.id.encode() in data
    assert str(images_directory).encode() not in data
    assert pickle.loads(data).run_tool(GREET).func_return == "hello"


@pytest.mark.long
def test_an_exported_image_is_found_by_its_hash_where_nothing_else_is_kept(image: Image, tmp_path: Path) -> None:
    exported = tmp_path / "exported"
    command = [sys.executable, "-m", "wasm_sandbox", "image", "export", "greetings", str(exported)]
    subprocess.run(command, check=True, capture_output=True)
    elsewhere = {"WASM_SANDBOX_IMAGE": str(exported), "WASM_SANDBOX_DATA_DIR": str(tmp_path / "none")}
    assert run_elsewhere(ToolCall(GREET, {}, image=image.id), **elsewhere) == "hello"
    assert run_elsewhere(ToolCall(GREET, {}), **elsewhere) == "hello"
    assert not (tmp_path / "none").exists()
