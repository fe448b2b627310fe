"""Host's end of the channel of a guest in a worker: requests, read as hostile, served on threads of their own.

Who reads what a worker says never serves a call itself: a function that blocks must delay neither the news of the
run's end nor that of the worker's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TypeVar

from wasm_sandbox.engine import GuestThreads
from wasm_sandbox.request import OUTPUT, Answer, NetworkOperation, Peer, Tap
from wasm_sandbox.workers import messages

T = TypeVar("T")

_TAKEN = Answer(0, 0, b"")

_WRITTEN_SECONDS = 0.1
"""Time for an answer that the worker has read already to be known as written."""


# Guarantees:
# - one request of a run is served at a time, in the order in which they came; a worker that sends another meanwhile
#   is refused;
# - after `close` nothing is answered, and no wait of the run's goes on. What blocks in a function keeps its thread.
# Locks: `_lock` guards the flags, and tells that an answer is written; only `kill` is called while it is held.
class Serving:
    """Requests of one run on a worker.

    Args:
        run: number of the run on this worker.
        peer: other end of the guest's channel.
        threads: threads to serve on.
        write: writes a message to the worker.
        held: keeps the run's time from passing, while the deadline does not count what the host does.
        kill: kills the worker, for a defect of the host's or because it does not read.
        tap: listener to what the guest writes, if there is one.
    """

    def __init__(
        self,
        run: int,
        peer: Peer,
        threads: GuestThreads,
        write: Callable[[bytes, bytes], None],
        held: Callable[[], AbstractContextManager[None]],
        kill: Callable[[], None],
        tap: Tap | None = None,
    ) -> None:
        self._run, self._peer, self._threads, self._write, self._kill = run, peer, threads, write, kill
        self._tap = tap
        self._held = held if peer.holds_deadline else nullcontext
        self._lock = threading.Condition()
        self._is_busy = self._is_over = False
        self._writing: messages.Called | None = None
        self.failure: BaseException | None = None
        """Defect of the host's that ended the run."""

    @property
    def max_request_bytes(self) -> int:
        """Most bytes of the next request."""
        return self._peer.max_request_bytes

    def ask(self, request: messages.Called, payload: bytes) -> None:
        """Take a request of the worker's, to be answered on another thread.

        Raises:
            MessageError: if it is of another run, or came before the last one was answered.
            HostError: if the system gives no thread.
        """
        if request.run != self._run:
            raise messages.MessageError("a request of a run that has ended")
        with self._lock:
            if self._is_busy:
                raise messages.MessageError("a request before the last one was answered")
            self._is_busy = True

        def serve(deliver: Callable[[None], None]) -> None:
            self._serve(request, payload)
            deliver(None)

        self._threads.submit(serve)

    def _serve(self, request: messages.Called, payload: bytes) -> None:
        try:
            answer = self._answer(request, payload)
        except BaseException as error:  # a defect of the host's, which whoever waits for the outcome hears of
            self.failure = error
            self._kill()
            return
        with self._lock:
            if self._is_over:
                return
            self._is_busy, self._writing = False, request
        with suppress(OSError, ValueError):  # the worker has gone
            self._write(*messages.encode_answer(self._run, answer))
        with self._lock:
            if self._writing is request:  # and not the next one already
                self._writing = None
                self._lock.notify_all()

    def _answer(self, request: messages.Called, payload: bytes) -> Answer:
        if self._tap is not None:
            self._tap.begin(self._wait)
            if request.op == OUTPUT and request.too_long is None:
                self._tap.output(request.ident, payload)
                return _TAKEN
        with self._held() if request.op < NetworkOperation.OPEN else nullcontext():
            if request.too_long is not None:
                return self._peer.refuse(request.ident, request.too_long, self._wait)
            return self._peer.handle(request.op, request.ident, payload, self._wait)

    def _wait(self, ready: Callable[[], T | None], seconds: float, changed: threading.Condition) -> T | None:
        end = time.monotonic() + seconds
        with changed:
            while (found := ready()) is None and not self._is_over and (left := end - time.monotonic()) > 0:
                changed.wait(min(left, threading.TIMEOUT_MAX))
        return found

    def close(self) -> None:
        """End what is under way; the run is over."""
        with self._lock:
            self._is_over = True
            if not self._lock.wait_for(lambda: self._writing is None, _WRITTEN_SECONDS):
                self._kill()  # it said that the run has ended, and does not read
        self._peer.close()
