"""The options ``--file``, ``--output-dir`` and ``--mount``."""

from __future__ import annotations

import base64
import json
import ntpath
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasm_sandbox.cli import saving
from wasm_sandbox.cli.file_options import save_files
from wasm_sandbox.cli.saving import check_names
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


def saved(directory: Path, **files: bytes) -> None:
    save_files(ToolExecutionResult(status="success", files=files), str(directory), quiet=False)


DEVICES = [
    *("CON", "prn", "Aux", "NUL", "COM0", "com9", "LPT1"),
    *("CONIN$", "conout$", "CLOCK$", "COM\u00b9", "lpt\u00b3"),
]
UNSAFE = [
    "", ".", "..", "a\\..\\b", "c:x", "a:b", "a.txt::$DATA", "con?", "a*", "<", ">", "|", '"', "new\nline", "dot.",
    "dots..", "space ", "dot. .", "bell\a", "nul\0", "del\x7f", "csi\x9b", "\u202egnp", "zero\u200bwidth", "\ufeffbom",
    "half\ud800", ".git", ".bashrc", "...", ". ", ".a", "GIT~1", "progra~1", "a~1.txt", "abcdef~12",
    "x" * 256, "é" * 128, "\U0001f600" * 64,
    *DEVICES, *(f"{name}.txt" for name in DEVICES), "con.tar.gz", "NUL .txt", "aux  .c", "com1.", "COM1 ",
]  # fmt: skip
SAFE = [
    "a", "a.b", "a b", "con1", "console", "xnul", "com", "com10", "lpt10.txt", "nul-1", "com1x", "é.txt", "名前",
    "x" * 255, "é" * 127,
    "a~b", "abcdefg~1", "~", "~1", "-rf", "a.b.c", "$DATA", "#", "%2e%2e",
]  # fmt: skip


@pytest.mark.parametrize("name", UNSAFE, ids=ascii)
@pytest.mark.parametrize("place", ["/{}", "/in/{}", "/{}/x"])
def test_names_that_are_no_mere_names_on_every_system_are_not_saved(tmp_path: Path, name: str, place: str) -> None:
    with pytest.raises(InvalidFiles, match="not saved"):
        check_names(["/first", place.format(name) if name else "/a//b"])
    result = ToolExecutionResult(status="success", files={"/first": b"", place.format(name) if name else "/a//b": b""})
    with pytest.raises(InvalidFiles, match="not saved"):
        save_files(result, str(tmp_path / "saved"), quiet=False)
    assert list(tmp_path.rglob("*")) == []  # not even the first


@pytest.mark.parametrize("name", SAFE, ids=ascii)
def test_names_are_saved_as_they_are(tmp_path: Path, name: str) -> None:
    saved(tmp_path, **{f"/{name}": b"1", "/d/e": b"2"})
    assert (tmp_path / name).read_bytes() == b"1"
    assert (tmp_path / "d" / "e").read_bytes() == b"2"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, "d"])


@given(st.text(min_size=1, max_size=12))
def test_what_is_taken_for_a_name_is_one_on_every_system(name: str) -> None:
    """By another way: what Windows' own rules and POSIX's make of it."""
    try:
        check_names([f"/{name}"])
    except InvalidFiles:
        return
    for part in name.strip("/").split("/"):
        assert PureWindowsPath(part).parts == PurePosixPath(part).parts == (part,)
        assert not ntpath.isreserved(part) if hasattr(ntpath, "isreserved") else not PureWindowsPath(part).is_reserved()
        assert part.isprintable()
        assert not part.startswith(".")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("/a", "/A"), ("/d/a", "/D/b"), ("/a", "/A/b"), ("/stra\u00dfe", "/STRASSE"), ("/\u00e9", "/e\u0301"),
        ("/\u212a", "/k"), ("/\ufb01x", "/fix"), ("/x/Y/z", "/x/y/w"), ("/\u0130", "/i\u0307"),
    ],
)  # fmt: skip
def test_paths_that_are_one_on_some_systems_are_not_saved(tmp_path: Path, first: str, second: str) -> None:
    for files in ({first: b"1", second: b"2"}, {second: b"2", first: b"1"}):
        with pytest.raises(InvalidFiles, match="differs from it only in case or accents"):
            saved(tmp_path / "saved", **files)
    assert list(tmp_path.rglob("*")) == []


