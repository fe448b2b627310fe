"""Program of `test_interrupted_sessions`: alarms at any moment of what one does with sessions, against a model of them.

The model of a session is the numbers that its counter may be at: one, or two after a call that an alarm interrupted,
which has happened or not. ``python -m tests.sandbox.interrupted_sessions SEED`` ends with a count of the interruptions.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from tests.support.alarms import Alarms
from wasm_sandbox import Limits, Sandbox, Session, SessionPoint, Tool

T = TypeVar("T")

STEPS = 120
MOST_SESSIONS = 5

COUNTS = [
    "n += 1",
    "n += 1\nprint(n)",
    "n = add(n, 1)",
    "n += await later(1)",
    "for _ in range(60_000): pass\nn += 1",
]


def add(a: int, b: int) -> int:
    return a + b


async def later(a: int) -> int:
    return a


TOOL = Tool.from_source("def f(x: int) -> int:\n    return x + 1\n")


class Modelled:
    """Session, what its counter may be at, and points with what it may have been then."""

    def __init__(self, session: Session, may: set[int]) -> None:
        self.session, self.may = session, may
        self.points: list[tuple[SessionPoint, set[int]]] = []

    def check(self) -> None:
        found = self.session.get("n")
        assert found in self.may, f"{found} is none of {self.may}"
        self.may = {found}


class Storm:
    """Alarms, and the sessions that they come in."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.seconds = self.random.choice([0.0004, 0.001, 0.004, 0.02])
        self.box = Sandbox(functions=[add, later], files={})
        self.sessions = [Modelled(self.box.session(), {0})]
        self.sessions[0].session.run_code("n = 0")
        self.dumps: list[tuple[bytes, set[int]]] = []
        self.alarms = Alarms()
        self.acts: list[Callable[[Modelled], None]] = [
            self.count,
            self.count,
            self.count,
            self.fork,
            self.mark,
            self.mark,
        ]
        self.acts += [self.go_back, self.dump, self.load, self.exhaust, self.run_tool]

    def alarmed(self, act: Callable[[], T]) -> T | None:
        """What an act gives, with an alarm soon; None if that came first."""
        return self.alarms.within(self.random.random() * self.seconds + 1e-6, act)

    def step(self) -> None:
        chosen = self.random.choice(self.sessions)
        self.random.choice(self.acts)(chosen)
        if self.random.random() < 0.4:
            chosen.check()
        if self.random.random() < 0.1:
            time.sleep(0.003)  # a checkpoint may be taken meanwhile

    def count(self, chosen: Modelled) -> None:
        code = self.random.choice(COUNTS)
        done = self.alarmed(lambda: chosen.session.run_code(code))
        chosen.may = {n + 1 for n in chosen.may} | (chosen.may if done is None else set())

    def fork(self, chosen: Modelled) -> None:
        self.keep(self.alarmed(chosen.session.fork), chosen.may)

    def keep(self, session: Session | None, may: set[int]) -> None:
        if session is not None and len(self.sessions) < MOST_SESSIONS:
            self.sessions.append(Modelled(session, may))
        elif session is not None:
            session.close()

    def mark(self, chosen: Modelled) -> None:
        chosen.check()
        if (point := self.alarmed(chosen.session.checkpoint)) is not None:
            chosen.points.append((point, chosen.may))

    def go_back(self, chosen: Modelled) -> None:
        if chosen.points:
            point, may = self.random.choice(chosen.points)
            before = self.alarms.interrupted
            self.alarmed(lambda: chosen.session.rollback(point))
            chosen.may = may | (chosen.may if self.alarms.interrupted > before else set())

    def dump(self, chosen: Modelled) -> None:
        if (found := self.alarmed(chosen.session.dump)) is not None:
            self.dumps.append((found, chosen.may))

    def load(self, _: Modelled) -> None:
        if self.dumps:
            found, may = self.random.choice(self.dumps)
            self.keep(self.alarmed(lambda: self.box.load_session(found)), may)

    def exhaust(self, chosen: Modelled) -> None:
        limits = Limits(fuel=2_000_000)
        self.alarmed(lambda: chosen.session.run_code("n += 1000\nwhile True: pass", limits=limits))

    def run_tool(self, chosen: Modelled) -> None:
        self.alarmed(lambda: chosen.session.run_tool(TOOL, {"x": 1}))


def main(seed: int) -> None:
    storm = Storm(seed)
    storm.alarms.start()
    for _ in range(STEPS):
        storm.step()
    storm.alarms.stop()
    for modelled in storm.sessions:
        modelled.check()
    print(storm.alarms.interrupted, flush=True)
    if seed % 2:  # what is left open ends with the process
        for modelled in storm.sessions:
            modelled.session.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
