"""The public names, what importing them costs, and that the package is typed."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

import wasm_sandbox

NAMES = [
    "AsyncToolSandboxBase",
    "ErrorKind",
    "HostDir",
    "Image",
    "Limits",
    "SandboxConfig",
    "Tool",
    "ToolError",
    "ToolExecutionResult",
    "Usage",
    "WasmToolSandbox",
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
        wasm_sandbox.nothing  # noqa: B018


def test_importing_the_package_loads_neither_wasmtime_nor_pydantic() -> None:
    check = "import sys, wasm_sandbox; print(sorted({'wasmtime', 'pydantic', 'pydantic_core'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_package_is_typed() -> None:
    assert files("wasm_sandbox").joinpath("py.typed").is_file()


def test_its_version_is_the_distributions() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert wasm_sandbox.__version__ == project["version"]
