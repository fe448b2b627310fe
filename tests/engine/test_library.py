"""What a tool finds in the guest: Python's library, pydantic, time zones, an event loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest

StdoutOf = Callable[..., str]

NAMED_MODULES = (
    "json re decimal _decimal datetime zoneinfo hashlib zlib gzip zipfile bz2 lzma sqlite3 csv struct pickle "
    "unicodedata xml.etree.ElementTree pyexpat html email urllib.parse difflib textwrap statistics fractions "
    "random secrets uuid heapq bisect array asyncio contextvars dataclasses enum typing graphlib tomllib "
    "logging string itertools functools operator collections ipaddress calendar colorsys copy pprint traceback "
    "warnings inspect ast dis tokenize tempfile concurrent.futures pydantic typing_extensions annotated_types "
    "typing_inspection packaging.version tzdata abc argparse base64 binascii bz2 cmath codecs configparser "
    "contextlib email.message fnmatch gettext glob hmac html.parser http http.client importlib.metadata "
    "importlib.resources io locale math mimetypes numbers os pathlib pickletools platform plistlib posixpath "
    "profile queue quopri reprlib runpy sched selectors shelve shlex shutil signal socket stat stringprep "
    "subprocess symtable sysconfig tarfile threading time timeit tracemalloc types unittest unittest.mock "
    "urllib.request wave weakref xml.dom.minidom xml.sax zipapp "
)


def test_every_module_that_tools_use_can_be_imported(stdout_of: StdoutOf) -> None:
    script = f"""
import importlib
failed = []
for name in {NAMED_MODULES!r}.split():
    try:
        importlib.import_module(name)
    except BaseException as error:
        failed.append((name, repr(error)))
print(failed)
"""
    assert stdout_of(script) == "[]\n"


def test_the_interpreter_is_isolated_and_speaks_utf8(stdout_of: StdoutOf) -> None:
    script = (
        "import sys; print(sys.platform, sys.version.split()[0], sys.flags.isolated, sys.flags.utf8_mode, sys.path)"
    )
    assert stdout_of(script) == "wasi 3.13.15 1 1 []\n"
    assert stdout_of("print('naïve', '日本', '🐍')") == "naïve 日本 🐍\n"


def test_pydantic_validates_dumps_and_describes(stdout_of: StdoutOf) -> None:
    script = """
from pydantic import BaseModel, TypeAdapter, ValidationError, field_validator, validate_call
class Line(BaseModel):
    quantity: int
    tags: list[str] = []
    prices: dict[str, float] | None = None
    @field_validator("quantity")
    @classmethod
    def more(cls, value):
        return value + 1
print(Line(quantity="3", prices={"a": "1.5"}).model_dump())
print(Line.model_validate_json('{"quantity": 1}').model_dump_json())
print(sorted(Line.model_json_schema()["properties"]), TypeAdapter(list[int]).validate_python(["1", 2]))
try:
    Line(quantity="q", tags=3)
except ValidationError as error:
    print(error.error_count(), error.errors()[0]["type"])
@validate_call
def double(line: Line) -> int:
    return line.quantity * 2
print(double({"quantity": 4}))
"""
    assert stdout_of(script).splitlines() == [
        "{'quantity': 4, 'tags': [], 'prices': {'a': 1.5}}",
        '{"quantity":2,"tags":[],"prices":null}',
        "['prices', 'quantity', 'tags'] [1, 2]",
        "2 int_parsing",
        "10",
    ]


def test_asyncio_sleeps_gathers_times_out_and_queues(stdout_of: StdoutOf) -> None:
    script = """
import asyncio
async def after(n):
    await asyncio.sleep(0.002 * n)
    return n
async def main():
    print(await asyncio.gather(*(after(n) for n in range(3))))
    async with asyncio.TaskGroup() as group:
        first, second = group.create_task(after(1)), group.create_task(after(2))
    print(first.result() + second.result())
    try:
        await asyncio.wait_for(asyncio.sleep(60), 0.01)
    except TimeoutError:
        print("timed out")
    queue = asyncio.Queue()
    await queue.put("queued")
    print(await queue.get())
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(0.001, event.set)
    await event.wait()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(after(1))
            raise ValueError
    except* ValueError:
        print("group")
    print([n async for n in numbers()])
async def numbers():
    yield 1
asyncio.run(main())
print(asyncio.run(after(7)))
with asyncio.Runner() as runner:
    print(runner.run(after(8)))
"""
    lines = ["[0, 1, 2]", "3", "timed out", "queued", "group", "[1]", "7", "8"]
    assert stdout_of(script).splitlines() == lines


def test_a_loop_that_can_never_go_on_raises_instead_of_hanging(stdout_of: StdoutOf) -> None:
    script = """
