"""``wasm-sandbox bench``: its figures are complete, add up, and can be drawn."""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from click.testing import CliRunner

from wasm_sandbox.bench import breakdown as breakdown_module
from wasm_sandbox.bench.breakdown import MARKED_TOOL, take_breakdown
from wasm_sandbox.bench.harness import ForeignContenders, HarnessError
from wasm_sandbox.bench.measure import (
    Absent,
    ContenderFailed,
    LocalContender,
    Series,
    percentile,
    side_by_side,
)
from wasm_sandbox.bench.plot import PlotUnavailable, draw
from wasm_sandbox.bench.report import Report
from wasm_sandbox.cli.app import cli
from wasm_sandbox.engine.engine import process_engine
from wasm_sandbox.events import Mark, listening
from wasm_sandbox.switches import engine_is_plain
from wasm_sandbox.tool.definition import Tool

pytestmark = pytest.mark.long

HARNESS = dedent(
    """
    import json, sys
    if sys.argv[1] == "--list":
        here = [{"name": name, "version": "1", "jobs": {"print": "a note"}} for name in ("quick", "broken", "gone")]
        print(json.dumps({"contenders": here, "absent": [{"contender": "missing", "reason": "not installed"}]}))
    elif sys.argv[1] != "gone":
        for line in sys.stdin:
            answer = {"seconds": 0.25} if sys.argv[1] == "quick" else {"error": "it broke"}
            print(json.dumps(answer), flush=True)
    """
)


@pytest.fixture
def harness(tmp_path: Path) -> Path:
    file = tmp_path / "harness.py"
    file.write_text(HARNESS)
    return file


@pytest.fixture
def report() -> Report:
    series = [
        Series("print", "wasm-sandbox", seconds=[0.001, 0.002, 0.003]),
        Series("print", "another", "a note", [0.004, 0.004, 0.004]),
        Series("import", "python", seconds=[0.02]),
    ]
    return Report(3, {"cores": "2"}, {"wasm-sandbox": "0", "wasmtime": "50", "python": "3"}, series, [Absent("x", "y")])


# --- Measuring ------------------------------------------------------------------------------------------


def test_contenders_take_turns_in_alternating_order() -> None:
    order: list[str] = []
    contenders = [LocalContender("print", name, partial(order.append, name)) for name in "ab"]
    series, failed = side_by_side(contenders, 4)
    assert "".join(order[4:]) == "baabbaab"
    assert [len(s.seconds) for s in series] == [4, 4]
    assert failed == []


def test_a_contender_that_fails_is_named_with_its_reason() -> None:
    def fail() -> None:
        raise ContenderFailed("it is broken")

    series, failed = side_by_side([LocalContender("print", "a", lambda: None), LocalContender("print", "b", fail)], 2)
    assert [s.contender for s in series] == ["a"]
    assert failed == [Absent("b (print)", "it is broken")]


def test_percentiles_are_by_the_nearest_rank() -> None:
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile(list(range(1, 101)), 95) == 95
    assert percentile([7.0], 95) == 7.0


def test_foreign_contenders_answer_over_a_pipe(harness: Path) -> None:
    with ForeignContenders(Path(sys.executable), harness) as foreign:
        series, failed = side_by_side(foreign.contenders, 2)
    assert [(s.contender, s.note, s.seconds) for s in series] == [("quick", "a note", [0.25, 0.25])]
    assert failed[0] == Absent("broken (print)", "it broke")
    assert failed[1].contender == "gone (print)"
    assert failed[1].reason.startswith("its process ")
    assert foreign.absent == [Absent("missing", "not installed")]


def test_a_python_that_is_not_there_is_named(harness: Path) -> None:
    with pytest.raises(HarnessError, match="/nowhere/python cannot be started"):
        ForeignContenders(Path("/nowhere/python"), harness)


