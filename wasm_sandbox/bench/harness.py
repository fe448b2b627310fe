"""Contenders that need a Python of their own: driven over a pipe, one JSON document a line.

The library knows no other sandbox. What does is a *harness*: a program that is started as
``PYTHON HARNESS --list`` and prints one line ``{"contenders": [{"name": …, "version": …, "jobs": {job: note}}],
"absent": [{"contender": …, "reason": …}]}``, or as ``PYTHON HARNESS NAME`` and answers each line ``{"job": …}`` with
``{"seconds": …}``, timed by itself, or ``{"error": …}``. The one of this project is ``benchmarks/peers.py``.
"""

from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from wasm_sandbox.bench.measure import Absent, ContenderFailed

LIST_SECONDS = 60


class HarnessError(Exception):
    """The harness, or the Python that it needs, cannot be used; the message says what to do."""


@dataclass(frozen=True)
class ForeignContender:
    """A job that the other end of a pipe does."""

    job: str
    name: str
    note: str
    process: _Process

    def run_once(self) -> float:
        """Do the job once; the seconds it took, as the harness measured them."""
        answer = self.process.ask({"job": self.job})
        if "seconds" not in answer:
            raise ContenderFailed(str(answer.get("error", "no answer")))
        return float(answer["seconds"])


class ForeignContenders:
    """The contenders of a harness, each in a process of its own; as a context manager it ends them.

    Raises:
        HarnessError: the harness or the Python cannot be used.
    """

    def __init__(self, python: Path, harness: Path) -> None:
        self._python, self._harness = python, harness
        self._exit = ExitStack()
        listing = self._list()
        self.versions = {str(c["name"]): str(c["version"]) for c in listing["contenders"]}
        self.absent = [Absent(str(a["contender"]), str(a["reason"])) for a in listing["absent"]]
        self.contenders: list[ForeignContender] = []
        for found in listing["contenders"]:
            process = self._exit.enter_context(_Process([str(python), str(harness), str(found["name"])]))
            for job, note in found["jobs"].items():
                self.contenders.append(ForeignContender(job, str(found["name"]), note, process))

    def __enter__(self) -> ForeignContenders:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()

    def _list(self) -> dict[str, Any]:
        command = [str(self._python), str(self._harness), "--list"]
        try:
            done = subprocess.run(command, capture_output=True, check=True, timeout=LIST_SECONDS)
            listing: dict[str, Any] = json.loads(done.stdout)
        except OSError as error:
            raise HarnessError(f"{self._python} cannot be started: {error.strerror or error}") from error
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise HarnessError(f"{self._harness} does not run with {self._python}: {said}") from error
        except (ValueError, subprocess.TimeoutExpired) as error:
            raise HarnessError(f"{self._harness} does not list its contenders: {error}") from error
        return listing


class _Process:
    """One running harness."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> _Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, question: dict[str, str]) -> dict[str, Any]:
        """Send a line and wait for the line that answers it."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise ContenderFailed("it has no pipe")
        try:
            stdin.write(json.dumps(question).encode() + b"\n")
            stdin.flush()
            line = stdout.readline()
        except OSError as error:
            raise ContenderFailed(f"its process has gone: {error.strerror}") from error
        if not line:
            raise ContenderFailed(f"its process ended with code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer
