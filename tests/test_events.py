"""Listening to what goes on in a run: every border is marked, and a mark that nobody hears keeps nothing."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from wasm_sandbox import ErrorKind, Tool, run_tool
from wasm_sandbox.events import Mark, is_heard, listening, mark

ADD = Tool.from_source("def add(a: int, b: int) -> int:\n    return a + b\n")


class Heard:
    """Notes what it hears."""

    def __init__(self) -> None:
        self.began_names: list[str] = []
        self.marks: list[Mark] = []

    def began(self, mark: Mark) -> None:
        self.began_names.append(mark.name)

    def ended(self, mark: Mark) -> None:
        self.marks.append(mark)

    @property
    def names(self) -> list[str]:
        return [mark.name for mark in self.marks]


def test_a_run_marks_its_way_through_the_rooms() -> None:
    heard = Heard()
    with listening(heard):
        assert run_tool(ADD, {"a": 1, "b": 2}).func_return == 3
    way = ["script", "submit", "execute", "call", "take", "place", "guest", "deliver", "interpret", "frame", "decode"]
    assert [name for name in heard.began_names if name in way] == way
    assert "fd_write" in [mark.subject for mark in heard.marks if mark.name == "host call"]
    assert all(0 < mark.began_ns <= mark.ended_ns for mark in heard.marks)


def test_the_outcome_is_what_is_delivered() -> None:
    heard = Heard()
    with listening(heard):
        result = run_tool(ADD, {"a": 1, "b": 2})
    (outcome,) = [mark.subject for mark in heard.marks if mark.name == "deliver"]
    assert result.usage is not None
    assert outcome.fuel == result.usage.fuel


def test_nobody_hears_anything_after_leaving() -> None:
    heard, before = Heard(), is_heard()  # spans may be listened for, where an earlier test did
    with listening(heard):
        assert is_heard()
    assert is_heard() is before
    run_tool(ADD, {"a": 1, "b": 2})
    assert [name for name in heard.began_names if name == "script"] == []


def test_an_exception_that_leaves_a_mark_is_on_it_and_goes_on() -> None:
    heard = Heard()
    with listening(heard), pytest.raises(ValueError, match="inside"), mark("part"):
        raise ValueError("inside")
    assert isinstance(heard.marks[0].error, ValueError)


def test_of_several_listeners_the_last_to_begin_is_the_first_to_end() -> None:
    order: list[str] = []

    class Ordered:
        def __init__(self, name: str) -> None:
            self.name = name

        def began(self, mark: Mark) -> None:
            order.append(f"{self.name} began")

        def ended(self, mark: Mark) -> None:
            order.append(f"{self.name} ended")

    with listening(Ordered("a")), listening(Ordered("b")), mark("part"):
        pass
    assert order == ["a began", "b began", "b ended", "a ended"]


def test_whoever_begins_to_listen_in_the_middle_hears_no_half_of_a_mark() -> None:
    heard = Heard()
    with mark("outer"), listening(heard), mark("inner"):
        pass
    assert (heard.began_names, heard.names) == (["inner"], ["inner"])


def test_what_a_listener_raises_goes_on_to_the_run() -> None:
    class Broken(Heard):
        def began(self, mark: Mark) -> None:
            if mark.name == "interpret":
                raise RuntimeError("a defect of the listener")

    with listening(Broken()), pytest.raises(RuntimeError, match="a defect of the listener"):
        run_tool(ADD, {"a": 1, "b": 2})
    assert run_tool(ADD, {"a": 1, "b": 2}).func_return == 3


def test_a_mark_keeps_nothing_alive_after_it() -> None:
    class Big:
        pass

    big = Big()
    gone = weakref.ref(big)
    with mark("part", big) as part:
        part.result = big
    del big, part
    gc.collect()
    assert gone() is None


def test_threads_that_run_at_once_are_heard_whole() -> None:
    heard = Heard()
    with listening(heard), ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: run_tool(ADD, {"a": n, "b": 0}).func_return, range(40)))
    assert results == list(range(40))
    assert heard.names.count("decode") == 40


def test_a_refused_call_is_marked_as_far_as_it_went() -> None:
    heard = Heard()
    with listening(heard):
        result = run_tool(ADD, {"a": {1}, "b": 0})
    assert result.error is not None
    assert result.error.kind is ErrorKind.BAD_ARGUMENTS
    assert "submit" not in heard.names
