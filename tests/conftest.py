"""How tools with files are run, in the real guest and through the public functions; and where images are kept."""

from __future__ import annotations

import gc
import os
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture.junkdrawer import gc_cumulative_time

from wasm_sandbox import Limits, Tool, ToolExecutionResult, run_tool
from wasm_sandbox.directories import DATA_VARIABLE

NOTHING: dict[str, bytes] = {}


def pytest_configure() -> None:
    """Have Hypothesis measure no time, neither that of examples nor that of collections.

    It counts the latter by a callback that can run at any moment, on any thread, and the interpreter drops what is
    raised in it: the alarms of tests, and what ends work that takes too long.
    """
    gc_cumulative_time()
    gc.callbacks[:] = [one for one in gc.callbacks if one.__module__ != gc_cumulative_time.__module__]
    settings.register_profile("untimed", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("untimed")


@pytest.hookimpl(optionalhook=True)  # of xdist, which may be left out
def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are processors, for the times that tests wait for deadlines and other processes."""
    return (os.cpu_count() or 1) + 1


RunBody = Callable[..., ToolExecutionResult]


@pytest.fixture(scope="session")
def run_with() -> RunBody:
    """``run_with(body, files={}, mounts=None, **limits)``: a tool ``f`` with these statements, and its result."""

    def run(body: str, files: Any = NOTHING, mounts: Any = None, **limits: Any) -> ToolExecutionResult:
        source = f"def f():\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"
        tool = Tool(name="f", source_code=source)
        return run_tool(tool, limits=Limits(**{"timeout_seconds": 30.0, **limits}), files=files, mounts=mounts)

    return run


@pytest.fixture(scope="session")
def value_with(run_with: RunBody) -> Callable[..., Any]:
    """As ``run_with``, the value of a run that must succeed."""

    def run(body: str, files: Any = NOTHING, mounts: Any = None, **limits: Any) -> Any:
        result = run_with(body, files, mounts, **limits)
        assert result.error is None, result.error
        return result.func_return

    return run


@pytest.fixture(scope="module")
def images_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data directory of the module's own: the images of its tests are nobody else's."""
    directory = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DATA_VARIABLE, str(directory))
        yield directory


@pytest.fixture(scope="module")
def unhurried() -> Iterator[None]:
    """Time to read schemas in, where values are tested: a collection of this process's garbage may fall into it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wasm_sandbox.script.argument_models.MAX_SECONDS", 5.0)
        patch.setattr("wasm_sandbox.script.schema_check.MAX_SECONDS", 5.0)
        patch.setattr("wasm_sandbox.script.schema_validator.MAX_CHECK_SECONDS", 5.0)
        yield
