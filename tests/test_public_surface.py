"""The public names, what importing them costs, and that the package is typed."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
from pydantic import ValidationError, field_validator

import wasm_sandbox
from wasm_sandbox import Limits, Tool, ToolExecutionResult, run_tool
from wasm_sandbox.limits import DEFER_BUILD

NAMES = [
    "ArgumentSchemaError",
    "ArtifactError",
    "AsyncPaused",
    "AsyncSandbox",
    "AsyncSession",
    "AsyncToolSandboxBase",
    "BadArguments",
    "CacheError",
    "Call",
    "CodeResult",
    "Connection",
    "Deny",
    "ErrorKind",
    "Event",
    "HostDir",
    "HostError",
    "HostFunction",
    "Image",
    "ImageError",
    "ImageNotFound",
    "InvalidEnvironment",
    "InvalidFiles",
    "InvalidNetwork",
    "Limits",
    "Network",
    "PackageError",
    "Paused",
    "Request",
    "Sandbox",
    "SandboxConfig",
    "SandboxError",
    "Secret",
    "SecretError",
    "Session",
    "SessionError",
    "SessionPoint",
    "SnapshotError",
    "StoreError",
    "Tool",
    "ToolError",
    "ToolExecutionResult",
    "ToolSourceError",
    "UnsupportedIsolation",
    "UnsupportedToolError",
    "Usage",
    "WasmToolSandbox",
    "host_function",
    "run_code",
    "run_tool",
]


def test_the_public_names_are_these() -> None:
    assert sorted(wasm_sandbox.__all__) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(wasm_sandbox, name)
    assert value.__doc__
    assert name in dir(wasm_sandbox)


def test_any_other_name_is_missing() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        wasm_sandbox.nothing  # noqa: B018 - the look is what fails


def test_importing_the_package_loads_neither_wasmtime_nor_pydantic() -> None:
    check = "import sys, wasm_sandbox; print(sorted({'wasmtime', 'pydantic', 'pydantic_core'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


FIRST_CALL = """
import sys
from wasm_sandbox import Tool, run_tool
tool = Tool.from_source("def add(a: int, b: int, c: list[str] | None = None) -> int:\\n    return a + b")
assert run_tool(tool, {"a": 1, "b": 2}).func_return == 3
"""


def _after_the_first_call(check: str) -> str:
    done = subprocess.run([sys.executable, "-c", FIRST_CALL + check], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.skipif(not DEFER_BUILD, reason="an older pydantic builds models at once")
def test_a_first_call_loads_nothing_that_only_other_calls_need() -> None:
    """But for what platformdirs loads, which finds the cache where nobody says where it is: tempfile and lzma."""
    unneeded = {
        *("asyncio", "filelock", "importlib.metadata", "socket", "sqlite3", "subprocess", "click"),
        *("docstring_parser", "pydantic.plugin._loader", "wasmtime.component", "wasm_sandbox.script.argument_models"),
        *(
            "wasm_sandbox.engine.compiled.preparation",
            "wasm_sandbox.engine.module.snapshot",
            "wasm_sandbox.images.store",
        ),
        *("wasm_sandbox.workers.pool", "wasm_sandbox.sandbox.script_end", "wasm_sandbox.stores"),
    }
    assert _after_the_first_call(f"print(sorted({unneeded!r} & {{*sys.modules}}))") == "[]\n"


@pytest.mark.skipif(not DEFER_BUILD, reason="an older pydantic builds models at once")
def test_a_first_call_builds_no_model() -> None:
    check = """
from wasm_sandbox import Limits, SandboxConfig, ToolError, ToolExecutionResult, Usage
models = [Limits, SandboxConfig, Tool, ToolError, ToolExecutionResult, Usage]
print([model.__name__ for model in models if model.__pydantic_complete__])
"""
    assert _after_the_first_call(check) == "[]\n"


def test_threads_may_be_the_first_to_use_a_model_together() -> None:
    together = """
import sys, threading
from wasm_sandbox import ErrorKind, Limits, ToolError, ToolExecutionResult

sys.setswitchinterval(1e-5)
start, done = threading.Barrier(8), []

def use():
    start.wait()
    for _ in range(20):
        limits = Limits.model_validate({"fuel": Limits(fuel=5).fuel})
        error = ToolError(kind=ErrorKind.TIMEOUT, message="late")
        done.append(len(ToolExecutionResult(status="error", error=error).model_dump_json()) + limits.fuel)

threads = [threading.Thread(target=use) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(done))
"""
    done = subprocess.run([sys.executable, "-c", together], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("160\n", "")


def test_what_is_made_without_validation_is_what_validation_makes() -> None:
    assert Limits.default() == Limits()
    assert Limits.default().model_fields_set == Limits().model_fields_set == set()
    tool = Tool.from_source("def add(a: int) -> int:\n    'Adds.'\n    return a")
    assert tool == Tool.model_validate(tool.model_dump(exclude_unset=True))
    result = run_tool(tool, {"a": 1})
    assert result == ToolExecutionResult.model_validate(result.model_dump(exclude_unset=True))
    assert pickle.loads(pickle.dumps(result)) == result


def test_a_tools_subclass_has_its_own_rules() -> None:
    class Described(Tool):
        @field_validator("description")
        @classmethod
        def _is_there(cls, description: str | None) -> str:
            assert description, "say what it does"
            return description

    with pytest.raises(ValidationError, match="say what it does"):
        Described.from_source("def f():\n    pass")


def test_the_package_is_typed() -> None:
    assert files("wasm_sandbox").joinpath("py.typed").is_file()


def test_its_version_is_the_distributions() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert wasm_sandbox.__version__ == project["version"]
