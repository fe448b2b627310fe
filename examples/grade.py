"""Grade solutions of programming problems on all cores: python examples/grade.py PROBLEMS.jsonl VERDICTS.jsonl

Each line of PROBLEMS is a JSON object with the texts ``prompt``, ``solution``, ``test`` and ``entry_point``, in
HumanEval's shape: the test defines ``check(candidate)``, which raises for a wrong one. Other fields, such as
``task_id``, are copied. Each line of VERDICTS has the number of its line, a verdict and a message.

Fuel ends a solution that computes for too long, and not the clock, and guests are deterministic: a verdict is the same
on a busy machine. A deadline is the last resort, for what spends time without fuel; its verdict is one of its own,
``undecided``, and not ``out_of_fuel``. A solution that searches for its grader inside its own guest can find it, as with any
grader that runs a test beside the solution; it cannot get out of the guest.

The exit status is 0, or 1 if a line is bad, or 3 if a problem is undecided.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any, BinaryIO

from wasm_sandbox import ErrorKind, Limits, Tool, ToolExecutionResult
from wasm_sandbox.parallel import SandboxExecutor

MOST_LINE_BYTES = 8 << 20
PARTS = ("prompt", "solution", "test", "entry_point")
OWN = ("line", "verdict", "message", "fuel")
"""Fields that verdicts have of their own."""
VERDICTS = {
    ErrorKind.OUT_OF_FUEL: "out_of_fuel",
    ErrorKind.OUT_OF_MEMORY: "out_of_memory",
    ErrorKind.TIMEOUT: "undecided",
    ErrorKind.CANCELLED: "undecided",
}

GRADE = Tool.from_source(
    '''
def grade(program: str) -> bool:
    """Run a problem's program, which raises unless the solution passes its test."""
    namespace = {"__name__": "solution"}
    try:
        exec(compile(program, "solution.py", "exec"), namespace)
    except SystemExit as error:
        raise RuntimeError(f"the solution exits ({error.code})") from None
    return True
'''
)


class BadLine(Exception):
    """A line that is no problem; the message says why."""


def problem_of(line: bytes) -> dict[str, Any]:
    """Read a line.

    Raises:
        BadLine: if it is no problem.
    """
    if len(line) > MOST_LINE_BYTES:
        raise BadLine(f"the line has more than {MOST_LINE_BYTES} bytes")
    try:
        problem = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadLine(f"the line is no JSON: {error}") from None
    if not isinstance(problem, dict):
        raise BadLine(f"the line must be a JSON object, not {type(problem).__name__}")
    for part in PARTS:
        if not isinstance(problem.get(part), str):
            raise BadLine(f"{part!r} must be a text" if part in problem else f"{part!r} is missing")
    if not problem["entry_point"].isidentifier():
        raise BadLine(f"'entry_point' must be the name of a function, not {problem['entry_point'][:50]!r}")
    return problem


def program_of(problem: dict[str, Any]) -> str:
    """Program that raises unless the solution passes."""
    return f"{problem['prompt']}{problem['solution']}\n\n{problem['test']}\n\ncheck({problem['entry_point']})\n"


def verdict_of(result: ToolExecutionResult) -> dict[str, Any]:
    """Verdict on one solution."""
    fuel = result.usage.fuel if result.usage else None
    if result.error is None:
        return {"verdict": "passed", "message": "", "fuel": fuel}
    verdict = VERDICTS.get(result.error.kind, "failed")
    name = result.error.exception_name or result.error.kind.value
    return {"verdict": verdict, "message": f"{name}: {result.error.message}"[:500], "fuel": fuel}


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """Lines of a file, of which one that is too long is cut."""
    while line := file.readline(MOST_LINE_BYTES + 1):
        rest = line
        while len(rest) > MOST_LINE_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(MOST_LINE_BYTES + 1)
        yield line


def graded(file: BinaryIO, executor: SandboxExecutor, progress: bool = False) -> Iterator[dict[str, Any]]:
    """Verdicts on the lines of a file, in their order; empty lines are left out."""
    problems: list[dict[str, Any]] = []  # read, and without a verdict

    def rows() -> Iterator[dict[str, str]]:
        for number, line in enumerate(lines_of(file), 1):
            if not line.strip():
                continue
            try:
                problem = problem_of(line)
            except BadLine as error:
                problems.append({"line": number, "verdict": "bad_line", "message": str(error)})
                continue
            kept = {name: value for name, value in problem.items() if name not in PARTS + OWN}
            problems.append({**kept, "line": number, "entry_point": problem["entry_point"]})
            yield {"program": program_of(problem)}

    results = executor.map(GRADE, rows(), progress=progress)
    while True:
        try:
            verdict = verdict_of(next(results))
        except StopIteration:
            break
        except BrokenExecutor as error:  # the system killed the worker, and those that tried again: not the solution's word
            verdict = {"verdict": "undecided", "message": str(error), "fuel": None}
        while "verdict" in problems[0]:
            yield problems.pop(0)
        yield problems.pop(0) | verdict
    yield from problems


def main() -> int:
    parser = argparse.ArgumentParser(description="Grade solutions of programming problems on all cores.")
    parser.add_argument("problems", type=Path, help="JSON lines: prompt, solution, test, entry_point")
    parser.add_argument("verdicts", type=Path, help="is written: one JSON line for each problem")
    parser.add_argument("--workers", type=int, default=None, help="processes (default: one for each core)")
    parser.add_argument("--fuel", type=int, default=2_000_000_000, help="work that one solution may take (default: 2e9)")
    parser.add_argument("--deadline", type=float, default=600.0, help="seconds; the last resort (default: 600)")
    parser.add_argument("--progress", action="store_true", help="show a bar on standard error")
    arguments = parser.parse_args()
    limits = Limits(fuel=arguments.fuel, timeout_seconds=arguments.deadline, deterministic=True)
    counts: Counter[str] = Counter()
    with (
        arguments.problems.open("rb") as problems,
        arguments.verdicts.open("w", encoding="utf-8") as verdicts,
        SandboxExecutor(arguments.workers, limits=limits) as executor,
    ):
        for verdict in graded(problems, executor, arguments.progress):
            verdicts.write(json.dumps(verdict) + "\n")
            counts[verdict["verdict"]] += 1
            if verdict["verdict"] == "bad_line":
                print(f"{arguments.problems}:{verdict['line']}: {verdict['message']}", file=sys.stderr)
    graded_count = counts.total() - counts["bad_line"]
    print(f"{graded_count} problems: " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    return 1 if counts["bad_line"] else 3 if counts["undecided"] else 0


if __name__ == "__main__":
    sys.exit(main())
