"""Locks and marks of a process, in the child of a fork."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.forks import forking, kinds_of_fork
from wasm_sandbox.forks import Condition

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

HELD = """
import os, threading
from wasm_sandbox.forks import process_lock
lock = process_lock({options})
held, over = threading.Event(), threading.Event()
guarded = "whole"
def hold():
    global guarded
    with lock:
        guarded = "half"
        held.set()
        over.wait({seconds})
        guarded = "whole"
holder = threading.Thread(target=hold, daemon=True)
holder.start()
held.wait()
child = os.fork()
if child == 0:
    is_free = lock.acquire(timeout=5)
    os.write(1, f"child {{is_free}} {{guarded}}\\n".encode())
    os._exit(0)
os.waitpid(child, 0)
over.set()
holder.join()
print("parent", lock.acquire(timeout=5), guarded)
"""


def said(options: str, seconds: float) -> list[str]:
    program = HELD.format(options=options, seconds=seconds)
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()


def test_a_lock_that_a_thread_of_the_parent_holds_is_free_in_the_child() -> None:
    assert said("", seconds=30) == ["child True half", "parent True whole"]


def test_a_fork_can_wait_until_what_a_lock_guards_is_whole() -> None:
    assert said("fork_waits=True", seconds=0.3) == ["child True whole", "parent True whole"]


def test_a_signal_handler_can_fork_while_its_thread_holds_a_lock() -> None:
    program = """
import os, signal, threading
from wasm_sandbox.forks import process_lock
lock = process_lock(fork_waits=True)
def fork(*_):
    if os.fork() == 0:
        threading.Timer(20, os._exit, [1]).start()
signal.signal(signal.SIGALRM, fork)
parent = os.getpid()
with lock:
    os.kill(parent, signal.SIGALRM)
taken = []
other = threading.Thread(target=lambda: taken.append(lock.acquire(timeout=5)))
other.start()
other.join()
os.write(1, f"{'parent' if os.getpid() == parent else 'child'} {taken}\\n".encode())
if os.getpid() == parent:
    os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
os._exit(0)
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert sorted(done.stdout.splitlines()) == ["child [True]", "parent [True]"]


MARKED = """
from wasm_sandbox.forks import ForkMark
mark, other = ForkMark(), ForkMark()
assert not mark.is_set
mark.set()
{before}
parent = os.getpid()
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
child = fork()
if child == 0:
    say("child", mark.is_set, other.is_set, os.getpid() == parent)
    mark.set()
    say("child", mark.is_set)
    os._exit(0)
os.waitpid(child, 0)
say("parent", mark.is_set, other.is_set)
"""


@pytest.mark.parametrize("has_same_id", [False, True], ids=["of another id", "of the same id"])
@pytest.mark.parametrize("kind", kinds_of_fork())
def test_a_mark_is_its_own_processs_however_that_forks(kind: str, has_same_id: bool) -> None:
    command = forking(MARKED.format(before=""), kind, has_same_id)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == [f"child False False {has_same_id}", "child True", "parent True False"]


@pytest.mark.parametrize("has_same_id", [False, True], ids=["of another id", "of the same id"])
def test_a_mark_holds_where_the_system_has_no_page_for_it(has_same_id: bool) -> None:
    command = forking(MARKED.format(before="mark._page = other._page = None"), "the interpreter's", has_same_id)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == [f"child False False {has_same_id}", "child True", "parent True False"]


def test_a_wait_that_is_interrupted_right_after_it_let_go_of_the_lock_raises_what_interrupted_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Alarm(BaseException):
        pass

    changed = Condition()
    let_go = changed._release_save  # type: ignore[attr-defined]

    def interrupted() -> None:
        let_go()
        raise Alarm

    monkeypatch.setattr(changed, "_release_save", interrupted)
    with pytest.raises(Alarm), changed:
        changed.wait()
    assert changed.acquire(blocking=False)
    changed.release()
