"""What a process has one of: made once, closed at exit, and made anew in the child of a fork."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.forks import forking, kinds_of_fork
from wasm_sandbox.forks import PerProcess

PROGRAM = """
import os, sys
from wasm_sandbox.forks import PerProcess
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
one = PerProcess(
    lambda: say("made") or [os.getpid()], lambda it: say("closed", it[0] == os.getpid()), lambda it: say("disowned")
)
one.get()
{then}
"""


def said(then: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(then=then)], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.splitlines()


def test_it_is_made_once_however_many_ask_first() -> None:
    made: list[object] = []

    def make() -> object:
        made.append(object())
        return made[-1]

    one = PerProcess(make, lambda it: None)
    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(lambda _: id(one.get()), range(200)))
    assert (len(found), len(made)) == (1, 1)


def test_what_making_it_raises_is_raised_and_tried_again() -> None:
    answers = iter([ValueError("not now"), None])

    def make() -> int:
        if (error := next(answers)) is not None:
            raise error
        return 5

    one = PerProcess(make, lambda it: None)
    with pytest.raises(ValueError, match="not now"):
        one.get()
    assert one.get() == 5


def test_it_is_closed_at_exit_by_the_process_that_made_it() -> None:
    assert said("") == ["made", "closed True"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_makes_its_own_and_closes_only_that() -> None:
    then = "if os.fork() == 0:\n    one.get()\n    sys.exit()\nos.wait()\nsay('parent')"
    assert said(then) == ["made", "disowned", "made", "closed True", "parent", "closed True"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_that_never_asks_closes_nothing() -> None:
    assert said("if os.fork() == 0: sys.exit()\nos.wait()") == ["made", "disowned", "closed True"]


@pytest.mark.parametrize("has_same_id", [False, True], ids=["of another id", "of the same id"])
@pytest.mark.parametrize("kind", kinds_of_fork())
def test_a_child_makes_its_own_however_it_was_forked_and_whatever_its_id_is(kind: str, has_same_id: bool) -> None:
    then = "if fork() == 0:\n    one.get()\n    one.get()\n    sys.exit()\nos.wait()\none.get()\nsay('parent')"
    command = forking(PROGRAM.format(then=then), kind, has_same_id)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["made", "disowned", "made", "closed True", "parent", "closed True"]
