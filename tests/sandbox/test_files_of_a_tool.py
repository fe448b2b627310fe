"""Files in memory as a tool uses them, with the library that it knows."""

from __future__ import annotations

import asyncio
import io
import sqlite3
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.conftest import RunBody
from wasm_sandbox import ErrorKind, HostDir, Limits, Tool, ToolExecutionResult, WasmToolSandbox, run_tool
from wasm_sandbox.errors import InvalidFiles

ValueWith = Callable[..., Any]


def test_a_tool_reads_what_it_is_given_and_what_it_writes_comes_back(run_with: RunBody) -> None:
    body = """
    import csv, json
    with open("/in/x.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    with open("/out.json", "w") as f:
        json.dump(rows, f)
    return sum(int(row["n"]) for row in rows)
    """
    given = {"/in/x.csv": b"name,n\r\na,1\r\nb,2\r\n", "/in/unused": bytes(1000)}
    result = run_with(body, given)
    assert result.func_return == 3
    assert result.files == {"/out.json": b'[{"name": "a", "n": "1"}, {"name": "b", "n": "2"}]'}
    assert given["/in/x.csv"].startswith(b"name")  # untouched


def test_files_that_were_changed_or_moved_come_back_and_deleted_ones_do_not(run_with: RunBody) -> None:
    body = """
    import os
    open("/a", "a").write("+"); os.rename("/b", "/moved"); os.unlink("/c"); open("/same", "r+").write("s")
    """
    result = run_with(body, {"/a": b"a", "/b": b"b", "/c": b"c", "/same": b"s"})
    assert result.files == {"/a": b"a+", "/moved": b"b"}


def test_without_files_there_is_scratch_and_nothing_comes_back(run_with: RunBody) -> None:
    result = run_with("return open('/x', 'w').write('ab')", files=None)
    assert (result.func_return, result.files) == (2, None)
    assert run_with("return 1", files=None).files is None
    assert run_with("return 1", files={}).files == {}


def test_a_result_with_files_goes_through_json(run_with: RunBody) -> None:
    result = run_with("open('/x', 'wb').write(bytes(range(256)))", {})
    assert ToolExecutionResult.model_validate_json(result.model_dump_json()).files == {"/x": bytes(range(256))}


def test_a_failed_run_gives_no_files(run_with: RunBody) -> None:
    result = run_with("open('/half', 'w').write('x'); raise ValueError('no')")
    assert (result.status, result.files) == ("error", None)
    assert run_with("open('/half', 'w').write('x')\nwhile True: pass", timeout_seconds=0.3).files is None


def test_every_way_to_open_and_position_does_what_it_does_elsewhere(value_with: ValueWith, tmp_path: Path) -> None:
    body = """
    import os
    def said(action):
        try:
            return action()
        except OSError as error:
            return type(error).__name__
    path = base + "/f"
    found = [said(lambda: open(path)), said(lambda: open(path, "r+"))]
    with open(path, "xb") as f:
        found += [f.write(b"0123456789"), f.tell(), f.seek(-3, 2), f.write(b"abcdef"), f.truncate(12), f.tell()]
    found += [said(lambda: open(path, "x")), open(path, "rb").read(), os.path.getsize(path)]
    with open(path, "r+b") as f:
        found += [f.read(2), f.write(b"XX"), f.seek(0), f.read(), f.seek(20), f.write(b"end"), f.truncate()]
    with open(path, "ab") as f:
        found += [f.tell(), f.write(b"!"), f.seek(0), f.write(b"?")]
    found += [open(path, "rb").read(), said(lambda: open(path, "rb").seek(-1))]
    with open(path, "rb") as f:
        found += [said(lambda: f.fileno() and os.write(f.fileno(), b"x")), os.pread(f.fileno(), 4, 8), f.tell()]
    with open(path, "wb") as f:
        found += [os.fstat(f.fileno()).st_size, said(lambda: os.read(f.fileno(), 1))]
        found += [os.pwrite(f.fileno(), b"pw", 3), os.lseek(f.fileno(), 0, 1), os.ftruncate(f.fileno(), 9)]
    found += [open(path, "rb").read(), said(lambda: open(base)), said(lambda: os.rmdir(path))]
    found += [said(lambda: os.unlink(base + "/n"))]
    found += [said(lambda: open(path + "/below")), said(lambda: os.listdir(path)), said(lambda: os.mkdir(path))]
    os.mkdir(base + "/d"); os.replace(path, base + "/d/g")
    found += [sorted(os.listdir(base)), os.listdir(base + "/d"), said(lambda: os.rmdir(base + "/d"))]
    found += [[(d[len(base):], sorted(n), f) for d, n, f in os.walk(base)]]
    found += [said(lambda: os.rename(base + "/d", base + "/d/e"))]
    with open(base + "/d/g", "rb") as f:
        os.unlink(base + "/d/g")
        found += [f.read(), os.path.exists(base + "/d/g")]
    os.utime(base + "/d", (1, 2))
    found += [os.stat(base + "/d").st_mtime, os.path.isdir(base + "/d"), os.path.islink(base + "/d")]
    """
    names: dict[str, Any] = {"base": str(tmp_path)}
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        exec(dedent(body), names)  # the same, by this Python and on a real disk
    inside = value_with("base = '/w'\nimport os\nos.mkdir(base)\n" + dedent(body) + "\nreturn found")
    assert inside == names["found"]


def test_the_library_works_on_files(value_with: ValueWith, run_with: RunBody) -> None:
    body = """
    import gzip, os, pathlib, shutil, tarfile, tempfile, zipfile
    here = os.getcwd()
    pathlib.Path("out/deep").mkdir(parents=True)
    pathlib.Path("/out/deep/x.txt").write_text("é")
    shutil.copytree("/out", "/copy")
    shutil.copy2("/out/deep/x.txt", "/copy/y.txt")
    shutil.move("/copy/y.txt", "/copy/z.txt")
    with zipfile.ZipFile("/a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(pathlib.Path("/out").rglob("*.txt")):
            archive.write(path)
    with tarfile.open("/a.tgz", "w:gz") as tar:
        tar.add("/out", "o")
    tarfile.open("/a.tgz").extractall("/unpacked", filter="data")
    with tempfile.TemporaryDirectory() as directory:
        with gzip.open(directory + "/g", "wb") as f:
            f.write(bytes(10_000))
        size = len(gzip.open(directory + "/g").read())
    with tempfile.NamedTemporaryFile(dir="/tmp") as named, tempfile.TemporaryFile() as unnamed:
        unnamed.write(b"12"); unnamed.seek(0)
        held = [os.path.dirname(named.name), unnamed.read()]
    shutil.rmtree("/copy/deep")
    os.chdir("/unpacked")
    found = sorted(str(path) for path in pathlib.Path("/").rglob("*"))
    return here, size, held, found, open("o/deep/x.txt").read(), os.listdir("/tmp")
    """
    result = run_with(body)
    assert result.error is None, result.error
    here, size, held, found, text, left = result.func_return
    assert (here, size, held, text, left) == ("/", 10_000, ["/tmp", b"12"], "é", [])
    assert found == [
        "/a.tgz", "/a.zip", "/copy", "/copy/z.txt", "/out", "/out/deep", "/out/deep/x.txt", "/tmp", "/unpacked",
        "/unpacked/o", "/unpacked/o/deep", "/unpacked/o/deep/x.txt",
    ]  # fmt: skip
    assert result.files is not None
    archive = zipfile.ZipFile(io.BytesIO(result.files["/a.zip"]))
    assert archive.read("out/deep/x.txt") == "é".encode()


def test_a_database_goes_in_and_comes_out(run_with: RunBody, tmp_path: Path) -> None:
    made = tmp_path / "made.db"
    with sqlite3.connect(made) as connection:
        connection.execute("create table t (n integer)")
        connection.executemany("insert into t values (?)", [(n,) for n in range(100)])
    connection.close()
    body = """
    import sqlite3
    with sqlite3.connect("/data/made.db") as connection:
        connection.execute("insert into t values (1000)")
        (total,) = connection.execute("select sum(n) from t").fetchone()
    connection.close()
    return total
    """
    result = run_with(body, {"/data/made.db": made.read_bytes()})
    assert result.func_return == 4950 + 1000
    assert result.files is not None
    made.write_bytes(result.files["/data/made.db"])
    connection = sqlite3.connect(made)
    assert connection.execute("select count(*) from t").fetchone() == (101,)
    connection.close()


def test_a_module_can_be_imported_from_a_file(value_with: ValueWith) -> None:
    body = "import sys; sys.path.append('/lib'); import mine; return mine.f()"
    assert value_with(body, {"/lib/mine.py": b"def f(): return 7"}) == 7


