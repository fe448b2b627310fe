"""Rows in, results out, in order: taken lazily, sent in chunks, and never more on the way than the workers need."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any, Protocol

from wasm_sandbox import ToolExecutionResult
from wasm_sandbox.parallel.calls import checked_args
from wasm_sandbox.parallel.worker import Answer, Answers

CHUNK_SECONDS = 0.02
"""Time that a chunk takes if its size is ours to choose: a hundred times a round trip, and no long wait at the end."""
MOST_ROWS = 256
CHUNKS_PER_WORKER = 8
"""Chunks on the way for each worker, if the size of the buffer is ours to choose: a slow one holds up the order, and
the others go on meanwhile."""

Row = Mapping[str, Any]


class Bar(Protocol):
    """Progress that is shown."""

    def advance(self) -> None:
        """Show that one more row is done."""

    def close(self) -> None:
        """Leave the screen as it is."""


class Results(Iterator[ToolExecutionResult]):
    """Results of rows in their order.

    An exception is raised for the row that it belongs to; with ``next`` the iterator goes on after it. Not for several
    threads.

    Args:
        rows: arguments, taken as results are.
        send: sends a chunk of rows, whole or in pieces.
        chunksize: rows of a chunk; None to choose it by the time that rows take.
        buffersize: most rows that are taken before the result of the first of them is; None for no bound but that of
            the chunks.
        chunks: most chunks on the way.
        timeout: seconds from now on after which the next result is not waited for any more; None for no bound.
        bar: progress that is shown.
    """

    def __init__(
        self,
        rows: Iterable[Row],
        send: Callable[[list[Row]], list[Future[Answers]]],
        chunksize: int | None,
        buffersize: int | None,
        chunks: int,
        timeout: float | None,
        bar: Bar | None = None,
    ) -> None:
        self._rows = iter(rows)
        self._send = send
        self._chunksize = chunksize
        self._buffersize = buffersize
        self._chunks = chunks
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._bar = bar
        self._adaptive = 1
        self._number = 0
        self._sent: deque[Future[Answers]] = deque()
        self._on_the_way = 0
        self._done: deque[Answer] = deque()
        self._failure: BaseException | None = None
        self._ended = False
        self._fill()

    def __iter__(self) -> Results:
        return self

    def __next__(self) -> ToolExecutionResult:
        try:
            answer = self._next()
        except BaseException:
            self.close()
            raise
        if self._bar is not None:
            self._bar.advance()
        if answer.error is not None:
            raise answer.error
        assert answer.result is not None
        return answer.result

    def close(self) -> None:
        """Cancel the chunks that wait, and take no more rows."""
        self._ended = True
        for future in self._sent:
            future.cancel()
        self._sent.clear()
        self._done.clear()
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __del__(self) -> None:
        if hasattr(self, "_done"):  # it was made whole
            self.close()

    def _next(self) -> Answer:
        if not self._done:
            if not self._sent:
                self._end()
            self._receive()
        return self._done.popleft()

    def _receive(self) -> None:
        """Wait for the next chunk, and send others for it.

        Raises:
            TimeoutError: if the time is over.
            CancelledError: if it was cancelled, by a shutdown.
        """
        answers = self._sent[0].result(None if self._deadline is None else max(0.0, self._deadline - time.monotonic()))
        self._sent.popleft()
        self._done.extend(answers.rows)
        self._on_the_way -= len(answers.rows)
        if answers.seconds > 0:
            fitting = int(CHUNK_SECONDS * len(answers.rows) / answers.seconds)
            self._adaptive = max(1, min(fitting, self._adaptive * 4, MOST_ROWS))
        self._fill()

    def _end(self) -> None:
        """Raise what the rows themselves raised, else say that there are no more.

        Raises:
            StopIteration: at the end.
        """
        failure, self._failure = self._failure, None
        raise failure if failure is not None else StopIteration

    def _fill(self) -> None:
        while not self._ended and len(self._sent) < self._chunks:
            chunk = self._chunk(self._room())
            if not chunk:
                return
            try:
                self._sent.extend(self._send(chunk))
                self._on_the_way += len(chunk)
            except Exception as error:  # the executor was shut down, or is broken: what was sent comes first
                self._failure, self._ended = error, True

    def _room(self) -> int:
        """Rows that may be taken now."""
        wanted = self._chunksize or self._adaptive
        if self._buffersize is None:
            return wanted
        return min(wanted, self._buffersize - self._on_the_way - len(self._done))

    def _chunk(self, size: int) -> list[Row]:
        """Take rows. What the iterator raises, and a row that is none, end it; the rows before them come first."""
        taken: list[Row] = []
        while len(taken) < size:
            try:
                row = next(self._rows)
                self._number += 1
                taken.append(_checked(row, self._number))
            except StopIteration:
                self._ended = True
                break
            except Exception as error:
                self._failure, self._ended = error, True
                break
        return taken


def _checked(row: Row, number: int) -> Row:
    try:
        return checked_args(row)
    except TypeError as error:
        raise TypeError(f"row {number}: {error}") from None