def test_a_path_below_another_and_beside_it_are_saved(tmp_path: Path) -> None:
    saved(tmp_path / "new" / "deep", **{"/d/a": b"1", "/d/b": b"2", "/d/c/a": b"3", "/a": b""})
    assert (tmp_path / "new" / "deep" / "d" / "c" / "a").read_bytes() == b"3"


@pytest.fixture(params=[True, False], ids=["by descriptors", "by paths"])
def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param and not saving.HAS_DIR_FD:
        pytest.skip("this system opens nothing from a directory on")
    monkeypatch.setattr(saving, "HAS_DIR_FD", request.param)
    return bool(request.param)


THERE: dict[str, Callable[[Path, Path], object]] = {
    "a link to a file": lambda place, other: place.symlink_to(other),
    "a link to nothing": lambda place, other: place.symlink_to(other.with_name("new")),
    "a link to a directory": lambda place, other: place.symlink_to(other.parent),
    "a directory": lambda place, other: place.mkdir(),
    "a FIFO": lambda place, other: os.mkfifo(place),
    "a device": lambda place, other: os.mknod(place, stat.S_IFCHR | 0o666, os.makedev(1, 3)),
}


@pytest.mark.skipif(os.name != "posix", reason="makes links and special files")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", THERE)
def test_what_is_there_and_no_file_is_left_alone(tmp_path: Path, kind: str, each_way: bool) -> None:
    other = tmp_path / "outside" / "secret"
    other.parent.mkdir()
    other.write_text("SECRET")
    top = tmp_path / "saved"
    top.mkdir()
    try:
        THERE[kind](top / "x", other)
    except PermissionError:
        pytest.skip("only root makes devices")
    before = os.lstat(top / "x").st_ino
    with pytest.raises(InvalidFiles, match="something else than a file is there"):
        saved(top, **{"/x": b"owned"})
    if kind != "a directory":
        with pytest.raises(InvalidFiles, match=r"x is a link, or no directory|File exists"):
            saved(top, **{"/x/y": b"owned"})
    assert os.lstat(top / "x").st_ino == before
    assert other.read_text() == "SECRET"
    assert sorted(p.name for p in other.parent.iterdir()) == ["secret"]
    assert [p.name for p in top.iterdir()] == ["x"]


@pytest.mark.skipif(os.name != "posix", reason="makes links")
def test_a_file_that_is_there_gives_up_its_name_and_nothing_else(tmp_path: Path, each_way: bool) -> None:
    (tmp_path / "hook").write_text("mine")
    (tmp_path / "hook").chmod(0o755)
    os.link(tmp_path / "hook", tmp_path / "other name of it")
    saved(tmp_path, **{"/hook": b"the tool's"})
    assert (tmp_path / "hook").read_bytes() == b"the tool's"
    assert not (tmp_path / "hook").stat().st_mode & 0o111
    assert (tmp_path / "other name of it").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hook", "other name of it"]


@pytest.mark.skipif(not saving.HAS_DIR_FD, reason="needs to open from a directory on")
def test_a_directory_that_becomes_a_link_meanwhile_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race, made certain: after each directory was made or seen, its name is a link that leads out."""
    outside = tmp_path / "outside"
    outside.mkdir()
    mkdir = os.mkdir

    def mkdir_and_lose(name: str, *arguments: Any, dir_fd: int | None = None, **options: Any) -> None:
        mkdir(name, *arguments, dir_fd=dir_fd, **options)
        if dir_fd is not None:
            os.rename(name, "was", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
            os.symlink(outside, name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", mkdir_and_lose)
    with pytest.raises(InvalidFiles, match="d is a link, or no directory"):
        saved(tmp_path / "saved", **{"/d/x": b"owned"})
    assert list(outside.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for directory in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("x" * 300)):
        with pytest.raises(InvalidFiles, match="cannot be written"):
            saved(directory, **{"/x": b""})
