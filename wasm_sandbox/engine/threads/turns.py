"""Round-robin scheduling of guests: at most `AT_ONCE` compute at a time, a quantum of 10 ms each.

More threads than processors only queue for the interpreter lock, and each time one gets it another has to be woken:
64 short runs at once then take twice the time they need. And a thread that loses its processor while it has that lock
keeps everybody waiting until all others that compute have had theirs: a guest's deadline passes meanwhile. So runs
begin in turns, and a guest whose quantum is over is paused (`engine.memory.pausing`) while others wait, until its
next turn. Where guests cannot be paused, one whose quantum is over goes on beside the others.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from wasm_sandbox.engine.threads.watchdog import Watchdog

QUANTUM_SECONDS = 0.01
"""Quantum: the longest that a turn lasts while others wait. A short run takes 3 to 4 ms with `AT_ONCE` others."""

AT_ONCE = (os.cpu_count() or 1) + 1
"""Number of turns under way: one more than processors, for one of them usually waits for the interpreter lock."""


class Pausable(Protocol):
    """A guest that can be paused at its next safepoint."""

    def pause(self) -> None:
        """Let the guest sleep at its next safepoint, until `resume`."""

    def resume(self) -> None:
        """Let a guest that is paused go on."""


class Turn:
    """One run's place in the order of turns."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._first = threading.Lock()
        """Held until the first turn comes."""
        self._first.acquire()
        self.guest: Pausable | None = None

    def wait(self, seconds: float) -> bool:
        """Wait for the first turn; false if it has not come in time."""
        return self._first.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))

    def can_be_paused(self, guest: Pausable) -> None:
        """Give the run a guest that is paused from the end of a quantum to the next turn."""
        self.guest = guest
        self.ask_again()

    def ask_again(self) -> None:
        """Queue for another turn; the guest is paused until it comes."""
        self._turns._ask_again(self)

    def give_up(self) -> None:
        """End the turn, or leave the queue: the run is over or waits for something else."""
        self._turns._give_up(self)

    def come(self) -> None:
        """Let the run go on: its turn has come. The caller has the scheduler's lock."""
        if self.guest is None:
            self._first.release()
        else:
            self.guest.resume()


# Guarantees:
# - who has asked gets a turn: first-time askers and those who ask again alternate, each in the order of asking;
# - a guest that is paused has a place in `_again` and is resumed when its turn comes; one that gives up while it is
#   paused is in a call of the host's on its own thread, and asks again or ends there;
# - whoever gives up is in neither queue nor under way afterwards, and its guest is not paused: a guest that is kept is
#   called again, in another turn.
# Locks, in this order: `_Entry.lock` of the watchdog's look, `_lock`, `PollPage._lock`; and `_lock`,
# `Watchdog._changed`. `_lock` guards the queues and the turns under way; no turn is waited for while it is held.
class Turns:
    """Round-robin scheduler: turns in the order of asking, every other one to a run that asks for its first.

    Args:
        watchdog: timer of the quanta.
        at_once: maximum number of turns under way.
        quantum: longest that one lasts while others wait, in seconds.
    """

    def __init__(self, watchdog: Watchdog, at_once: int = AT_ONCE, quantum: float = QUANTUM_SECONDS) -> None:
        self._watchdog, self._at_once, self._quantum = watchdog, at_once, quantum
        self._lock = threading.Lock()
        self._first: deque[Turn] = deque()
        self._again: deque[Turn] = deque()
        self._begun: dict[Turn, float] = {}  # turns under way and when they began, the oldest first
        self._first_is_next = True
        self._is_watched = False

    @property
    def waiting(self) -> int:
        """Number of runs that wait for their first turn."""
        return len(self._first)

    @property
    def under_way(self) -> int:
        """Number of turns under way."""
        return len(self._begun)

    @contextmanager
    def turn(self, patience: float) -> Iterator[Turn]:
        """Wait for a turn, and have it inside the block, or until its quantum is over.

        Args:
            patience: longest wait in seconds; after that the run goes on without a turn.

        Raises:
            HostError: if the watchdog's thread cannot be started.
        """
        turn = Turn(self)
        try:
            with self._lock:
                self._first.append(turn)
                self._admit()
            if not turn.wait(patience):
                turn.give_up()
            yield turn
        finally:
            turn.give_up()

    def _ask_again(self, turn: Turn) -> None:
        with self._lock:
            if turn.guest is None or turn in self._begun:
                return
            self._again.append(turn)
            self._admit()
            if turn not in self._begun:
                turn.guest.pause()

    def _give_up(self, turn: Turn) -> None:
        with self._lock:
            if self._begun.pop(turn, None) is not None:
                self._admit()
                return
            for waiting in (self._first, self._again):
                if turn in waiting:
                    waiting.remove(turn)
                    if turn.guest is not None:
                        turn.guest.resume()

    def _admit(self) -> None:
        """End turns whose quantum is over, and give the free ones; the caller has the lock."""
        if not (self._first or self._again):
            return
        now = time.monotonic()
        for turn, began in list(self._begun.items()):
            if began + self._quantum > now:
                break
            del self._begun[turn]
            if turn.guest is not None:
                turn.guest.pause()
                self._again.append(turn)
        while len(self._begun) < self._at_once and (self._first or self._again):
            waiting = self._first if self._first and (self._first_is_next or not self._again) else self._again
            self._first_is_next = waiting is not self._first
            turn = waiting.popleft()
            self._begun[turn] = now
            turn.come()
        if (self._first or self._again) and not self._is_watched:
            self._is_watched = True
            self._watchdog.look_at(self._next_end(), self._look)

    def _next_end(self) -> float:
        return next(iter(self._begun.values())) + self._quantum

    def _look(self) -> float | None:
        with self._lock:
            self._admit()
            self._is_watched = bool(self._first or self._again)
            return self._next_end() if self._is_watched else None
