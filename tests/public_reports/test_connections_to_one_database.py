"""Two connections to one SQLite file say "database is locked" (CPython's own test_sqlite3).

The kind: what the connections of one process may do at the same time is what they may do natively.
"""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest

from wasm_sandbox import HostDir, Limits, Tool, run_tool

STEPS = {
    "read": "list(c.execute('select * from t order by x'))",
    "write": "c.execute('insert into t values (?)', (n,)) and None",
    "commit": "c.commit()",
    "roll back": "c.rollback()",
    "begin": "c.execute('begin immediate') and None",
    "exclusive": "c.execute('begin exclusive') and None",
    "count": "c.execute('select count(*) from t').fetchone()",
    "hold a cursor": "cursors.append(c.execute('select * from t')) or cursors[-1].fetchone()",
    "let go": "cursors.clear()",
    "in transaction": "c.in_transaction",
    "delete": "c.execute('delete from t where x < ?', (n,)) and None",
}
SCRIPT = """
import sqlite3
def play(path, steps):
    connections = [sqlite3.connect(path, timeout=0) for _ in range(3)]
    connections[0].execute('create table t (x)')
    connections[0].commit()
    made, cursors = [], []
    for n, (who, step) in enumerate(steps):
        c = connections[who]
        try: made.append(eval(step))
        except sqlite3.OperationalError as error: made.append(str(error))
    cursors.clear()
    for c in connections:
        c.close()
    return made
"""


def in_guest(steps: list[tuple[int, str]]) -> object:
    source = f"{SCRIPT}\ndef f(steps):\n    return play('/a.db', steps)\n"
    result = run_tool(Tool.from_source(source), {"steps": steps}, files={}, limits=Limits(timeout_seconds=60))
    assert result.error is None
    return [tuple(v) if isinstance(v, list) and v and not isinstance(v[0], tuple) else v for v in result.func_return]


def native(steps: list[tuple[int, str]], path: Path) -> object:
    namespace: dict[str, object] = {}
    exec(SCRIPT, namespace)
    return eval("play(path, steps)", namespace, {"path": str(path), "steps": steps})


def test_two_connections_share_a_file() -> None:
    source = (
        "import sqlite3\ndef f():\n    a, b = (sqlite3.connect('/a.db', timeout=0) for _ in range(2))\n"
        "    a.execute('create table t (x)')\n    a.execute('insert into t values (7)')\n    a.commit()\n"
        "    held = a.execute('select * from t')\n    held.fetchone()\n"
        "    return b.execute('select * from t').fetchall(), a.execute('select 1').fetchall()\n"
    )
    result = run_tool(Tool.from_source(source), files={})
    assert (result.error, result.func_return) == (None, ([(7,)], [(1,)]))


@pytest.mark.parametrize("seed", range(12))
def test_three_connections_do_what_they_do_natively(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    steps = [(chance.randrange(3), chance.choice([*STEPS.values()])) for _ in range(60)]
    assert in_guest(steps) == native(steps, tmp_path / "a.db")


def test_a_database_of_the_host_can_be_read_where_nothing_can_be_written(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("create table t (x)")
        connection.execute("insert into t values (7)")
    connection.close()
    source = (
        "import sqlite3\ndef f():\n    a, b = (sqlite3.connect('/data/a.db') for _ in range(2))\n"
        "    return a.execute('select * from t').fetchall(), b.execute('select * from t').fetchall()\n"
    )
    result = run_tool(Tool.from_source(source), mounts={"/data": HostDir(tmp_path)})
    assert (result.error, result.func_return) == (None, ([(7,)], [(7,)]))
