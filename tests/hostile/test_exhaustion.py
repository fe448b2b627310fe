"""A host that the system gives nothing more: it runs guests, or says so with a documented exception."""

from __future__ import annotations

import compileall
import errno
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import wasm_sandbox
from wasm_sandbox.errors import HostError, SandboxError, naming_exhaustion

pytestmark = [pytest.mark.long, pytest.mark.skipif(not hasattr(os, "fork"), reason="resource limits are POSIX's")]

MIB = 1 << 20

PROGRAM = """
import json, os, resource, sys
from wasm_sandbox import Limits, Tool, WasmToolSandbox, errors, run_tool
tool = Tool.from_source("def one() -> int:\\n    return 1\\n")
limit, steps, isolation, is_async = json.loads(sys.argv[1])
which = getattr(resource, limit)
def used():
    "What counts towards the limit now."
    if limit == "RLIMIT_NOFILE":
        return 0
    field = {"RLIMIT_DATA": "VmData", "RLIMIT_AS": "VmSize"}[limit]
    (line,) = [line for line in open("/proc/self/status") if line.startswith(field)]
    return int(line.split()[1]) << 10
def run():
    if is_async:
        import asyncio
        loop = asyncio.new_event_loop()
    resource.setrlimit(which, (used() + step, resource.getrlimit(which)[1]))
    try:
        if is_async:
            sandbox = WasmToolSandbox("one", {}, None, None, tool_object=tool, isolation=isolation)
            result = loop.run_until_complete(sandbox.run())
        else:
            result = run_tool(tool, isolation=isolation)
        return "ran" if result.error is None else result.error.kind
    except errors.HostError as error:
        return "HostError"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
for step in steps:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # a worker's last words are not of interest
        os.dup2(writing, 1)
        os.closerange(3, 100)
        try:
            said = run()
            os.write(1, said.encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, errors="replace") as pipe:
        said = pipe.read()
    print(json.dumps([step, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said]), flush=True)
"""

DESCRIPTORS = [3, 4, 5, 6, 7, 8, 9, 10, 12, 64]
BYTES = [0, *[int(n * MIB) for n in (1, 4, 10, 19.5, 20, 32, 48, 60, 80, 100, 140)]]
ADDRESSES = [n * MIB for n in (0, 4, 16, 48, 128, 1024, 4500, 20_000)]


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """As an installer leaves it: without memory, Python's parser finds errors in any text."""
    compileall.compile_dir(Path(wasm_sandbox.__file__).parent, quiet=1)


@pytest.mark.parametrize(
    ("isolation", "is_async"),
    [("thread", False), ("thread", True), ("process", False)],
    ids=["sync", "async", "process"],
)
@pytest.mark.parametrize(
    ("limit", "steps"), [("RLIMIT_NOFILE", DESCRIPTORS), ("RLIMIT_DATA", BYTES), ("RLIMIT_AS", ADDRESSES)]
)
def test_whatever_the_system_does_not_give_a_run_is_made_or_refused_in_words(
    limit: str, steps: list[int], isolation: str, is_async: bool
) -> None:
    if limit != "RLIMIT_NOFILE" and not os.path.exists("/proc/self/status"):
        pytest.skip("no /proc here")
    data = json.dumps([limit, steps, isolation, is_async])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, data], capture_output=True, text=True, timeout=110, check=True
    )
    seen = [json.loads(line) for line in done.stdout.splitlines()]
    assert [step for step, _, _ in seen] == steps
    allowed = {"ran", "HostError"}
    if isolation == "process":
        allowed.add("guest_trap")  # what a worker lacks that was ready: its words are a guest's
    assert [(step, code, said) for step, code, said in seen if code or said not in allowed] == []
    assert seen[0][2] == "HostError"
    assert limit != "RLIMIT_NOFILE" or seen[-1][2] == "ran"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "no more memory: raise its limits"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE), "/x"), "no more files .*'/x'.*ulimit -n"),
        (OSError(errno.ENFILE, os.strerror(errno.ENFILE)), "no more files"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "no more memory"),
        (OSError("x.so: failed to map segment from shared object"), "no more memory .*x.so"),
        (ImportError(f"x.so: cannot open shared object file: {os.strerror(errno.EMFILE)}"), "no more files .*x.so"),
        (SystemError("error return without exception set"), "no more memory"),
    ],
)
def test_each_lack_is_named_with_what_to_do(error: Exception, words: str) -> None:
    with pytest.raises(HostError, match=words) as told, naming_exhaustion():
        raise error
    assert told.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOENT, "No such file"), ImportError("no module"), ValueError("x"), SandboxError("y")]
)
def test_what_is_something_else_stays_what_it_is(error: Any) -> None:
    with pytest.raises(type(error)) as told, naming_exhaustion():
        raise error
    assert told.value is error


@pytest.mark.parametrize("call", ["build(())", "from_wasm('/none.wasm')", "named('none')"])
def test_so_it_is_for_images(call: str) -> None:
    program = f"""
    import os, resource
    from wasm_sandbox import Image, errors
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 1000))
    try:
        Image.{call}
    except errors.HostError as error:
        os.write(1, type(error).__name__.encode())
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "HostError"), done.stderr


def test_a_run_works_again_once_there_is_enough() -> None:
    program = """
    import os, resource
    from wasm_sandbox import Tool, errors, run_tool
    tool = Tool.from_source("def one() -> int:\\n    return 1\\n")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    for number in (3, 4, 5):
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, before[1]))
        try:
            run_tool(tool)
        except errors.HostError as error:
            print("HostError")
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
    print(run_tool(tool).func_return)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "HostError\n" * 3 + "1\n"), done.stderr
