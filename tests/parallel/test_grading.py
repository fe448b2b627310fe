"""`examples/grade.py`: verdicts by fuel, the same on a busy machine, and bad lines named by their numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]

CHECK = "def check(candidate):\n    assert candidate() == 5\n"


def line_of(solution: str, **others: Any) -> str:
    return json.dumps({"prompt": "def f():\n", "solution": solution, "test": CHECK, "entry_point": "f", **others})


def grade(directory: Path, lines: list[str], *options: str) -> tuple[int, list[dict[str, Any]], str, str]:
    """Run the program; its status, verdicts, summary, and what it says on standard error."""
    problems, verdicts = directory / "problems.jsonl", directory / "verdicts.jsonl"
    problems.write_text("\n".join(lines) + "\n")
    command = [
        sys.executable,
        str(ROOT / "examples/grade.py"),
        str(problems),
        str(verdicts),
        "--workers",
        "2",
        *options,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, [json.loads(line) for line in verdicts.read_text().splitlines()], done.stdout, done.stderr


def test_each_way_to_end_has_its_verdict(tmp_path: Path) -> None:
    solutions = {
        "    return 5\n": "passed",
        "    return 6\n": "failed",
        "    raise SystemExit(0)\n": "failed",
        "    return (\n": "failed",
        "    while True: pass\n": "out_of_fuel",
        "    return len([0] * 10**9)\n": "out_of_memory",
        "    return 1 / 0\n": "failed",
        "    return 5 # again\n": "passed",
    }
    status, verdicts, summary, errors = grade(tmp_path, [*map(line_of, solutions)], "--fuel", "300000000")
    assert (status, errors) == (0, "")
    assert [found["verdict"] for found in verdicts] == list(solutions.values())
    assert [found["line"] for found in verdicts] == list(range(1, 9))
    assert summary == "8 problems: failed 4, out_of_fuel 1, out_of_memory 1, passed 2\n"


def test_bad_lines_are_named_by_number_and_the_others_are_graded(tmp_path: Path) -> None:
    good = line_of("    return 5\n", task_id="x/1", verdict="mine")
    bad = ["{", "[]", "5", '{"prompt": "x"}', line_of("", entry_point="a b"), line_of("", test=5), "[" * 100_000]
    status, verdicts, summary, errors = grade(tmp_path, [bad[0], good, "", *bad[1:], good])
    assert status == 1
    assert [(found["line"], found["verdict"]) for found in verdicts] == [
        (1, "bad_line"),
        (2, "passed"),
        *((number, "bad_line") for number in range(4, 10)),
        (10, "passed"),
    ]
    assert (verdicts[1]["task_id"], verdicts[-1]["task_id"]) == ("x/1", "x/1")
    assert summary == "2 problems: bad_line 7, passed 2\n"
    shown = errors.splitlines()
    assert [line.split(":")[1] for line in shown] == ["1", "4", "5", "6", "7", "8", "9"]
    assert "'solution' is missing" in shown[3]
    assert "'entry_point' must be the name of a function" in shown[4]
    assert "'test' must be a text" in shown[5]


def test_a_deadline_is_the_last_resort_and_told_apart(tmp_path: Path) -> None:
    loop = line_of("    while True: pass\n")
    status, verdicts, summary, _ = grade(tmp_path, [loop], "--fuel", str(10**15), "--deadline", "0.5")
    assert (status, summary) == (3, "1 problems: undecided 1\n")
    assert verdicts[0]["message"].startswith("timeout: ")


def test_verdicts_and_fuel_are_the_same_on_a_busy_machine(tmp_path: Path) -> None:
    heavy = "    import random, time\n    total = 0\n    for i in range({}):\n        total += i\n    return 5\n"
    lines = [line_of(heavy.format(count)) for count in (1, 10**4, 10**5, 10**6, 3 * 10**6, 10**7)]
    _, quiet, _, _ = grade(tmp_path, lines, "--fuel", "300000000")
    burning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(6)]
    try:
        _, busy, _, _ = grade(tmp_path, lines, "--fuel", "300000000")
    finally:
        for process in burning:
            process.kill()
            process.wait()
    assert busy == quiet
    assert {found["verdict"] for found in quiet} == {"passed", "out_of_fuel"}