import asyncio
async def wait_for_nothing():
    await asyncio.get_running_loop().create_future()
try:
    asyncio.run(wait_for_nothing())
except RuntimeError as error:
    print(error)
"""
    assert "deadlock" in stdout_of(script)


def test_time_zones_come_with_the_guest(stdout_of: StdoutOf) -> None:
    script = """
from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones
print(datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Paris")).isoformat(), len(available_timezones()) > 500)
print(datetime(2026, 1, 1, tzinfo=ZoneInfo("America/New_York")).utcoffset())
try:
    ZoneInfo("No/Where")
except ZoneInfoNotFoundError as error:
    print(error)
"""
    assert stdout_of(script).splitlines() == [
        "2026-07-01T12:00:00+02:00 True",
        "-1 day, 19:00:00",
        "'No time zone found with key No/Where'",
    ]


def test_sqlite_works_in_memory(stdout_of: StdoutOf) -> None:
    script = """
import sqlite3
db = sqlite3.connect(":memory:")
db.execute("create table t(a, b)")
db.executemany("insert into t values(?, ?)", [(i, str(i)) for i in range(1000)])
print(db.execute("select count(*), sum(a), max(b) from t where a > ?", (10,)).fetchone())
db.execute("create virtual table words using fts5(x)")
db.execute("insert into words values('hello world')")
print(db.execute("select * from words where words match 'world'").fetchall())
"""
    assert stdout_of(script).splitlines() == [
        "(989, 499445, '999')",
        "[('hello world',)]",
    ]


@pytest.mark.parametrize("module", ["zlib", "bz2", "lzma", "gzip"])
def test_compression_goes_there_and_back(stdout_of: StdoutOf, module: str) -> None:
    script = (
        f"import {module} as m\nd = b'abc' * 1000\nprint(m.decompress(m.compress(d)) == d, len(m.compress(d)) < 200)"
    )
    assert stdout_of(script) == "True True\n"


def test_hashes_equal_the_published_ones_without_openssl(stdout_of: StdoutOf) -> None:
    names = "md5 sha1 sha224 sha256 sha384 sha512 sha3_256 blake2b blake2s"
    script = f"import hashlib\nfor n in {names!r}.split(): print(n, hashlib.new(n, b'abc').hexdigest()[:16])"
    assert stdout_of(script).splitlines() == [
        "md5 900150983cd24fb0",
        "sha1 a9993e364706816a",
        "sha224 23097d223405d822",
        "sha256 ba7816bf8f01cfea",
        "sha384 cb00753f45a35e8b",
        "sha512 ddaf35a193617aba",
        "sha3_256 3a985da74fe225b2",
        "blake2b ba80a53f981c4d0d",
        "blake2s 508c5e8c327c14e2",
    ]


def test_processes_and_sockets_raise(stdout_of: StdoutOf) -> None:
    script = """
import socket, subprocess
def attempt(f):
    try:
        f()
    except Exception as error:
        print(type(error).__name__)
attempt(lambda: subprocess.run(["ls"]))
attempt(lambda: socket.create_connection(("127.0.0.1", 80)))
attempt(lambda: socket.create_connection(("localhost", 80)))
"""
    assert all(name.endswith("Error") for name in stdout_of(script).split())
    assert len(stdout_of(script).split()) == 3


def test_decimal_is_the_c_one(stdout_of: StdoutOf) -> None:
    assert stdout_of(
        "import decimal, _decimal; print(decimal.Decimal is _decimal.Decimal, decimal.Decimal(1) / 3)"
    ) == ("True 0.3333333333333333333333333333\n")


def test_classes_of_the_script_are_picklable_and_found_in_main(stdout_of: StdoutOf) -> None:
    script = """
import dataclasses, enum, pickle, sys, typing
@dataclasses.dataclass
class Q:
    x: "int" = 1
class E(enum.Enum):
    A = 1
print(pickle.loads(pickle.dumps(Q(3))), typing.get_type_hints(Q), __name__, sys.modules["__main__"].Q is Q, E(1))
"""
    assert stdout_of(script) == "Q(x=3) {'x': <class 'int'>} __main__ True E.A\n"


def test_functions_of_the_script_have_their_source(stdout_of: StdoutOf) -> None:
    script = "import inspect\ndef f():\n    return 1\nprint(inspect.getsource(f), __file__)"
    assert stdout_of(script) == "def f():\n    return 1\n script.py\n"


def test_the_collector_still_collects(stdout_of: StdoutOf) -> None:
    script = """
import gc, weakref
class A: pass
a = A(); a.self = a; ref = weakref.ref(a)
del a
print(ref() is None, gc.collect() > 0, ref() is None, gc.isenabled(), gc.get_freeze_count() > 1000)
"""
    assert stdout_of(script) == "False True True True True\n"
