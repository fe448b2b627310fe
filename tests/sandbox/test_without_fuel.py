"""`Limits(fuel=None)`: nothing is counted, everything else is limited as ever; in every way to run a tool."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from wasm_sandbox import ErrorKind, Limits, Tool, run_tool
from wasm_sandbox.cli.app import cli
from wasm_sandbox.engine.compiled.artifact import find_artifact
from wasm_sandbox.engine.compiled.identity import image_id
from wasm_sandbox.engine.engine import usual_builds
from wasm_sandbox.options import Isolation

TOOL = Tool.from_source("def triple(n: int) -> int:\n    return 3 * n\n")
ENDLESS = Tool.from_source("def endless() -> int:\n    print('begun')\n    while True: pass\n")
WITHOUT = Limits(fuel=None, timeout_seconds=0.5)


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_tool_runs_and_its_usage_says_that_nothing_was_counted(isolation: Isolation) -> None:
    result = run_tool(TOOL, {"n": 14}, limits=Limits(fuel=None), isolation=isolation)
    assert (result.status, result.func_return) == ("success", 42)
    assert result.usage is not None
    assert result.usage.fuel is None


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_the_deadline_ends_a_tool_that_computes(isolation: Isolation) -> None:
    result = run_tool(ENDLESS, limits=WITHOUT, isolation=isolation)
    assert result.error is not None
    assert (result.error.kind, result.stdout) == (ErrorKind.TIMEOUT, ["begun\n"])
    assert result.error.message.startswith("Executing tool endless timed out after 0.5 seconds.")


def test_it_is_none_or_a_count() -> None:
    for wrong in (0, -1, True, 1.5, "none"):
        with pytest.raises(ValidationError):
            Limits(fuel=wrong)


def test_the_command_takes_it(tmp_path: Path) -> None:
    file = tmp_path / "tool.py"
    file.write_text(TOOL.source_code)
    ran = CliRunner().invoke(cli, ["run", str(file), "--args", '{"n": 2}', "--no-fuel", "--json"])
    assert ran.exit_code == 0, ran.output
    document = json.loads(ran.stdout)
    assert (document["func_return"], document["usage"]["fuel"]) == (6, None)
    both = CliRunner().invoke(cli, ["run", str(file), "--no-fuel", "--fuel", "5"])
    assert both.exit_code == 2
    assert "--fuel and --no-fuel exclude each other" in both.stderr


def test_warm_prepares_its_image_too() -> None:
    warmed = CliRunner().invoke(cli, ["warm", "--no-fuel"])
    assert warmed.exit_code == 0, warmed.output
    assert usual_builds(find_artifact())[1].compile_key(image_id(find_artifact())) in warmed.stdout
    assert len(warmed.stdout.splitlines()) == 2
