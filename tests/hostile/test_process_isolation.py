"""``isolation="process"``: the same results from worker processes, which can be lost and can do little harm."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tests.hostile import deterministic_tools
from tests.support.processes import python
from tests.support.usage import counted
from wasm_sandbox import (
    ErrorKind,
    HostDir,
    Limits,
    Tool,
    ToolExecutionResult,
    WasmToolSandbox,
    run_tool,
)
from wasm_sandbox.errors import CacheError, HostError, UnsupportedIsolation
from wasm_sandbox.outcome import Ending
from wasm_sandbox.request import ExecutionRequest
from wasm_sandbox.workers import pool
from wasm_sandbox.workers.pool import MAX_PROCESSES, PROGRAM, ProcessPool, WorkerProcess, process_pool

pytestmark = pytest.mark.long

PROC = Path("/proc")
needs_proc = pytest.mark.skipif(not PROC.joinpath("self/environ").exists(), reason="no /proc here")
needs_posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


def tool(body: str, parameters: str = "") -> Tool:
    return Tool(name="f", source_code=f"def f({parameters}):\n{textwrap.indent(textwrap.dedent(body), '    ')}\n")


def sandbox(body: str, **limits: Any) -> WasmToolSandbox:
    limits = {"timeout_seconds": 60.0, **limits}
    return WasmToolSandbox(
        "f", {}, None, None, tool_object=tool(body), limits=Limits(**limits), isolation="process"
    )  # fmt: skip


def kind_of(result: ToolExecutionResult) -> ErrorKind | None:
    return result.error.kind if result.error else None


def busy_worker() -> WorkerProcess:
    """The one worker that runs a guest now."""
    worker: WorkerProcess = until(lambda: next(iter({*process_pool().workers} - {*process_pool().idle_workers}), None))
    return worker


def until(look: Callable[[], Any], seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.002)
    pytest.fail("it did not come about")


# -- the same results ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", deterministic_tools.BODIES)
def test_a_tool_gives_the_same_result_as_in_this_process(name: str) -> None:
    assert deterministic_tools.run(name, "process") == deterministic_tools.run(name)


@pytest.mark.parametrize(
    ("body", "limits", "kind"),
    [
        ("while True: pass", {"timeout_seconds": 0.3}, ErrorKind.TIMEOUT),
        ("import time; print('before'); time.sleep(600)", {"timeout_seconds": 0.5}, ErrorKind.TIMEOUT),
        ("while True: pass", {"fuel": 100_000_000}, ErrorKind.OUT_OF_FUEL),
        ("return len(bytearray(1 << 30))", {}, ErrorKind.OUT_OF_MEMORY),
        ("return 'x' * 3_000_000", {"result_bytes": 1_000_000}, ErrorKind.CORRUPTED_RESULT),
        ("class A: pass\nreturn A()", {}, ErrorKind.FORBIDDEN_RESULT),
        ("import os; os._exit(3)", {}, ErrorKind.NO_RESULT),
    ],
)
def test_limits_hold_and_a_failed_run_costs_no_worker(body: str, limits: dict[str, Any], kind: ErrorKind) -> None:
    sandbox("return 1").run_sync()
    before = {worker.pid for worker in process_pool().workers}
    result = sandbox(body, **limits).run_sync()
    assert kind_of(result) is kind
    assert result.usage is not None
    assert counted(result.usage.fuel) > 0
    if "before" in body:
        assert result.stdout == ["before\n"]
    assert {worker.pid for worker in process_pool().workers} == before


def test_large_values_and_floods_pass() -> None:
    result = sandbox("print('y' * 5_000_000)\nreturn 'x' * 15_000_000").run_sync()
    assert result.func_return == "x" * 15_000_000
    assert result.stdout is not None
    assert len(result.stdout[0]) == 1 << 20
    assert result.usage is not None
    assert result.usage.stdout_dropped_bytes == 5_000_001 - (1 << 20)


def test_arguments_variables_and_agent_state_go_in_and_come_back() -> None:
    class State(BaseModel):
        id: str
        memo: str

    body = "import os\nagent_state.memo = note\nreturn [note, dict(os.environ)]"
    echo = Tool(
        name="f",
        source_code=tool(body, "note, agent_state").source_code,
        json_schema={"parameters": {"type": "object", "properties": {"note": {"type": "string"}}}},
    )
    result = run_tool(
        echo, {"note": "ä€😀"}, sandbox_env_vars={"A": "1"}, additional_env_vars={"B": "ü"},
        agent_state=State(id="s", memo=""), isolation="process",
    )  # fmt: skip
    assert result.func_return == ["ä€😀", {"A": "1", "B": "ü"}]
    assert result.agent_state == State(id="s", memo="ä€😀")


def test_files_go_in_and_come_back() -> None:
    body = "import os\nos.remove('/gone')\nopen('/out/ä', 'wb').write(open('/in', 'rb').read() * 2)\nreturn 1"
    given = {"/in": bytes(range(256)) * 4096, "/gone": b"", "/out/.keep": b""}
    result = run_tool(tool(body), files=given, isolation="process")
    assert (result.func_return, result.files) == (1, {"/out/ä": given["/in"] * 2})
    assert run_tool(tool("return 1"), files={}, isolation="process").files == {}
    assert run_tool(tool("return 1"), isolation="process").files is None


@pytest.mark.parametrize(("files", "limits"), [({"/in": b"123"}, {"files_bytes": 4}), ({}, {"file_count": 3})])
def test_the_limits_of_files_hold_there_too(files: dict[str, bytes], limits: dict[str, Any]) -> None:
    body = "for name in 'abcde':\n    with open('/' + name, 'w') as file: file.write('x')"
    result = run_tool(tool(body), files=files, limits=Limits(**limits), isolation="process")
    assert result.error is not None
    assert "No space left on device" in result.error.message


def test_what_a_worker_cannot_do_is_refused_by_name() -> None:
    message = 'isolation="process" has no mounts.*give files instead'
    with pytest.raises(UnsupportedIsolation, match=message) as refusal:
        run_tool(tool("return 1"), isolation="process", mounts={"/data": HostDir(".")})
    assert isinstance(refusal.value, ValueError)


def test_a_script_runs_there_too_and_its_traceback_has_its_lines() -> None:
    from wasm_sandbox.sandbox.plain_script import run_script

    output = run_script(
        "print(1)\nraise KeyError('x')", name="mine.py", environ={}, limits=Limits(), isolation="process"
    )
    assert output.stdout == b"1\n"
    assert output.result.error is not None
    assert 'File "mine.py", line 2' in (output.result.error.traceback or "")


async def test_an_async_tool_is_awaited_there() -> None:
    source = "import asyncio\nasync def f(n: int) -> int:\n    await asyncio.sleep(0.01)\n    return n + 1\n"
    call = WasmToolSandbox("f", {"n": 1}, None, None, tool_object=Tool.from_source(source), isolation="process")
    assert (await call.run()).func_return == 2


def test_another_isolation_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'container'"):
        WasmToolSandbox("f", {}, None, None, tool_object=tool("return 1"), isolation="container")  # type: ignore[arg-type]


def test_the_default_loads_nothing_of_it() -> None:
    script = (
        "import sys; from wasm_sandbox import Tool, run_tool\n"
        "run_tool(Tool.from_source('def f():\\n    return 1'))\n"
        "print([m for m in sys.modules if m.startswith(('wasm_sandbox.processes', 'seccomp', 'pyseccomp'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_host_needs_no_wasmtime_of_its_own() -> None:
    script = (
        "import sys; from wasm_sandbox import Tool, run_tool\n"
        "print(run_tool(Tool.from_source('def f() -> int:\\n    return 1'), isolation='process').func_return)\n"
        "print('wasmtime' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("1\nFalse\n", "")


# -- the life of a worker --------------------------------------------------------------------------------------


@needs_posix
@pytest.mark.parametrize("name", ["SIGKILL", "SIGABRT", "SIGTERM"])
async def test_a_worker_that_dies_ends_its_own_run_and_no_other(name: str) -> None:
    await sandbox("return 1").run()
    doomed = asyncio.create_task(sandbox("import time; time.sleep(50)").run())
    worker = await asyncio.to_thread(busy_worker)
    other = asyncio.create_task(sandbox("import time; time.sleep(1); return 2").run())
    await asyncio.sleep(0.2)
    os.kill(worker.pid, getattr(signal, name))
    result = await doomed
    assert kind_of(result) is ErrorKind.GUEST_TRAP
    assert result.error is not None
    assert result.error.message.startswith(f"the worker process died ({name}): run it again; ")
    assert (await other).func_return == 2
    assert (await sandbox("return 3").run()).func_return == 3
    assert worker not in process_pool().workers


@needs_posix
def test_a_worker_that_died_idle_is_not_asked() -> None:
    assert sandbox("return 1").run_sync().func_return == 1
    workers = process_pool().workers
    for worker in workers:
        os.kill(worker.pid, signal.SIGKILL)
    until(lambda: not any(worker.alive for worker in workers))
    assert sandbox("return 2").run_sync().func_return == 2


@needs_posix
def test_a_worker_that_says_nothing_is_ended_some_time_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "OVERDUE_SECONDS", 0.5)
    sandbox("return 1").run_sync()
    future, _ = process_pool().start(
        ExecutionRequest("import time; time.sleep(50)", {}, Limits(timeout_seconds=0.5)), None
    )
    os.kill(busy_worker().pid, signal.SIGSTOP)
    assert future.result(timeout=20).ending is Ending.DEADLINE


@pytest.mark.parametrize("body", ["while True: pass", "import time; time.sleep(600)"])
async def test_cancelling_the_task_ends_the_guest_at_once(body: str) -> None:
    await sandbox("return 1").run()
    task = asyncio.create_task(sandbox(body).run())
    worker = await asyncio.to_thread(busy_worker)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(until, lambda: worker not in process_pool().workers)
    assert (await sandbox("return 2").run()).func_return == 2


async def test_a_run_that_waits_for_a_worker_can_be_cancelled() -> None:
    crowd = [asyncio.create_task(sandbox("import time; time.sleep(2)").run()) for _ in range(MAX_PROCESSES)]
    await asyncio.to_thread(until, lambda: process_pool().running == MAX_PROCESSES)
    late = asyncio.create_task(sandbox("return 1").run())
    patient = asyncio.create_task(sandbox("return 2").run())
    await asyncio.sleep(0.1)
    late.cancel()
    with pytest.raises(asyncio.CancelledError):
        await late
    assert [kind_of(result) for result in await asyncio.gather(*crowd)] == [None] * MAX_PROCESSES
    assert (await patient).func_return == 2
    assert len(process_pool().workers) <= MAX_PROCESSES


async def test_every_run_of_a_crowd_gets_its_own_result() -> None:
    async def one(n: int) -> None:
        kind = n % 4
        body = [f"return {n}", f"raise ValueError({n})", f"print({n})\nimport os; os._exit(1)", "while True: pass"][
            kind
        ]
        task = asyncio.create_task(sandbox(body, timeout_seconds=0.3 if kind == 3 else 60).run())
        if n % 10 == 7:
            await asyncio.sleep(0.01 * (n % 7))
            task.cancel()
        try:
            result = await task
        except asyncio.CancelledError:
            assert n % 10 == 7
            return
        expected = [None, ErrorKind.TOOL_EXCEPTION, ErrorKind.NO_RESULT, ErrorKind.TIMEOUT][kind]
        assert kind_of(result) is expected, (n, result)
        if kind == 0:
            assert result.func_return == n
        if kind == 1:
            assert result.error is not None
            assert result.error.message == str(n)
        if kind == 2:
            assert result.stdout == [f"{n}\n"]

    await asyncio.gather(*map(one, range(60)))
    assert not process_pool().running


def test_threads_share_the_pool() -> None:
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda n=n: results.append(sandbox(f"return {n}").run_sync().func_return))
        for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(20))


# -- the end of the host ---------------------------------------------------------------------------------------

SETUP = """
import os, signal, sys, threading, time
from wasm_sandbox import Limits, Tool, run_tool
from wasm_sandbox.workers.pool import process_pool
one = Tool.from_source("def one() -> int:\\n    return 1\\n")
forever = Tool.from_source("def forever():\\n    while True: pass\\n")
def busy():
    while not process_pool().running: time.sleep(0.01)
