"""A worker process: it loads an image, gives up what it does not need, and runs one guest after the other."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, NoReturn

from wasm_sandbox.engine import CallOfKept, Checkpoint, GuestEngine, ImageSource, process_engine, surroundings_for
from wasm_sandbox.images import source_at
from wasm_sandbox.limits import Limits
from wasm_sandbox.outcome import Outcome
from wasm_sandbox.request import ExecutionRequest
from wasm_sandbox.workers import messages
from wasm_sandbox.workers.relay import Relay
from wasm_sandbox.workers.restriction import restrict

MAX_REQUEST_BYTES = 1 << 32


def main() -> NoReturn:
    """Serve requests until the host closes its end; ends at once when the host does, however it ended.

    The arguments of the process are the id of the image, and its address.
    """
    requests, replies = _take_streams()
    try:
        engine = process_engine()
        source = source_at(sys.argv[2:], sys.argv[1])
        limits = _limits_of_trials(engine, source)
        # What is loaded or made lazily is there now: later it could not be. This guest ends at its first instruction,
        # for what is in an image may be of others: none of it runs before the worker is restricted.
        _try(engine, source, limits.model_copy(update={"fuel": 1}))
        engine.settle()
        taken = restrict()
        _try(engine, source, limits)
    except BaseException as error:
        _fail(replies, error)
        os._exit(1)
    _write(replies, *messages.encode_ready(taken.done, taken.lacking))
    _silence_errors()
    relay: Relay | None = None
    while True:
        try:
            order = messages.decode_order(*messages.read_message(requests, MAX_REQUEST_BYTES, MAX_REQUEST_BYTES))
        except EOFError:
            os._exit(0)
        if isinstance(order, messages.Answered):
            if relay is not None:
                relay.give(order.run, order.answer)
            continue
        # This thread goes on reading: that is how it gets answers, and notices the end of the host.
        replied, request = _Replies(replies), order.request
        relay = Relay(order.run, request.limits, replied.send) if order.has_channel else None
        request = request._replace(peer=relay, tap=relay if order.is_tapped else None)
        if order.rest is not None:
            visited = engine.visit(source, request, CallOfKept(request.limits), order.rest)
            visited.add_done_callback(partial(replied.end_visit, order.rest.point))
            continue
        future = engine.start(request, surroundings_for(request.limits), source)
        future.add_done_callback(replied.end)


def _take_streams() -> tuple[Any, Any]:
    """The pipes from and to the host, which came as standard input and output, for nobody else to use."""
    requests, replies = (os.fdopen(os.dup(fd), mode, buffering=0) for fd, mode in ((0, "rb"), (1, "wb")))
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    os.close(null)
    return requests, replies


def _silence_errors() -> None:
    """Standard error is the host's own: a worker says there why it could not start, and nothing later."""
    os.dup2(1, 2)


def _limits_of_trials(engine: GuestEngine, source: ImageSource) -> Limits:
    """Limits within which the image can run; it is loaded now."""
    limits = Limits()
    return limits.model_copy(update={"memory_bytes": max(limits.memory_bytes, engine.image(source).needed_bytes)})


def _try(engine: GuestEngine, source: ImageSource, limits: Limits) -> None:
    for script in ("print(1)", "raise ValueError", "import os; os._exit(1)"):
        engine.start(ExecutionRequest(script, {}, limits), surroundings_for(limits), source).result()


# Guarantees: each message is whole, and the outcome is the last one of its run: the watchdog may deliver it while the
# guest is about to ask something. Locks: `_lock`, held while a message is written, which the host always reads.
class _Replies:
    """What is said of one run."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._lock, self._is_over = stream, threading.Lock(), False

    def send(self, head: bytes, body: bytes) -> None:
        """Send what the guest asks, unless the run has ended."""
        with self._lock:
            if not self._is_over:
                _write(self._stream, head, body)

    def end(self, future: Future[Outcome]) -> None:
        """Send the outcome."""
        self._end(lambda: [messages.encode_outcome(future.result())])

    def end_visit(self, before: Checkpoint | None, future: Future[tuple[Outcome, Checkpoint | None]]) -> None:
        """Send the outcome, and the guest's checkpoint if it can be called again.

        Args:
            before: checkpoint that the host has.
            future: both of them.
        """

        def both() -> list[tuple[bytes, bytes]]:
            outcome, point = future.result()
            if point is None:
                return [messages.encode_outcome(outcome)]
            return [messages.encode_outcome(outcome), messages.encode_point(point, before)]

        self._end(both)

    def _end(self, encoded: Callable[[], list[tuple[bytes, bytes]]]) -> None:
        try:
            last = encoded()
        except BaseException as error:  # for want of memory, too: the host must not wait for ever
            last = [messages.encode_failure(error)]
        with self._lock:
            self._is_over = True
            for message in last:
                _write(self._stream, *message)


def _fail(replies: Any, error: BaseException) -> None:
    _write(replies, *messages.encode_failure(error))


def _write(replies: Any, head: bytes, body: bytes) -> None:
    try:
        messages.write_message(replies, head, body)
    except OSError:  # the host has gone
        os._exit(0)
