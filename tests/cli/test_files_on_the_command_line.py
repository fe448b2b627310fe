"""The options ``--file``, ``--output-dir`` and ``--mount``."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest

from wasm_sandbox.cli.file_options import save_files
from wasm_sandbox.errors import InvalidFiles
from wasm_sandbox.results import ToolExecutionResult

TOOL = """
import json, os
def total(column: int) -> int:
    rows = [line.split(",") for line in open("/in/x.csv")]
    os.makedirs("/out/deep")
    with open("/out/deep/rows.json", "w") as f:
        json.dump(len(rows), f)
    return sum(int(row[column]) for row in rows)
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "tool.py").write_text(TOOL)
    (tmp_path / "x.csv").write_text("1,2\n3,4\n")
    return tmp_path


def command(here: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "wasm_sandbox", *arguments]
    return subprocess.run(line, cwd=here, input=stdin, capture_output=True, text=True, check=False, timeout=100)


def test_a_file_goes_in_and_what_the_tool_wrote_is_saved(here: Path) -> None:
    done = command(
        here, "run", "tool.py", "--args", '{"column": 1}', "--file", "/in/x.csv=x.csv", "--output-dir", "saved"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "6\n", "")
    assert [str(p.relative_to(here)) for p in (here / "saved").rglob("*") if p.is_file()] == [
        "saved/out/deep/rows.json"
    ]


def test_what_is_not_saved_is_told_and_json_holds_it(here: Path) -> None:
    arguments = ["run", "tool.py", "--args", '{"column": 0}', "--file", "/in/x.csv=x.csv"]
    done = command(here, *arguments)
    assert done.returncode == 0
    assert "/out/deep/rows.json; save them with --output-dir DIR" in done.stderr
    files = json.loads(command(here, *arguments, "--json").stdout)["files"]
    assert {path: base64.b64decode(content) for path, content in files.items()} == {"/out/deep/rows.json": b"2"}


def test_a_directory_is_mounted_to_be_read_or_changed(here: Path) -> None:
    script = "import sys; open('/d/new', 'w').write(open('/d/x.csv').read())"
    done = command(here, "exec", "-", "--mount", "/d=.", stdin=script)
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr
    assert command(here, "exec", "-", "--mount", "/d=.:rw", stdin=script).returncode == 0
    assert (here / "new").read_text() == "1,2\n3,4\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--file", "/x"], "--file /x: say what it is on the host"),
        (["--file", "/x=none"], "--file /x=none: cannot be read"),
        (["--file", "x=x.csv"], "must be absolute"),
        (["--mount", "/m=none"], "is no directory"),
        (["--mount", "/m"], "--mount /m: say what it is on the host"),
        (["--file", "/x=x.csv", "--file-count", "0"], "at most 0 are allowed"),
        (["--files-limit", "2G"], "must be at most 1G"),
    ],
)
def test_wrong_options_are_bad_usage_in_one_line(here: Path, arguments: list[str], message: str) -> None:
    done = command(here, "exec", "-", *arguments, stdin="print(1)")
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("path", ["/a\\..\\b", "/c:x", "/a/con?", "/new\nline", "/dot.", "/space ", "/bell\a"])
def test_names_that_are_no_mere_names_here_are_not_saved(tmp_path: Path, path: str) -> None:
    result = ToolExecutionResult(status="success", files={path: b""})
    with pytest.raises(InvalidFiles, match="not saved"):
        save_files(result, str(tmp_path / "saved"), quiet=False)
    assert list(tmp_path.rglob("*")) == []