def tell():
    print(*[worker.pid for worker in process_pool().workers], flush=True)
"""


@pytest.fixture
def no_worker_left() -> Callable[[str], None]:
    """Checks that these processes are gone."""

    def check(pids: str) -> None:
        numbers = [int(pid) for pid in pids.split()]
        assert numbers
        until(lambda: not [pid for pid in numbers if _runs(pid)])

    return check


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return not (PROC.exists() and ") Z " in PROC.joinpath(str(pid), "stat").read_text())  # a zombie has ended
    except OSError:
        return False


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start_host() -> Iterator[Start]:
    """``start_host(body, **options)``: a process that executes these statements; killed with the test at the latest."""
    with ExitStack() as hosts:

        def start(body: str, **options: Any) -> subprocess.Popen[str]:
            return hosts.enter_context(python("-c", SETUP + textwrap.dedent(body), **options))

        yield start


@needs_posix
def test_the_workers_end_with_the_interpreter(start_host: Start, no_worker_left: Callable[[str], None]) -> None:
    host = start_host(
        """
        run_tool(one, isolation="process")
        threading.Thread(target=run_tool, args=(forever,), kwargs={"isolation": "process"}, daemon=True).start()
        busy(); tell()
        """
    )
    out, err = host.communicate(timeout=60)
    assert (host.returncode, err) == (0, "")
    no_worker_left(out)


@needs_posix
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_the_workers_end_when_the_host_is_killed(
    name: str, start_host: Start, no_worker_left: Callable[[str], None]
) -> None:
    host = start_host(
        """
        run_tool(one, isolation="process")
        threading.Thread(target=run_tool, args=(forever,), kwargs={"isolation": "process"}, daemon=True).start()
        busy(); tell(); time.sleep(60)
        """
    )
    assert host.stdout is not None
    pids = host.stdout.readline()
    host.send_signal(getattr(signal, name))
    host.communicate(timeout=60)
    no_worker_left(pids)


@needs_posix
def test_ctrl_c_ends_the_run_and_goes_on_to_the_caller(
    start_host: Start, no_worker_left: Callable[[str], None]
) -> None:
    host = start_host(
        """
        run_tool(one, isolation="process")
        threading.Thread(target=lambda: (busy(), tell()), daemon=True).start()
        try:
            run_tool(forever, isolation="process")
        except KeyboardInterrupt:
            print("interrupted", run_tool(one, isolation="process").func_return)
        """,
        start_new_session=True,
    )
    assert host.stdout is not None
    pids = host.stdout.readline()
    os.killpg(host.pid, signal.SIGINT)  # as a terminal does
    out, err = host.communicate(timeout=60)
    assert (out, err) == ("interrupted 1\n", "")
    no_worker_left(pids)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_gets_a_pool_of_its_own(start_host: Start, no_worker_left: Callable[[str], None]) -> None:
    host = start_host(
        """
        run_tool(one, isolation="process")
        threading.Thread(target=run_tool, args=(forever,), kwargs={"isolation": "process"}, daemon=True).start()
        busy()
        before = {worker.pid for worker in process_pool().workers}
        child = os.fork()
        if not child:
            assert run_tool(one, isolation="process").func_return == 1
            assert not before & {worker.pid for worker in process_pool().workers}
            tell()
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert before == {worker.pid for worker in process_pool().workers if worker.alive}
        tell()
        """
    )
    out, err = host.communicate(timeout=100)
    assert host.returncode == 0, err
    assert len(out.splitlines()) == 2
    no_worker_left(out)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_does_not_keep_the_workers_of_its_parent_alive(
    start_host: Start, no_worker_left: Callable[[str], None]
) -> None:
    host = start_host(
        """
        run_tool(one, isolation="process")
        if not (child := os.fork()):
            time.sleep(60)
            os._exit(0)
        print(child); tell(); time.sleep(60)
        """
    )
    assert host.stdout is not None
    child, workers = int(host.stdout.readline()), host.stdout.readline()
    host.kill()
    try:
        no_worker_left(workers)
        assert _runs(child)
    finally:
        os.kill(child, signal.SIGKILL)
    host.communicate(timeout=60)


def test_a_closed_pool_refuses_work_in_words() -> None:
    closed = ProcessPool()
    closed.close()
    with pytest.raises(HostError, match="interpreter is exiting"):
        closed.start(ExecutionRequest("pass", {}, Limits()))


def test_a_loop_closed_in_the_middle_of_a_run_stops_the_guest() -> None:
    sandbox("return 1").run_sync()
    loop = asyncio.new_event_loop()
    task = loop.create_task(sandbox("while True: pass").run())
    loop.call_later(0.5, loop.stop)
    loop.run_forever()
    worker = busy_worker()
    loop.close()
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # the warning is asyncio's own, and our fault
    until(lambda: worker not in process_pool().workers)


# -- what a worker may -----------------------------------------------------------------------------------------


@needs_proc
def test_a_worker_has_nothing_of_the_hosts_environment_nor_its_descriptors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOST_SECRET", "s3cret")
    fresh = ProcessPool()
    held = os.open(tmp_path / "a file of the host", os.O_RDWR | os.O_CREAT)
    os.set_inheritable(held, True)
    try:
        future, _ = fresh.start(ExecutionRequest("import os; print(dict(os.environ))", {}, Limits()))
        assert future.result(timeout=60).stdout == b"{}\n"
        (worker,) = fresh.workers
        environ = PROC.joinpath(str(worker.pid), "environ").read_bytes().split(b"\0")
        assert {entry.partition(b"=")[0] for entry in environ if entry} <= {
            b"WASM_SANDBOX_CACHE_DIR",
            b"WASM_SANDBOX_ENGINE",
            b"LD_LIBRARY_PATH",
        }
        targets = [os.readlink(path) for path in PROC.joinpath(str(worker.pid), "fd").iterdir()]
        allowed = ("/dev/null", "pipe:", ".cwasm", "memfd:", f"/proc/{worker.pid}/pagemap")  # its own, of its pages
        assert [target for target in targets if not any(name in target for name in allowed)] == []
        assert sum("pipe:" in target for target in targets) == 2
    finally:
        os.close(held)
        fresh.close()


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")
def test_a_restricted_process_can_compute_and_start_threads_but_touch_nothing(tmp_path: Path) -> None:
    """What the filter leaves to whoever has taken a worker over, tried from Python in a process that has it."""
    pytest.importorskip("pyseccomp")
    (tmp_path / "file").write_text("x")
    attempts = {
        "read a file": f"open({str(tmp_path / 'file')!r})",
        "write a file": f"open({str(tmp_path / 'new')!r}, 'w')",
        "list": "os.listdir('/')",
        "look at a path": "os.stat('/etc/passwd')",
        "remove": f"os.unlink({str(tmp_path / 'file')!r})",
        "rename": f"os.rename({str(tmp_path / 'file')!r}, {str(tmp_path / 'g')!r})",
        "make a directory": f"os.mkdir({str(tmp_path / 'd')!r})",
        "change mode": f"os.chmod({str(tmp_path / 'file')!r}, 0)",
        "socket": "socket.socket()",
        "unix socket": "socket.socket(socket.AF_UNIX)",
        "socket pair": "socket.socketpair()",
        "fork": "os.fork()",
        "exec": "os.execv('/bin/true', ['true'])",
        "spawn": "subprocess.Popen(['/bin/true'])",
        "signal another": "os.kill(os.getppid(), 0)",
        "change user": "os.setuid(1)",
        "look at another's limits": "resource.prlimit(os.getppid(), resource.RLIMIT_CORE)",
        "namespaces": "libc('unshare', 0x10000000)",
        "ptrace": "libc('ptrace', 16, os.getppid(), 0, 0)",
        "mount": "libc('mount', None, b'/mnt', b'tmpfs', 0, None)",
        "read another's memory": "libc('process_vm_readv', os.getppid(), None, 0, None, 0, 0)",
    }
    script = textwrap.dedent(
        f"""
        import ctypes, json, os, resource, socket, subprocess, sys, threading, time
        from wasm_sandbox.workers.restriction import restrict
        dll = ctypes.CDLL(None, use_errno=True)
        def libc(name, *arguments):
            ctypes.set_errno(0)
            if getattr(dll, name)(*arguments) == -1:
                raise OSError(ctypes.get_errno(), name)
        taken = restrict()
        seen = {{"done": taken.done, "lacking": taken.lacking}}
        for name, attempt in {attempts!r}.items():
            try:
                exec(attempt)
                seen[name] = "done"
            except OSError as error:
                seen[name] = error.errno
        time.sleep(0.01)
        thread = threading.Thread(target=seen.update, args=({{"thread": len(bytes(10_000_000))}},))
        if resource.getrlimit(resource.RLIMIT_NPROC)[1] or os.geteuid() == 0:
            thread.start(); thread.join()
        print(json.dumps(seen))
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    if "the kernel refuses" in str(seen["lacking"]):  # as in some containers
        pytest.skip(str(seen["lacking"]))
    assert seen["done"] == ["resource limits", "seccomp filter"]
    assert {name: seen[name] for name in attempts} == dict.fromkeys(attempts, 1)  # EPERM
    assert seen.get("thread", 10_000_000) == 10_000_000