REFUSED_BY_LIMITS = {
    "too many bytes": ("open('/x', 'wb').write(bytes(2_000_000))", "No space left"),
    "a hole": ("f = open('/x', 'wb'); f.seek(10**12); f.write(b'x'); f.flush()", "No space left"),
    "a size": ("import os; open('/x', 'w'); os.truncate('/x', 1_500_000)", "No space left"),
    "bytes of removed files": (
        "import os\nheld = []\nfor n in range(9):\n  f = open(f'/{n}', 'wb'); held.append(f); f.write(bytes(200_000))\n"
        "  f.flush(); os.unlink(f'/{n}')",
        "No space left",
    ),
    "too many files": ("for n in range(100): open(f'/{n}', 'w')", "No space left"),
    "too many directories": ("import os\nfor n in range(100): os.mkdir(f'/{n}')", "No space left"),
    "too many descriptors": ("held = [open('/in') for _ in range(1000)]", "No file descriptors available"),
    "a long name": ("open('/' + 'x' * 300, 'w')", "Filename too long"),
    "a deep path": ("import os\nfor _ in range(40):\n  os.mkdir('d' * 100); os.chdir('d' * 100)", "Filename too long"),
    "a link": ("import os; os.symlink('/in', '/link')", "not permitted"),
    "a hard link": ("import os; os.link('/in', '/link')", "not permitted"),
    "half a character": ("open(b'/\\xff', 'w')", "Illegal byte sequence"),
}


@pytest.mark.parametrize(("body", "message"), REFUSED_BY_LIMITS.values(), ids=REFUSED_BY_LIMITS.keys())
def test_what_does_not_fit_is_an_ordinary_error(run_with: RunBody, body: str, message: str) -> None:
    result = run_with(body, {"/in": b""}, files_bytes=1_000_000, file_count=50)
    assert result.error is not None
    assert result.error.kind is ErrorKind.TOOL_EXCEPTION
    assert result.error.exception_name in {"OSError", "PermissionError"}
    assert message in result.error.message


def test_copying_megabytes_again_and_again_ends_at_the_deadline(run_with: RunBody) -> None:
    body = """
    import os
    f = os.open("/x", os.O_RDWR | os.O_CREAT)
    while True:
        os.ftruncate(f, 60_000_000)
        os.ftruncate(f, 0)
    """
    result = run_with(body, timeout_seconds=0.5)
    assert result.error is not None
    assert result.error.kind is ErrorKind.TIMEOUT
    assert result.usage is not None
    assert result.usage.wall_seconds < 3


def test_what_one_run_writes_the_next_does_not_see(value_with: ValueWith) -> None:
    given = {"/in": b"x"}
    for _ in range(2):
        assert value_with("import os; before = os.listdir('/'); open('/y', 'w'); return sorted(before)", given) == [
            "in",
            "tmp",
        ]
    assert given == {"/in": b"x"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"in/x": b""}, "must be absolute, as in '/in/x'"),
        ({"/in/../x": b""}, "'/in/../x' must be normalised"),
        ({"/in/": b""}, "normalised"),
        ({"/": b""}, "normalised"),
        ({"//x": b""}, "normalised"),
        ({"/a\0b": b""}, "NUL"),
        ({"/\ud800": b""}, "lone surrogate"),
        ({"/" + "x" * 300: b""}, "too long"),
        ({"/x": "text"}, "/x must be bytes, not a str"),
        ({5: b""}, "5 must be a string"),
        ({"/a": b"", "/a/b": b""}, "/a cannot be a file"),
        ([("/a", b"")], "not be a list"),
        ({"/big": bytes(2000)}, "2000 bytes in all, at most 1000"),
        ({f"/{n}": b"" for n in range(30)}, "30 files and directories, at most 20"),
    ],
)
def test_wrong_files_are_refused_by_name(files: Any, message: str) -> None:
    tool = Tool.from_source("def f(): pass")
    with pytest.raises(InvalidFiles) as refused:
        run_tool(tool, files=files, limits=Limits(files_bytes=1000, file_count=20))
    assert message in str(refused.value)


def test_wrong_mounts_are_refused_by_name(tmp_path: Path) -> None:
    tool = Tool.from_source("def f(): pass")
    (tmp_path / "file").write_text("")
    here = HostDir(tmp_path)
    for mounts, files, message in [
        ({"/m": str(tmp_path)}, None, r"/m must be HostDir\(path"),
        ({"/m": HostDir(tmp_path / "none")}, None, "none' for /m is no directory"),
        ({"/m": HostDir(tmp_path / "file")}, None, "file' for /m is no directory"),
        ({"m": here}, None, "'m' must be absolute"),
        ({"/m": here, "/m/n": here}, None, "nothing else can be below /m"),
        ({"/m": here}, {"/m/x": b""}, "nothing else can be below /m"),
        ({"/m": here}, {"/m": b""}, "/m is in files and in mounts"),
    ]:
        with pytest.raises(InvalidFiles, match=message):
            run_tool(tool, mounts=mounts, files=files)  # type: ignore[arg-type]  # what is refused


async def test_the_sandbox_object_takes_files_too() -> None:
    tool = Tool.from_source("def f(): return open('/a').read()")
    calls = [
        WasmToolSandbox("f", {}, None, None, tool_object=tool, files={"/a": str(n).encode()}).run() for n in range(5)
    ]
    assert [result.func_return for result in await asyncio.gather(*calls)] == ["0", "1", "2", "3", "4"]
