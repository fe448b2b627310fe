"""What a guest cannot reach: files, network, processes, the host's environment and paths, and other runs."""

from __future__ import annotations

import getpass
import os
import platform
import socket
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.hostile.conftest import RunBody
from wasm_sandbox import Tool, run_tool

DENIED = {
    "a file of the host": "open('/etc/passwd')",
    "a file through os": "import os; os.open('/etc/passwd', os.O_RDONLY)",
    "a relative file": "open('../../etc/passwd')",
    "a path with a trailing slash": "open('/etc/../etc/passwd/')",
    "/proc": "open('/proc/self/environ')",
    "a device": "open('/dev/urandom', 'rb')",
    "a descriptor above the standard ones": "open(3, 'rb')",
    "the lowest free descriptors": "import os\nfor fd in range(3, 500):\n  try: os.read(fd, 1)\n"
    "  except OSError: continue\n  break\nelse: raise OSError",
    "a link": "import os; os.symlink('/etc/passwd', '/x')",
    "a rename": "import os; os.rename('/a', '/b')",
    "a module from a path": "import sys; sys.path.append('/usr/lib/python3'); import antigravity_of_the_host",
    "a native module": "import importlib.machinery as m\n"
    "m.ExtensionFileLoader('x', '/usr/lib/libc.so.6').load_module('x')",
    "ctypes": "import ctypes; ctypes.CDLL(None).system(b'id')",
    "a socket": "import socket; socket.socket().connect(('127.0.0.1', 80))",
    "a name": "import socket; socket.create_connection(('localhost', 80))",
    "a page": "import urllib.request; urllib.request.urlopen('http://127.0.0.1')",
    "an event loop's connection": "import asyncio\nasync def g(): await asyncio.open_connection('127.0.0.1', 80)\n"
    "asyncio.run(g())",
    "a process": "import subprocess; subprocess.run(['id'])",
    "a shell": "import os; os.system('id')",
    "a fork": "import os; os.fork()",
    "another program": "import os; os.execv('/bin/sh', ['sh'])",
    "a process of multiprocessing": "import multiprocessing; multiprocessing.Process(target=print).start()",
    "a thread of the system": "import importlib._bootstrap as b; b._thread.start_new_thread(print, ())",
    "a joinable thread of the system": "import importlib._bootstrap as b; b._thread.start_joinable_thread(print)",
    "a signal to the host": f"import os; os.kill({os.getpid()}, 9)",
    "an alarm": "import signal; signal.alarm(1)",
    "shared memory": "import multiprocessing.shared_memory as s; s.SharedMemory('x', True, 10)",
    "a memory map": "import mmap; mmap.mmap(-1, 100)",
    "the clock to be set": "import time; time.clock_settime(time.CLOCK_REALTIME, 0)",
    "another user": "import os; os.setuid(0)",
    "a resource limit": "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 1))",
    "another root": "import os; os.chroot('/')",
    "a subinterpreter with a thread": "import _interpreters\ni = _interpreters.create()\n"
    "assert _interpreters.exec(i, 'import threading; threading.Thread(target=print).start()') is None",
}
REFUSALS = {
    "FileNotFoundError", "PermissionError", "OSError", "NotImplementedError", "AttributeError", "ImportError",
    "ModuleNotFoundError", "RuntimeError", "OperationalError", "URLError", "UnsupportedOperation", "AssertionError",
    "NotADirectoryError", "IsADirectoryError", "gaierror",
}  # fmt: skip


@pytest.mark.parametrize("body", DENIED.values(), ids=DENIED.keys())
def test_it_is_refused_with_an_ordinary_exception(run_body: RunBody, body: str) -> None:
    result = run_body(body, timeout_seconds=10)
    assert result.error is not None, result.func_return
    assert result.error.kind == "tool_exception", result.error
    assert result.error.exception_name in REFUSALS, result.error