@needs_proc
def test_the_workers_are_restricted_for_good() -> None:
    sandbox("return 1").run_sync()
    worker = process_pool().workers[0]
    assert "resource limits" in worker.restrictions
    limits = PROC.joinpath(str(worker.pid), "limits").read_text()
    assert "Max core file size        0                    0" in limits
    assert "Max file size             0                    0" in limits
    if (score := PROC.joinpath(str(worker.pid), "oom_score_adj")).exists():
        assert score.read_text() == "1000\n"  # where memory runs out it goes before its host
    status = PROC.joinpath(str(worker.pid), "status").read_text()
    if "seccomp filter" in worker.restrictions:
        assert "Seccomp:\t2" in status
        assert "NoNewPrivs:\t1" in status


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")
def test_without_a_filter_workers_run_and_it_is_said_once_how_to_have_one(caplog: pytest.LogCaptureFixture) -> None:
    hide = "import sys; sys.modules.update(seccomp=None, pyseccomp=None); "
    fresh = ProcessPool(hide + PROGRAM)
    try:
        for _ in range(2):
            outcome = fresh.start(ExecutionRequest("print(1)", {}, Limits()))[0].result(timeout=60)
            assert outcome.stdout == b"1\n"
            for worker in fresh.workers:
                os.kill(worker.pid, signal.SIGKILL)
            until(lambda: not any(worker.alive for worker in fresh.workers))
        (said,) = [record.getMessage() for record in caplog.records if record.name.startswith("wasm_sandbox")]
        assert "without a seccomp filter" in said
        assert "wasm-sandbox[process]" in said
    finally:
        fresh.close()


