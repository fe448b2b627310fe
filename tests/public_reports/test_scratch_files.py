"""Report: tools write scratch files, as agents make them, and fail for want of a file system.

The kind: whatever a program keeps in files for itself, in ``/tmp``, in the current directory and below, works by
default, in every place where a guest runs. It is the run's own, bounded by its limits, empty at its start and gone at
its end; a run that touches no file pays nothing for it.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasm_sandbox import (
    ErrorKind,
    HostDir,
    Limits,
    Sandbox,
    SnapshotError,
    Tool,
    ToolExecutionResult,
    run_code,
    run_tool,
)
from wasm_sandbox.options import Isolation

WAYS = {
    "a file in /tmp": """
        open("/tmp/x", "w").write("text")
        return open("/tmp/x").read()
    """,
    "a file below the current directory": """
        import os
        os.makedirs("out")
        open("out/a.md", "w").write("text")
        return open(os.path.join(os.getcwd(), "out", "a.md")).read()
    """,
    "a file of tempfile": """
        import tempfile
        with tempfile.NamedTemporaryFile("w+") as file:
            file.write("text")
            file.flush()
            return open(file.name).read()
    """,
    "a directory of tempfile": """
        import pathlib, tempfile
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory, "x")
            path.write_text("text")
            return path.read_text()
    """,
    "a spooled file": """
        import tempfile
        with tempfile.SpooledTemporaryFile(max_size=2, mode="w+") as file:
            file.write("text")
            file.seek(0)
            return file.read()
    """,
    "a database": """
        import contextlib, sqlite3
        with contextlib.closing(sqlite3.connect("app.db")) as base:
            base.execute("create table notes (text)")
            base.execute("insert into notes values ('text')")
            base.commit()
        with contextlib.closing(sqlite3.connect("app.db")) as base:
            return base.execute("select text from notes").fetchone()[0]
    """,
    "a log file": """
        import logging
        logging.basicConfig(filename="app.log", format="%(message)s", level=logging.INFO, force=True)
        logging.info("text")
        logging.shutdown()
        return open("app.log").read().rstrip()
    """,
    "an archive": """
        import shutil, zipfile
        with zipfile.ZipFile("/tmp/x.zip", "w") as archive:
            archive.writestr("inner/x", "text")
        shutil.unpack_archive("/tmp/x.zip", "unpacked")
        return open("unpacked/inner/x").read()
    """,
    "a module": """
        import sys
        open("made_here.py", "w").write("text = 'text'")
        sys.path.insert(0, "")
        import made_here
        return made_here.text
    """,
    "a shelf": """
        import shelve
        with shelve.open("/tmp/shelf") as shelf:
            shelf["key"] = "text"
        with shelve.open("/tmp/shelf") as shelf:
            return shelf["key"]
    """,
}


def call(body: str, **options: Any) -> ToolExecutionResult:
    """Result of a tool with a body."""
    tool = Tool(name="f", source_code=f"def f():\n{textwrap.indent(textwrap.dedent(body).strip(), '    ')}\n")
    return run_tool(tool, **options)


def value(body: str, **options: Any) -> Any:
    """Value of a tool that succeeds."""
    result = call(body, **options)
    assert result.error is None, result.error
    return result.func_return


@pytest.mark.parametrize("isolation", ["thread", "process"])
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("body", WAYS.values(), ids=WAYS.keys())
def test_what_a_tool_keeps_in_files_works_by_default(body: str, isolation: Isolation, deterministic: bool) -> None:
    result = call(body, isolation=isolation, limits=Limits(deterministic=deterministic))
    assert (result.error, result.func_return, result.files) == (None, "text", None)


@pytest.mark.parametrize("body", WAYS.values(), ids=WAYS.keys())
def test_it_works_beside_given_files_and_mounts_and_in_code(body: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("of the host")
    assert value(body, files={"/in": b""}) == "text"
    result = call(body, mounts={"/data": HostDir(tmp_path)})
    assert (result.error, result.func_return) == (None, "text")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    code = f"def f():\n{textwrap.indent(textwrap.dedent(body).strip(), '    ')}\nf()"
    found = run_code(code)
    assert (found.error, found.value, found.files) == (None, "text", None)


@pytest.mark.parametrize("body", WAYS.values(), ids=WAYS.keys())
def test_with_no_file_allowed_there_is_none_at_all(body: str) -> None:
    result = call(body, limits=Limits(file_count=0))
    assert result.error is not None
    assert result.error.kind is ErrorKind.TOOL_EXCEPTION


def test_it_shows_no_path_where_no_file_is_allowed() -> None:
    assert value("import os\nreturn os.path.exists('/'), os.path.exists('.')", limits=Limits(file_count=0)) == (
        False,
        False,
    )


def test_it_is_empty_at_first_and_no_other_run_sees_it() -> None:
    body = """
        import os
        found = [(where, sorted(below), files) for where, below, files in os.walk("/")]
        open("x", "w").write("left")
        open("/tmp/y", "w").write("left")
        return found
    """
    for isolation in ("thread", "process", "thread", "process"):
        assert value(body, isolation=isolation) == [("/", ["tmp"], []), ("/tmp", [], [])]


FULL = {
    "bytes": "with open('x', 'wb', 0) as f:\n    while f.write(bytes(1000)): pass",
    "bytes of a removed file": "import os\nf = open('x', 'wb', 0)\nos.unlink('x')\nwhile f.write(bytes(1000)): pass",
    "bytes by a cut": "open('x', 'wb').truncate(10**12)",
    "files": "for n in range(10**6): open(f'{n}', 'w')",
    "directories": "import os\nfor n in range(10**6): os.mkdir(f'{n}')",
    "depth": "import os\npath = ''\nwhile True:\n    path += 'd/'\n    os.mkdir(path)",
    "a name": "open('n' * 256, 'w')",
    "descriptors": "kept = []\nwhile True: kept.append(open('x', 'w'))",
}


@pytest.mark.parametrize("body", FULL.values(), ids=FULL.keys())
@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_what_does_not_fit_is_an_ordinary_error(body: str, isolation: Isolation) -> None:
    result = call(body, limits=Limits(files_bytes=1_000_000, file_count=600), isolation=isolation)
    assert result.error is not None
    assert (result.error.kind, result.error.exception_name) == (ErrorKind.TOOL_EXCEPTION, "OSError")
    assert any(
        words in result.error.message
        for words in ("No space left", "Filename too long", "Too many open files", "No file descriptors")
    ), result.error.message


@settings(max_examples=40)
@given(st.integers(1, 30), st.integers(0, 5_000))
def test_the_bounds_are_those_of_the_limits_to_the_file_and_the_byte(count: int, size: int) -> None:
    body = f"""
        made = 0
        try:
            while True:
                open(f"{{made}}", "w").close()
                made += 1
        except OSError:
            pass
        with open("0", "wb", 0) if made else open("/dev/none") as file:
            file.write(bytes({size}))
            try:
                file.write(b"x")
            except OSError as error:
                return made, error.errno
    """
    limits = Limits(file_count=count + 1, files_bytes=size)  # /tmp is one of them
    assert value(body, limits=limits) == (count, 51)


def test_a_run_that_touches_no_file_makes_no_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    from wasm_sandbox.engine.world.file_system import FileSystem

    made = []
    make = FileSystem.__init__

    def noted(system: FileSystem, *arguments: Any) -> None:
        made.append(system)
        make(system, *arguments)

    monkeypatch.setattr(FileSystem, "__init__", noted)
    for body in ("pass", "import decimal, json\nprint(json.dumps([1]))\nreturn decimal.Decimal(1)"):
        call(body)
    assert not made
    call("import os\nreturn os.listdir('/')")
    assert len(made) == 1


# -- sessions ----------------------------------------------------------------------------------------


def test_a_session_keeps_its_files_and_takes_them_back() -> None:
    with Sandbox().session() as session:
        session.run_code("import os, sqlite3\nopen('/tmp/x', 'w').write('one')\nkept = open('log', 'w')")
        assert session.run_code("open('/tmp/x').read()").value == "one"
        point = session.checkpoint()
        twin = session.fork()
        session.run_code("open('/tmp/x', 'w').write('two')\nkept.write('more'); kept.flush()")
        assert session.run_code("open('/tmp/x').read(), open('log').read()").value == ("two", "more")
        assert twin.run_code("open('/tmp/x').read(), open('log').read()").value == ("one", "")
        blob = session.dump()
        session.rollback(point)
        assert session.run_code("open('/tmp/x').read(), open('log').read()").value == ("one", "")
        ended = session.run_code(
            "open('/tmp/x', 'w').write('lost')\nwhile True: pass", limits=Limits(timeout_seconds=0.3)
        )
        assert ended.rolled_back
        assert session.run_code("open('/tmp/x').read()").value == "one"
        assert session.run_code("1").files is None
        with Sandbox().load_session(blob) as loaded:
            assert loaded.run_code("kept.write('!'); kept.flush(); open('log').read()").value == "more!"
        with (
            pytest.raises(SnapshotError, match="limits"),
            Sandbox(limits=Limits(file_count=0)).load_session(blob) as none,
        ):
            none.run_code("1")
        twin.close()


def test_sessions_do_not_see_each_others_files() -> None:
    box = Sandbox()
    with box.session() as one, box.session() as other:
        one.run_code("open('/tmp/mine', 'w').write('x')")
        assert other.run_code("import os; os.listdir('/tmp')").value == []


def test_the_bound_holds_over_all_calls_of_a_session() -> None:
    with Sandbox(limits=Limits(files_bytes=10_000)).session() as session:
        session.run_code("f = open('x', 'wb', 0)\nf.write(bytes(9_000))")
        error = session.run_code("f.write(bytes(2_000))").error
        assert error is not None
        assert "No space left" in error.message