IN_MEMORY = {
    "a file to write": "open('/tmp/owned', 'w').write('x')",
    "a new directory": "import os; os.makedirs('/tmp/owned/below')",
    "a temporary file": "import tempfile; tempfile.NamedTemporaryFile(prefix='owned', delete=False)",
    "a database file": "import sqlite3; sqlite3.connect('/tmp/owned.db').execute('create table t (x)')",
    "an archive": "import zipfile; zipfile.ZipFile('/tmp/owned.zip', 'w').writestr('a', b'b')",
    "a listing": "import os; assert os.listdir('/') == ['tmp'] and not os.listdir('/tmp')",
    "a scan": "import os; assert [entry.name for entry in os.scandir('.')] == ['tmp']",
}


@pytest.mark.parametrize("body", IN_MEMORY.values(), ids=IN_MEMORY.keys())
def test_scratch_files_are_in_memory_and_refused_where_none_are_allowed(run_body: RunBody, body: str) -> None:
    result = run_body(body, timeout_seconds=10)
    assert (result.error, result.files) == (None, None)
    assert not list(Path("/tmp").glob("owned*"))
    refused = run_body(body, timeout_seconds=10, file_count=0)
    assert refused.error is not None
    assert refused.error.exception_name in REFUSALS, refused.error


LOOK_FOR_FILES = """
import os, sys
seen = []
for place in places:
    try:
        seen.append(open(place, "rb").read(100) if not os.path.isdir(place) else os.listdir(place))
    except OSError as error:
        seen.append(type(error).__name__)
seen.append([(d, sorted(n), f) for d, n, f in os.walk("/")])
open("/tmp/owned", "w").write("in memory")
os.mkdir("/etc"); open("/etc/passwd", "w").write("mine")
return seen, open("/etc/../etc/passwd").read(), os.getcwd()
"""


@pytest.mark.parametrize("files", [{"/in": b"x"}, None], ids=["given", "scratch"])
def test_files_in_memory_show_nothing_of_the_host(files: dict[str, bytes] | None) -> None:
    here = str(Path(__file__))
    places = ["/etc/passwd", "/proc/self/environ", "/dev/urandom", here, os.getcwd(), "../../etc/passwd", "/usr", "/.."]
    tool = Tool.from_source(f"def f(places: list):\n{textwrap.indent(LOOK_FOR_FILES, '    ')}")
    result = run_tool(tool, {"places": places}, files=files)
    assert result.error is None, result.error
    seen, written, directory = result.func_return
    root = seen.pop()
    assert seen == ["FileNotFoundError"] * 7 + [["in", "tmp"] if files else ["tmp"]]
    assert root == [("/", ["tmp"], ["in"] if files else []), ("/tmp", [], [])]
    assert (written, directory) == ("mine", "/")
    assert result.files == ({"/etc/passwd": b"mine", "/tmp/owned": b"in memory"} if files else None)


def test_none_of_these_left_anything_on_the_host() -> None:
    assert not list(Path("/tmp").glob("owned*"))


LOOK_AROUND = """
import gc, os, platform, site, sys, sysconfig, traceback, types
found = [repr(vars(sys)), repr(os.environ), repr(dict(os.environ)), os.getcwd(), repr(platform.uname())]
found += [repr(sysconfig.get_config_vars()), repr(sysconfig.get_paths()), platform.python_build()[1], platform.node()]
found += [repr(vars(m)) for m in list(sys.modules.values())]
for thing in gc.get_objects() + list(sys.modules.values()):
    if isinstance(thing, types.FunctionType):
        found.append(thing.__code__.co_filename)
    elif isinstance(thing, types.ModuleType):
        found.append(repr((getattr(thing, "__file__", ""), getattr(thing, "__path__", ""))))
try:
    import json
    json.loads("[")
except ValueError:
    found.append(traceback.format_exc())
try:
    found.append(repr(os.uname()) + repr(os.getpid()) + repr(os.cpu_count()))
except AttributeError:
    pass
text = "\\n".join(found)
"""