def test_a_worker_that_cannot_prepare_says_why_as_the_host_would(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WASM_SANDBOX_CACHE_DIR", str(tmp_path / "file"))
    fresh = ProcessPool()
    try:
        future, _ = fresh.start(ExecutionRequest("pass", {}, Limits()))
        with pytest.raises(CacheError, match="cannot use the cache directory"):
            future.result(timeout=60)
        assert fresh.workers == []
    finally:
        fresh.close()


@pytest.mark.parametrize(("name", "value"), [("executable", None), ("executable", ""), ("frozen", True)])
def test_a_program_without_an_interpreter_to_start_is_told_so(
    name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, name, value, raising=False)
    with pytest.raises(HostError, match=r"no worker process can be started: .*Python"):
        WorkerProcess()


@pytest.mark.parametrize(
    ("version", "has_lock", "options"),
    [("3.14.0 (main)", True, []), ("3.14.0 free-threading build", True, ["-X", "gil=1"]),
     ("3.14.0 free-threading build", False, [])],
)  # fmt: skip
def test_a_worker_of_a_free_threaded_python_has_the_global_lock_if_its_host_has(
    version: str, has_lock: bool, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def refuse(command: list[str], **_: Any) -> None:
        commands.append(command)
        raise OSError

    monkeypatch.setattr(sys, "version", version)
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: has_lock, raising=False)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(HostError):
        WorkerProcess()
    assert commands[0][1 : commands[0].index("-c")] == ["-I", "-X", "utf8", *options]


@needs_proc
def test_a_worker_looks_for_modules_where_its_host_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", "lib", *sys.path])
    worker = WorkerProcess()
    try:
        worker.wait_until_ready()
        command = PROC.joinpath(str(worker.pid), "cmdline").read_text()
        assert f"[{str(tmp_path)!r}, {str(tmp_path / 'lib')!r}, " in command
    finally:
        worker.close()


def test_without_an_interpreter_to_start_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("executable", "_base_executable"):  # the second is where Windows has the real one
        monkeypatch.setattr(sys, name, "/nowhere/python", raising=False)
    fresh = ProcessPool()
    try:
        with pytest.raises(HostError, match="no worker process can be started"):
            fresh.start(ExecutionRequest("pass", {}, Limits()))[0].result(timeout=20)
    finally:
        fresh.close()
