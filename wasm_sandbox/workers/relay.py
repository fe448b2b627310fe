"""Worker's end of a guest's channel: its requests go to the host one at a time, and the answers come back."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from wasm_sandbox.limits import Limits
from wasm_sandbox.request import MAX_OWN_BYTES, OUTPUT, Answer, Wait
from wasm_sandbox.workers import messages


# Guarantees: an answer reaches the request that waits for it, and no other run. Locks: `_changed` guards the answer;
# nothing is sent while it is held.
class Relay:
    """Peer and tap of a guest in a worker: those of the host, at the other end of the pipes.

    Args:
        run: number of the run.
        limits: limits of the run.
        send: sends a message of the run, unless that has ended.
    """

    def __init__(self, run: int, limits: Limits, send: Callable[[bytes, bytes], None]) -> None:
        self._run, self._limits, self._send = run, limits, send
        self._changed = threading.Condition()
        self._answer: Answer | None = None
        self._wait: Wait | None = None

    @property
    def max_request_bytes(self) -> int:
        return max(self._limits.host_bytes, MAX_OWN_BYTES)  # the host counts what is left

    @property
    def holds_deadline(self) -> bool:
        return not self._limits.host_time_counts

    def handle(self, op: int, ident: int, payload: bytes, wait: Wait) -> Answer:
        op = op if op != OUTPUT else OUTPUT - 1  # which there is not: a guest writes to its own descriptors
        return self._asked(messages.encode_call(self._run, op, ident, payload), wait)

    def refuse(self, ident: int, size: int, wait: Wait) -> Answer:
        return self._asked(messages.encode_call(self._run, 0, ident, too_long=size), wait)

    def begin(self, wait: Wait) -> None:
        self._wait = wait

    def output(self, fd: int, data: bytes) -> None:
        assert self._wait is not None
        self._asked(messages.encode_call(self._run, OUTPUT, fd, data), self._wait)

    def _asked(self, message: tuple[bytes, bytes], wait: Wait) -> Answer:
        self._answer = None
        self._send(*message)
        answer = wait(lambda: self._answer, math.inf, self._changed)
        assert answer is not None  # a wait without an end ends the guest, or has what it waits for
        return answer

    def give(self, run: int, answer: Answer) -> None:
        """Hand over an answer of the host's; one to an earlier run is dropped."""
        if run == self._run:
            with self._changed:
                self._answer = answer
                self._changed.notify_all()

    def close(self) -> None:
        """Do nothing: the host ends what is under way when it hears of the end."""