def test_nothing_of_the_host_can_be_seen_inside(run_body: RunBody, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST_SECRET", "s3cret-of-the-host")
    traces = {
        "secret": "s3cret-of-the-host",
        "checkout": str(Path(__file__).parents[2]),
        "interpreter": sys.prefix,
        "home": str(Path.home()) + "/",
        "directory": os.getcwd(),
        "kernel": platform.release(),
        "builder": "/build",
        "cargo": ".cargo",
    }
    if len(socket.gethostname()) > 12:  # a shorter one may well be a word of the library
        traces["host name"] = socket.gethostname()
    if getpass.getuser() != "root":
        traces["user"] = getpass.getuser()
    # The names are put together inside, so that the script's own text is not what is found.
    body = f"{LOOK_AROUND}\nreturn [n for n, c in traces if ''.join(map(chr, c)) in text], len(text)"
    coded = [[name, [ord(c) for c in trace]] for name, trace in traces.items()]
    result = run_body(body, args={"traces": coded}, timeout_seconds=60)
    assert result.error is None, result.error
    found, size = result.func_return
    assert size > 100_000
    assert found == []


def test_tracebacks_name_only_the_tool_and_the_guests_own_library(run_body: RunBody) -> None:
    result = run_body("import json\njson.loads('[')")
    assert result.error is not None
    assert result.error.traceback is not None
    names = [line.split('"')[1] for line in result.error.traceback.splitlines() if line.startswith("  File ")]
    assert {name for name in names if not name.startswith(("/lib/", "<frozen "))} == {"script.py", "f.py"}
    assert str(Path(__file__).parents[2]) not in result.error.traceback


def test_clocks_can_be_read_and_tell_nothing_of_the_host_but_the_time(run_body: RunBody) -> None:
    body = "import time\nreturn [time.time(), time.monotonic(), time.perf_counter(), time.process_time()]"
    wall, *others = run_body(body).func_return
    assert abs(wall - time.time()) < 60
    assert all(0 <= other < 30 for other in others)  # since the start of the run, not of the host


def test_no_other_memory_than_the_guests_own_can_be_addressed(run_body: RunBody) -> None:
    """The widest pointers that Python can be made to follow end in the guest's own memory, or in a trap."""
    body = """
    class Fake(bytes): pass
    import _testcapi
    """
    result = run_body(body)
    assert result.error is not None
    assert result.error.exception_name == "ModuleNotFoundError"


FORGED_CODE = """
import types
code = (lambda: None).__code__
evil = code.replace(co_code=bytes([{opcode}, 255] * 200), co_consts=(), co_names=(), co_stacksize=1, co_varnames=())
return types.FunctionType(evil, {{}})()
"""


@pytest.mark.parametrize("opcode", range(0, 256, 5))
def test_forged_bytecode_corrupts_nobody_but_the_guest(run_body: RunBody, opcode: int) -> None:
    """Bytecode is not checked by CPython: it reads and writes wild memory, all of it the guest's own."""
    result = run_body(FORGED_CODE.format(opcode=opcode), timeout_seconds=2, fuel=500_000_000)
    assert result.error is None or result.error.kind != "cancelled"
    clean = run_body("import json; return json.dumps([1, 'a'])")
    assert (clean.func_return, clean.stdout, clean.stderr) == ('[1, "a"]', [], [])


def test_memory_of_an_earlier_run_is_not_found_in_a_later_one(run_body: RunBody) -> None:
    secret = "".join(f"{n:x}" for n in range(100, 140))
    plant = f"x = [bytes({secret.encode()!r}) * 1000 for _ in range(2000)]\nreturn len(x)"
    assert run_body(plant, memory_bytes=512 << 20).func_return == 2000
    # Fresh memory as C sees it: not cleared before it is handed out.
    scan = """
    import zlib
    size, hits = 0, 0
    for _ in range(60):
        block = bytearray(1 << 20)
        size += len(block)
        hits += block.count(bytes(needle))
    held = [zlib.compressobj() for _ in range(50)]
    return size, hits
    """
    needle = list(secret.encode())
    assert run_body(scan, args={"needle": needle}).func_return == (60 << 20, 0)