def test_a_harness_that_fails_is_named_with_its_last_words(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("raise ValueError('oh')")
    with pytest.raises(HarnessError, match=r"broken\.py does not run .*: ValueError: oh"):
        ForeignContenders(Path(sys.executable), broken)


# --- The command ----------------------------------------------------------------------------------------


def test_it_writes_the_documented_json(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    done = CliRunner().invoke(cli, ["bench", "--rounds", "3", "--json", str(file)])
    assert done.exit_code == 0, done.output
    document = json.loads(file.read_text())
    assert list(document) == ["rounds", "machine", "versions", "results", "absent", "breakdown"]
    assert document["rounds"] == 3
    assert document["absent"] == []
    assert {"system", "machine", "cores"} <= document["machine"].keys()
    assert {"wasm-sandbox", "python", "wasmtime", "guest cpython"} <= document["versions"].keys()
    rows = {(row["job"], row["contender"]): row for row in document["results"]}
    for row in rows.values():
        assert list(row) == ["job", "contender", "note", "rounds", "min_ms", "p50_ms", "p95_ms", "ratio"]
        assert 0 < row["min_ms"] <= row["p50_ms"] <= row["p95_ms"]
    assert rows["tool", "wasm-sandbox"]["ratio"] == 1
    assert rows["tool", "subprocess"]["ratio"] > 1
    assert "call a tool" in done.output
    assert "subprocess" in done.output


def test_peers_need_a_harness(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["bench", "--peers-harness", str(tmp_path / "none.py")], standalone_mode=False)
    assert "name it with --peers-harness" in str(done.exception)


def test_the_table_shows_everything(report: Report) -> None:
    from rich.console import Console

    console = Console(width=110, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    report.print_to(console)
    console.file.close()
    text = console.export_text()
    for shown in ("wasm-sandbox", "another (a note)", "2.00", "not measured: x: y", "cores 2", "wasmtime 50"):
        assert shown in text


# --- The breakdown --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def breakdown() -> dict[str, Any]:
    process_engine().image()
    return take_breakdown(8).document()


def test_the_steps_of_a_run_add_up_to_the_whole(breakdown: dict[str, Any]) -> None:
    total = sum(step["us"] for step in breakdown["steps"])
    assert 0.5 * breakdown["whole_us"] < total < 1.5 * breakdown["whole_us"]
    assert all(step["us"] >= 0 for step in breakdown["steps"])


def test_every_step_is_there(breakdown: dict[str, Any]) -> None:
    names = " ".join(step["name"] for step in breakdown["steps"])
    for word in ("write the script", "thread", "fresh instance", "guest:", "frame", "decode", "hand it back"):
        assert word in names
    assert breakdown["after_the_reply"]["us"] > 0


def test_host_calls_are_counted_by_name(breakdown: dict[str, Any]) -> None:
    calls = {call["name"]: call["calls"] for call in breakdown["host_calls"]}
    assert calls["fd_write"] == 1
    assert calls["clock_time_get"] >= 2


def test_a_script_that_does_more_burns_more_fuel(breakdown: dict[str, Any]) -> None:
    fuel = {probe["name"]: probe["fuel"] for probe in breakdown["probes"]}
    assert fuel["an empty script"] < fuel["print(1)"] < fuel["the whole generated script, unprepared"]


class SlowCompiler:
    """Makes the compiling ahead of a tool slow, and notes when it is done."""

    def __init__(self, happened: list[str]) -> None:
        self._happened = happened

    def began(self, mark: Mark) -> None:
        if mark.name == "compile ahead":
            time.sleep(0.05)

    def ended(self, mark: Mark) -> None:
        if mark.name == "compile ahead":
            self._happened.append("compiled")


@pytest.mark.skipif(engine_is_plain(), reason="the plain engine keeps no code")
def test_no_run_is_measured_beside_what_another_left_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    not_yet_compiled = Tool.from_source(MARKED_TOOL.source_code + "\n# never run before\n")
    monkeypatch.setattr(breakdown_module, "MARKED_TOOL", not_yet_compiled)
    with listening(SlowCompiler(happened)):
        take_breakdown(3, happened.append)

    assert happened[:4] == ["breakdown: run 1 of 5", "breakdown: run 2 of 5", "compiled", "breakdown: run 3 of 5"]


# --- The picture ----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")
def test_a_plot_is_an_svg_with_every_contender(report: Report, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "figures.svg"
    draw(report, file)
    picture = file.read_text()
    for text in ("wasm-sandbox", "another", "2.00 ms", "log scale"):
        assert text in picture


def test_a_plot_without_matplotlib_says_what_to_install(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PlotUnavailable, match=r"pip install 'wasm-sandbox\[plot\]'"):
        draw(report, tmp_path / "figures.svg")
    done = CliRunner().invoke(cli, ["bench", "--plot", str(tmp_path / "figures.svg")], standalone_mode=False)
    assert "wasm-sandbox[plot]" in str(done.exception)


def test_a_plot_of_an_unknown_kind_is_refused(report: Report, tmp_path: Path) -> None:
    with pytest.raises(PlotUnavailable, match=r"ends in \.pdf, \.png, \.svg"):
        draw(report, tmp_path / "figures.jpeg")
