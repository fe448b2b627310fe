"""Every kind of image in worker processes: the same as in this process, each worker with one image, none too many."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.packages import make_package
from wasm_sandbox import Image, Limits, Sandbox, Tool, UnsupportedIsolation, run_code, run_tool
from wasm_sandbox.engine import FLAVOUR_IMAGES
from wasm_sandbox.errors import ImageError, ImageNotFound
from wasm_sandbox.images import default_source, source_at
from wasm_sandbox.images.loading import BuiltSource
from wasm_sandbox.images.other_python import OtherPythonSource
from wasm_sandbox.images.store import ImageStore
from wasm_sandbox.options import Isolation
from wasm_sandbox.outcome import Ending, Outcome
from wasm_sandbox.request import ExecutionRequest
from wasm_sandbox.workers import pool
from wasm_sandbox.workers.pool import PROGRAM, ProcessPool

pytestmark = pytest.mark.long

GREETING = """
count = 0
def hello():
    global count
    count += 1
    return f"Hello, {count}!"
"""
HOSTILE_PRINT = """
import builtins, sys
builtins.print = lambda *words: sys.stdout.write("not yours\\n")
"""


@pytest.fixture(scope="module")
def built(images_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """An image with a package, a file, and code that runs before any script's."""
    package = make_package(tmp_path_factory.mktemp("packages") / "greeting", {"__init__.py": GREETING})
    return Image.build(packages=[package], files={"/data/x.txt": b"x"}, warm_up=HOSTILE_PRINT, name="in-workers")


@pytest.fixture(scope="module")
def other(images_directory: Path) -> Image:
    """Another image, of a file alone."""
    return Image.build(files={"/data/y.txt": b"y"})


@pytest.fixture(params=["built", "science"])
def image(request: pytest.FixtureRequest) -> Image:
    """One that was built, and that of a flavour; exported ones are in `test_exported`."""
    built: Image = request.getfixturevalue("built")
    return built if request.param == "built" else Image.named("science")


@pytest.fixture
def own_pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[ProcessPool]:
    """Pool of two workers at most, and of nobody else."""
    monkeypatch.setattr(pool, "MAX_PROCESSES", 2)
    fresh = ProcessPool()
    yield fresh
    fresh.close()


def own_code(image: Image) -> str:
    """Code that uses what the image has beside the default one."""
    if image.name == "science":
        return "import pandas as pd\npd.DataFrame({'a': [1, 2], 'b': [0.5, None]}).sum()"
    return "import greeting\nprint('mine')\n[greeting.hello(), open('/data/x.txt').read()]"


# -- the same results ------------------------------------------------------------------------------------------


PROGRAMS = {
    "an exception": "raise KeyError('x')",
    "files": "open('/out', 'w').write('text')\nimport os\nsorted(os.listdir('/'))",
    "fuel": "n = 0\nwhile True: n += 1",
    "memory": "x = []\nwhile True: x.append(bytearray(1 << 20))",
    "exit": "import os\nprint('before')\nos._exit(3)",
    "a result that is too large": "'x' * 200_000",
    "a host function": "[double(n) for n in range(3)]",
}


def in_both(image: Image, code: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """All of the results but the time they took."""

    def double(n: int) -> int:
        return 2 * n

    limits = Limits(deterministic=True, fuel=300_000_000, result_bytes=100_000, memory_bytes=128 << 20)
    isolations: tuple[Isolation, ...] = ("thread", "process")
    thread, process = (
        run_code(code, image=image, limits=limits, files={}, functions=[double], isolation=isolation)
        for isolation in isolations
    )
    left_out: Any = {"usage": {"wall_seconds", "host_seconds"}, "calls": {"__all__": {"seconds"}}}
    return thread.model_dump(exclude=left_out), process.model_dump(exclude=left_out)


def test_a_worker_gives_the_same_results_as_this_process(image: Image) -> None:
    for code in (own_code(image), *PROGRAMS.values()):
        thread, process = in_both(image, code)
        assert process == thread, code


def test_a_tool_a_stream_and_a_session_use_it_there(image: Image) -> None:
    names = "import pandas" if image.name == "science" else "import greeting"
    tool = Tool.from_source(f"def f(n: int) -> int:\n    {names}\n    return n + 1\n")
    assert run_tool(tool, {"n": 1}, image=image, isolation="process").func_return == 2
    box = Sandbox(image=image, isolation="process")
    events = list(box.stream_code(f"{names}\nimport sys\nsys.stdout.write('told')\n7"))
    assert [event.text for event in events if event.kind == "stdout"] == ["told"]
    with box.session() as session:
        session.run_code(f"{names}\nkept = [1]")
        point = session.checkpoint()
        assert session.run_code("import os\nkept.append(2)\nos.abort()").rolled_back
        session.run_code("kept.append(3)")
        blob = session.dump()
        session.rollback(point)
        assert session.get("kept") == [1]
    with Sandbox(image=image).load_session(blob) as loaded:
        assert loaded.get("kept") == [1, 3]


def test_a_tool_that_requires_packages_gets_their_image_there() -> None:
    tool = Tool.from_source("import numpy as np\ndef f():\n    return int(np.arange(4).sum())\n")
    tool = tool.model_copy(update={"pip_requirements": ["numpy"]})
    assert run_tool(tool, isolation="process").func_return == 6


# -- another CPython -------------------------------------------------------------------------------------------


COMMAND = """
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 16)
  (data (i32.const 8) "a command\\n")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 8))
    (i32.store (i32.const 4) (i32.const 10))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 20)))))
"""


@pytest.mark.parametrize("has_library", [False, True])
def test_a_module_that_is_a_command_runs_in_a_worker(has_library: bool, own_pool: ProcessPool, tmp_path: Path) -> None:
    import wasmtime

    module, library = tmp_path / "command.wasm", tmp_path / "library.zip"
    module.write_bytes(wasmtime.wat2wasm(COMMAND))
    with zipfile.ZipFile(library, "w") as archive:
        archive.writestr("os.py", "")
    image = Image.from_wasm(module, stdlib=library if has_library else None)
    for _ in range(2):
        outcome = run_on(own_pool, image, "pass")
        assert (outcome.ending, outcome.stdout) == (Ending.EXITED, b"a command\n")


def test_one_whose_library_is_a_directory_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "python.wasm").write_bytes(b"\0asm\x01\0\0\0")
    (tmp_path / "os.py").write_text("")
    image = Image.from_wasm(tmp_path / "python.wasm", stdlib=tmp_path)
    with pytest.raises(UnsupportedIsolation, match="give the library as a zip archive"):
        run_tool(Tool.from_source("def f():\n    return 1\n"), image=image, isolation="process")
    with pytest.raises(UnsupportedIsolation, match="give the library as a zip archive"):
        run_code("1", image=image, isolation="process")


