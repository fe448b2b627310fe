"""`os.devnull` cannot be opened, so whatever silences a library by it fails.

The kind: all that programs do with it, by each way to open a file, beside what native Python gives on Linux.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest

from wasm_sandbox import Sandbox, run_code

USES = {
    "reading": "opened(os.devnull).read()",
    "reading bytes": "opened(os.devnull, 'rb', buffering=0).read(100)",
    "writing": "opened(os.devnull, 'w').write('x' * 100_000)",
    "writing much": "opened(os.devnull, 'wb', buffering=0).write(bytes(3 << 20))",
    "appending": "opened(os.devnull, 'ab').write(b'x')",
    "both": "(lambda f: (f.write(b'x'), f.read()))(opened(os.devnull, 'r+b', buffering=0))",
    "by number": "(lambda fd: (os.write(fd, b'ab'), os.read(fd, 9), os.close(fd)))(os.open(os.devnull, os.O_RDWR))",
    "another way to write its path": "opened('/dev//./null').read()",
    "making it": "opened(os.devnull, 'x')",
    "as a directory": "opened('/dev/null/')",
    "what it is": "stat.S_ISCHR(os.stat(os.devnull).st_mode), os.stat(os.devnull).st_size",
    "what an open one is": "stat.S_ISCHR(os.fstat(opened(os.devnull).fileno()).st_mode)",
    "a terminal": "opened(os.devnull).isatty()",
    "whether it is there": "os.path.exists(os.devnull), os.path.isfile(os.devnull), os.path.isdir(os.devnull)",
    "a path": "pathlib.Path(os.devnull).read_bytes(), pathlib.Path(os.devnull).write_text('abc')",
    "silence": "silence()",
    "a log": "log()",
    "a copy": "shutil.copyfileobj(io.BytesIO(b'abc'), opened(os.devnull, 'wb'))",
}
PREPARED = """
import contextlib, io, logging, os, pathlib, shutil, stat
def silence():
    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
        print("not seen")
    return null.closed
def log():
    handler = logging.FileHandler(os.devnull)
    handler.emit(logging.makeLogRecord({"msg": "not seen"}))
    handler.close()
def attempt(use):
    with contextlib.ExitStack() as stack:
        def opened(*args, **options):
            return stack.enter_context(open(*args, **options))
        try:
            return eval(use, globals(), {"opened": opened})
        except OSError as error:
            return type(error).__name__
"""


@pytest.mark.skipif(sys.platform == "win32", reason="it has another name there")
@pytest.mark.parametrize("use", USES)
def test_it_is_what_it_is_for_native_python(use: str) -> None:
    namespace: dict[str, Any] = {}
    exec(PREPARED, namespace)
    result = run_code(f"{PREPARED}\nattempt({USES[use]!r})")
    assert (result.error, result.value) == (None, namespace["attempt"](USES[use]))
    assert not result.stdout


def test_it_takes_no_room_and_is_no_file_of_the_run() -> None:
    code = "import os\nopen(os.devnull, 'wb').write(bytes(1 << 20))\nos.listdir('/'), os.path.exists('/dev')"
    result = run_code(code, files={}, limits={"files_bytes": 10, "file_count": 1})
    assert (result.error, result.value, result.files) == (None, (["tmp"], False), {})


def test_a_file_of_that_name_that_was_given_or_made_is_that_file() -> None:
    given = run_code("open('/dev/null').read()", files={"/dev/null": b"given"})
    assert (given.error, given.value) == (None, "given")
    made = run_code("import os; os.mkdir('/dev'); os.mkdir('/dev/null'); os.listdir('/dev/null')")
    assert (made.error, made.value) == (None, [])


def test_it_stays_open_in_a_session_and_in_another_that_is_loaded() -> None:
    box = Sandbox()
    with box.session() as session:
        session.run_code("import os\nnull = open(os.devnull, 'r+b', buffering=0)\nkept = open('/tmp/kept', 'w+')")
        with box.load_session(session.dump()) as loaded:
            for one in (session, loaded, session.fork()):
                result = one.run_code("null.write(b'abc'), null.read(), kept.write('abc'), kept.seek(0), kept.read()")
                assert (result.error, result.value) == (None, (3, b"", 3, 0, "abc"))


def test_its_descriptors_are_counted_as_others_are() -> None:
    result = run_code(
        "import os\nfor n in range(1000): os.open(os.devnull, os.O_RDONLY)", limits={"timeout_seconds": 20}
    )
    assert "No file descriptors available" in str(result.error)
