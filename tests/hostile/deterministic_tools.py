"""Fifty tools that look at everything that could differ between two runs.

As a program it runs each of them once and prints what came of it, one line of JSON for each.
"""

from __future__ import annotations

import json
from typing import Any

from wasm_sandbox import Limits, Tool, run_tool

OVERFLOW = "t = ()\nfor _ in range(600_000): t = (t,)\nhash(t)"

BODIES: dict[str, str] = {
    "uuid4": "import uuid; return [str(uuid.uuid4()) for _ in range(5)]",
    "uuid1": "import uuid; return str(uuid.uuid1())",
    "random": "import random; return [random.random(), random.randint(1, 10**9), random.gauss(0, 1)]",
    "shuffle": "import random; a = list(range(50)); random.shuffle(a); return a",
    "fresh Random": "import random; return random.Random().random()",
    "SystemRandom": "import random; return random.SystemRandom().random()",
    "secrets": "import secrets; return [secrets.token_hex(16), secrets.randbelow(10**9)]",
    "urandom": "import os; return os.urandom(100_000)[-8:].hex()",
    "time": "import time; return [time.time(), time.time_ns()]",
    "monotonic": "import time; return [time.monotonic(), time.monotonic_ns()]",
    "perf_counter": "import time; a = time.perf_counter(); return [a, time.perf_counter() - a]",
    "process_time": "import time; sum(range(10**5)); return time.process_time()",
    "now": "import datetime; return datetime.datetime.now().isoformat()",
    "today": "import datetime; return [datetime.date.today().isoformat(), str(datetime.datetime.now(datetime.UTC))]",
    "localtime": "import time; return [time.strftime('%c'), list(time.localtime()), time.tzname]",
    "zone": "import datetime, zoneinfo; return str(datetime.datetime.now(zoneinfo.ZoneInfo('Europe/Berlin')))",
    "sleep": "import time; a = time.time(); time.sleep(600); return time.time() - a",
    "sleep for centuries": "import time\nfor _ in range(4): time.sleep(9_000_000_000)\nreturn time.monotonic()",
    "asyncio": (
        "import asyncio, time\n"
        "async def one(n):\n    await asyncio.sleep(n)\n    print(time.monotonic())\n    return n\n"
        "async def main(): return await asyncio.gather(*map(one, (3, 1, 2)))\nreturn asyncio.run(main())"
    ),
    "asyncio timeout": (
        "import asyncio\nasync def main():\n    async with asyncio.timeout(5): await asyncio.sleep(50)\n"
        "return asyncio.run(main())"
    ),
    "id": "return [id(object()), id([]), id('x' * 1000), id(f)]",
    "default repr": "class A: pass\nreturn [repr(A()), repr(f), repr(lambda: 0), repr(iter([]))]",
    "hash": "return [hash('text'), hash(b'bytes'), hash((1, 'a')), hash(1.5), hash(None), hash(f), hash(object())]",
    "set of strings": "return list({f'name {i}' for i in range(200)})",
    "set of objects": "class A: pass\na = [A() for _ in range(50)]\nreturn [a.index(x) for x in set(a)]",
    "frozenset": "return str(frozenset('the quick brown fox'))",
    "globals": "return sorted(globals())",
    "modules": "import sys; return list(sys.modules)",
    "environment": "import os; return [dict(os.environ), list(os.environ)]",
    "agent state": "agent_state.memo = str(__import__('uuid').uuid4()); return dict(agent_state.bag)",
    "exception": "raise ValueError(object())",
    "nested exception": "try:\n    {}[id(object())]\nexcept KeyError as e:\n    raise RuntimeError(id(e)) from e",
    "group": "raise ExceptionGroup('several', [ValueError(hash('a')), KeyError(id(f))])",
    "syntax error": "return (",
    "recursion": "return f(agent_state)",
    "exit": "import os, random; print(random.random()); os._exit(int(random.random() * 100))",
    "overflow of the stack": OVERFLOW,
    "memory": "return len(bytearray(1 << 30))",
    "many small objects": "return len([bytearray(1000) for _ in range(10**6)])",
    "fuel": "n = 0\nwhile True:\n    n += 1\n    if not n % 100_000: print(n)",
    "flood": "import random\nfor _ in range(3000): print(random.random() , 'x' * 1000)",
    "standard error": "import sys, warnings; print(id(f), file=sys.stderr); warnings.warn('w'); return 1",
    "logging": "import logging; logging.basicConfig(format='%(asctime)s %(process)d %(thread)d %(message)s')\n"
    "logging.warning('now')",
    "gc": "import gc\nfor _ in range(1000): a = []; a.append(a)\nreturn [gc.collect(), gc.get_count(), gc.get_stats()]",
    "sqlite": (
        "import sqlite3; c = sqlite3.connect(':memory:')\n"
        "return c.execute(\"select random(), hex(randomblob(8)), datetime('now'), julianday('now')\").fetchall()"
    ),
    "pydantic": (
        "from datetime import datetime\nfrom uuid import UUID, uuid4\nfrom pydantic import BaseModel, Field\n"
        "class M(BaseModel):\n    id: UUID = Field(default_factory=uuid4)\n"
        "    at: datetime = Field(default_factory=datetime.now)\nreturn M().model_dump()"
    ),
    "compression": (
        "import zlib, bz2, lzma, os\nd = os.urandom(5000) * 3\nreturn [len(m.compress(d)) for m in (zlib, bz2, lzma)]"
    ),
    "floats": "import math; return [math.sin(1e6), sum(0.1 for _ in range(1000)), 1e308 * 10, (0.1).hex(), math.inf]",
    "getrefcount": "import sys; return [sys.getrefcount(None), sys.getrefcount(f), sys.getallocatedblocks()]",
    "raw clocks": "import time; return [[time.clock_gettime_ns(c), time.clock_getres(c)] for c in (0, 1)]",
}

FAILING = {
    "asyncio timeout": "tool_exception",
    "exception": "tool_exception",
    "nested exception": "tool_exception",
    "group": "tool_exception",
    "syntax error": "syntax_error",
    "recursion": "tool_exception",
    "exit": "no_result",
    "overflow of the stack": "stack_overflow",
    "memory": "out_of_memory",
    "many small objects": "out_of_memory",
    "fuel": "out_of_fuel",
}
"""The kind of error of those that end in one."""

STATE = {"id": "agent-1", "memo": "", "bag": {"b": 1, "a": 2}}


def run(name: str, isolation: Any = "thread") -> dict[str, Any]:
    """All of a run's result but the time it took."""
    lines = "\n    ".join(BODIES[name].splitlines())
    tool = Tool(name="f", source_code=f"def f(agent_state):\n    {lines}\n")
    limits = Limits(deterministic=True, timeout_seconds=100, fuel=200_000_000)
    result = run_tool(
        tool, {}, tool_id="tool-1", agent_state=STATE, additional_env_vars={"B": "1", "A": "2"}, limits=limits,
        isolation=isolation,
    )  # fmt: skip
    return json.loads(result.model_dump_json(exclude={"usage": {"wall_seconds"}}))  # type: ignore[no-any-return]


def main() -> None:
    for name in BODIES:
        print(json.dumps([name, run(name)]))


if __name__ == "__main__":
    main()