# -- which worker has which image ------------------------------------------------------------------------------


def run_on(workers: ProcessPool, image: Image | None, script: str = "pass", **limits: Any) -> Outcome:
    source = image.source if image else default_source()
    outcome: Outcome = workers.start(ExecutionRequest(script, {}, Limits(**limits)), source=source)[0].result(60)
    return outcome


def test_a_worker_is_kept_for_its_image_and_the_oldest_one_ends_for_another(
    built: Image, other: Image, own_pool: ProcessPool
) -> None:
    def pids() -> list[int]:
        assert own_pool.running == 0
        return [worker.pid for worker in own_pool.idle_workers]

    run_on(own_pool, None)
    run_on(own_pool, built)
    default, of_built = pids()
    for image in (None, built, None):  # in turns: each has its own
        run_on(own_pool, image)
    assert pids() == [of_built, default]
    run_on(own_pool, other)
    assert pids()[0] == default
    assert len(own_pool.workers) == 2
    assert [worker.image_id for worker in own_pool.workers].count(other.id) == 1
    assert not _runs(of_built)
    assert run_on(own_pool, built, "import greeting").exception is None
    assert default not in pids()
    assert not _runs(default)


def test_there_are_never_more_workers_than_there_may_be(built: Image, other: Image, own_pool: ProcessPool) -> None:
    images = [None, built, other] * 4
    futures = [
        own_pool.start(
            ExecutionRequest("import time; time.sleep(0.05); print(7)", {}, Limits()),
            source=image.source if image else default_source(),
        )[0]
        for image in images
    ]
    most = 0
    while not all(future.done() for future in futures):
        most = max(most, len(own_pool.workers))
    assert {future.result().ending for future in futures} == {Ending.EXITED}
    assert most == 2


def test_a_worker_that_is_killed_is_replaced_by_one_of_its_image(built: Image, own_pool: ProcessPool) -> None:
    run_on(own_pool, None)
    future, _ = own_pool.start(ExecutionRequest("import time; time.sleep(50)", {}, Limits()), source=built.source)
    while not own_pool.running:
        pass
    (busy,) = {*own_pool.workers} - {*own_pool.idle_workers}
    busy.kill()
    assert future.result(20).ending is Ending.TRAPPED
    assert run_on(own_pool, built, "import greeting").exception is None
    assert run_on(own_pool, None, "pass").ending is Ending.EXITED
    assert len(own_pool.workers) == 2


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


# -- what a worker is told, and what it runs before it is restricted ---------------------------------------------


def test_an_address_gives_the_same_image_in_another_process(built: Image, tmp_path: Path) -> None:
    (tmp_path / "python.wasm").write_bytes(b"\0asm\x01\0\0\0")
    other = OtherPythonSource(tmp_path / "python.wasm", None)
    for source in (default_source(), *FLAVOUR_IMAGES.values(), built.source, other):
        assert source_at(source.address, source.id).address == source.address
        with pytest.raises(ImageError, match="has become another one"):
            source_at(source.address, "0" * 64)
    with pytest.raises(ImageError, match="no image has the address somewhere"):
        source_at(["somewhere"], "0" * 64)


def test_an_image_that_has_gone_is_said_to_be_so(built: Image, own_pool: ProcessPool, tmp_path: Path) -> None:
    assert isinstance(built.source, BuiltSource)
    gone = Image(BuiltSource(built.source.recipe, ImageStore(tmp_path / "images")))
    with pytest.raises(ImageNotFound, match="there is no image"):
        run_on(own_pool, gone)
    assert own_pool.workers == []


def test_nothing_of_an_image_runs_in_a_worker_before_it_is_restricted(built: Image, tmp_path: Path) -> None:
    log = tmp_path / "log"
    program = f"""
from wasm_sandbox.workers import worker
ended = []
def start(engine, *args, real=worker.GuestEngine.start):
    future = real(engine, *args)
    ended.append(future)
    return future
worker.GuestEngine.start = start
def restrict(real=worker.restrict):
    with open({str(log)!r}, "w") as file:
        for future in ended:
            outcome = future.result()
            print(outcome.ending.name, outcome.fuel, outcome.stdout, outcome.exception, file=file)
    return real()
worker.restrict = restrict
{PROGRAM}
"""
    workers = ProcessPool(program)
    try:
        assert run_on(workers, built, "print('mine')").stdout == b"not yours\n"  # code of the image, later
    finally:
        workers.close()
    lines = log.read_text().splitlines()
    assert lines
    assert set(lines) == {"OUT_OF_FUEL 1 b'' None"}
