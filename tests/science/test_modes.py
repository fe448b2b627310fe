"""The image "science" in every way of running: without fuel, in sessions, with files, in worker processes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from wasm_sandbox import HostDir, Limits, Sandbox, Tool, WasmToolSandbox, run_code, run_tool
from wasm_sandbox.parallel import SandboxExecutor

TOTAL = Tool.from_source("import pandas as pd\ndef total(rows: pd.DataFrame):\n    return rows.a.sum()")
ROWS = {"rows": [{"a": 1}, {"a": 2}]}


@pytest.mark.long  # compiles it anew
def test_it_runs_without_fuel() -> None:
    assert run_tool(TOTAL, ROWS, image="science", limits=Limits(fuel=None)).func_return == 3


def test_it_runs_in_a_loop() -> None:
    async def both() -> list[object]:
        boxes = [WasmToolSandbox("total", ROWS, None, None, tool_object=TOTAL, image="science") for _ in range(2)]
        return [result.func_return for result in await asyncio.gather(*(box.run() for box in boxes))]

    assert asyncio.run(both()) == [3, 3]


def test_a_session_keeps_tables_is_copied_and_taken_back() -> None:
    box = Sandbox(image="science")
    with box.session() as session:
        assert session.run_code("import pandas as pd\nd = pd.DataFrame({'a': [1, 2]})").error is None
        point = session.checkpoint()
        assert session.run_code("d['a'] *= 10\nd").value == [{"a": 10}, {"a": 20}]
        with session.fork() as other, box.load_session(session.dump()) as loaded:
            session.rollback(point)
            for each, factor in ((session, 1), (other, 10), (loaded, 10)):
                assert each.run_code("d + 1").value == [{"a": factor + 1}, {"a": 2 * factor + 1}]


FILES = """
import numpy as np, pandas as pd, tempfile
a = np.arange(6.0).reshape(2, 3)
np.save("a.npy", a)
np.savez("b.npz", a=a, b=a + 1)
with open("c.bin", "wb") as file:
    file.write(b"head")
    (a * 2).tofile(file)
    file.write(b"tail")
with open("c.bin", "rb") as file:
    head = file.read(4)
    again, tail = np.fromfile(file, count=6), file.read()
a.tofile("d.bin")
with tempfile.TemporaryFile() as file:
    a.tofile(file)
    file.seek(8)
    part = np.fromfile(file, count=2)
with np.load("b.npz") as kept:
    sums = [kept["a"].sum(), kept["b"].sum()]
table = pd.DataFrame(a, columns=list("xyz"))
table.to_csv("e.csv", index=False)
table.to_pickle("f.pickle")
table.to_json("g.json", orient="records", lines=True)
[np.load("a.npy"), again, head, tail, np.fromfile("d.bin"), part, sums, pd.read_csv("e.csv"),
 pd.read_pickle("f.pickle").z, pd.read_json("g.json", lines=True).x]
"""


@pytest.mark.parametrize("mounted", [False, True])
def test_arrays_and_tables_are_written_and_read(mounted: bool, tmp_path: Path) -> None:
    mounts = {"/data": HostDir(tmp_path, read_only=False)} if mounted else {}
    code = ("import os\nos.chdir('/data')\n" if mounted else "") + FILES
    value = run_code(code, image="science", files={}, mounts=mounts)
    a = [float(n) for n in range(6)]
    table = [{"x": 0.0, "y": 1.0, "z": 2.0}, {"x": 3.0, "y": 4.0, "z": 5.0}]
    expected = [[a[:3], a[3:]], [2 * n for n in a], b"head", b"tail", a, a[1:3], [15.0, 21.0], table, [2.0, 5.0]]
    assert value.error is None
    assert value.value == [*expected, [0, 3]]
    if mounted:
        assert (tmp_path / "c.bin").stat().st_size == 4 + 6 * 8 + 4


@pytest.mark.long
def test_worker_processes_have_it() -> None:
    with SandboxExecutor(1, image="science") as executor:
        assert [result.func_return for result in executor.map(TOTAL, [ROWS, ROWS])] == [3, 3]
