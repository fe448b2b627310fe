"""The workers of an executor: one thread here for each process there, which hands it chunks one after the other."""

from __future__ import annotations

import pickle
import threading
import weakref
from collections import deque
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import Any

from wasm_sandbox.errors import pass_on
from wasm_sandbox.forks import process_lock, start_thread
from wasm_sandbox.parallel.worker import LEAVE, Answer, Answers, Chunk, serve

ATTEMPTS = 3
"""Workers that may die of one row, or before they are ready, until it is given up."""

_STOP_SECONDS = 5.0

# Guarantees: no process is forked while a pipe has both ends open here, so that each end has one owner, and the death
# of either side is the end of the file for the other. A program that ends without a shutdown ends after the jobs that
# wait, as with the standard executors: the threads of crews are waited for, and `_closer`, which is not, closes the
# crews when the main thread is through. Locks: `_starting` is held while a process or the closer is started.
_starting = process_lock()
_open_pipes: weakref.WeakSet[Connection] = weakref.WeakSet()
_crews: weakref.WeakSet[Crew] = weakref.WeakSet()
_closer: threading.Thread | None = None


def _close_at_exit(crew: Crew) -> None:
    """Close a crew when the main thread ends."""
    global _closer  # noqa: PLW0603 - there is one of a process, and none in the child of a fork
    with _starting:
        _crews.add(crew)
        if _closer is None or not _closer.is_alive():
            _closer = threading.Thread(target=_close_all, daemon=True, name="wasm-sandbox-closer")
            start_thread(_closer)


def _close_all() -> None:
    threading.main_thread().join()
    for crew in [*_crews]:
        crew.close(wait=False, cancel=False)


class _Died(Exception):
    """The worker's process ended, and not because it was told to; the message says how."""


class _Worker:
    """One worker process.

    Raises:
        _Died: if it ends before it is ready.
        BrokenProcessPool: if it says why it cannot start.
    """

    def __init__(self, context: Any, setup: bytes) -> None:
        with _starting:
            self._pipe, there = context.Pipe()
            of_others = [*_open_pipes, self._pipe] if context.get_start_method() == "fork" else []
            _open_pipes.add(self._pipe)
            try:
                self._process = context.Process(
                    target=serve, args=(there, of_others, setup), daemon=True, name="wasm-sandbox-worker"
                )
                self._process.start()
            except BaseException:
                self._pipe.close()
                raise
            finally:
                there.close()
        self.is_ready = False

    def wait_until_ready(self) -> None:
        """Wait until it has loaded its engine; raises as the class says."""
        error = pickle.loads(self._receive())
        if error is not None:
            raise BrokenProcessPool(f"a worker process cannot start: {error}") from error
        self.is_ready = True

    @property
    def pid(self) -> int:
        """Process id."""
        return int(self._process.pid or 0)

    def ask(self, message: bytes) -> Answers | BaseException:
        """Let it run a pickled chunk; what became of it, or why it could not be read there.

        Raises:
            _Died: if the process ends meanwhile.
        """
        try:
            self._pipe.send_bytes(message)
        except OSError as error:
            raise self._death() from error
        answer: Answers | BaseException = pickle.loads(self._receive())
        return answer

    def _receive(self) -> bytes:
        try:
            data: bytes = self._pipe.recv_bytes()
        except (EOFError, OSError) as error:
            raise self._death() from error
        return data

    def _death(self) -> _Died:
        self._process.join(_STOP_SECONDS)
        code = self._process.exitcode
        how = f"was ended by signal {-code}" if code is not None and code < 0 else f"exited with status {code}"
        return _Died(f"worker process {self.pid} {how}")

    def kill(self) -> None:
        """End the process now; whoever waits for an answer gets `_Died`."""
        with suppress(ValueError):  # it has left meanwhile
            self._process.kill()

    def close(self) -> None:
        """Let it leave, and wait until it has; kill it if it does not."""
        with suppress(OSError):  # it is gone already
            self._pipe.send_bytes(LEAVE)
        self._process.join(_STOP_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()
        self._process.close()


class Job:
    """Pickled chunk that is to be run.

    Args:
        message: the chunk.
        is_single: whether its future is that of its only row, and ends with its result or exception; otherwise it ends
            with `Answers`.
    """

    __slots__ = ("future", "is_single", "message")

    def __init__(self, message: bytes, is_single: bool) -> None:
        self.message = message
        self.is_single = is_single
        self.future: Future[Any] = Future()

    def deliver(self, answers: Answers) -> None:
        """End the future."""
        if not self.is_single:
            self.future.set_result(answers)
        elif (error := answers.rows[0].error) is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(answers.rows[0].result)


# Guarantees:
# - each job that was added is run, is cancelled while it waits, or ends with `BrokenProcessPool`: none is forgotten;
# - a row is tried again, alone, if its worker died: others of its chunk are not lost with it;
# - a thread has one worker, and a worker one thread.
# Locks: `_changed` guards the jobs that wait, the workers, and what is to become of the crew; it is never held while a
# process is started or waited for, nor while a future is resolved, whose callbacks are the caller's.
class Crew:
    """Workers that take jobs from one queue; they are started as they are needed.

    Args:
        context: of `multiprocessing`; says how processes are started.
        size: most workers.
        setup: pickled `Sandbox` for them.
    """

    def __init__(self, context: BaseContext, size: int, setup: bytes) -> None:
        self._context = context
        self._size = size
        self._setup = setup
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._threads: list[threading.Thread] = []
        self._workers: set[_Worker] = set()
        self._idle = 0
        self._closed = False
        self._broken: BrokenProcessPool | None = None
        _close_at_exit(self)

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that are ready."""
        with self._changed:
            return sorted(worker.pid for worker in self._workers if worker.is_ready)

    def add(self, job: Job) -> None:
        """Add a job to the queue.

        Raises:
            BrokenProcessPool: if no worker can be started.
            RuntimeError: if the executor was shut down.
        """
        with self._changed:
            if self._broken is not None:
                raise BrokenProcessPool(str(self._broken)) from self._broken
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._waiting.append(job)
            if self._idle < len(self._waiting) and len(self._threads) < self._size:
                thread = threading.Thread(target=self._serve, daemon=False, name="wasm-sandbox-crew")
                try:
                    start_thread(thread)
                    self._threads.append(thread)
                except (RuntimeError, MemoryError) as error:
                    pass_on(error)
                    if not self._threads:  # or one of them takes it
                        self._waiting.remove(job)
                        raise BrokenProcessPool(f"no thread can be started for a worker process: {error}") from error
            self._changed.notify()

    def close(self, wait: bool, cancel: bool) -> None:
        """Take no more jobs; the workers leave when the queue is empty."""
        with self._changed:
            self._closed = True
            dropped = self._take_all() if cancel else []
            self._changed.notify_all()
        for job in dropped:
            job.future.cancel()
        if wait:
            for thread in self._threads:
                thread.join()

    def kill(self) -> None:
        """End everything now: jobs that wait are cancelled, those that run end with `BrokenProcessPool`."""
        self._break(BrokenProcessPool("the worker processes were killed"), cancel=True)
        with self._changed:
            workers = list(self._workers)
        for worker in workers:
            worker.kill()

    def _take_all(self) -> list[Job]:
        jobs = list(self._waiting)
        self._waiting.clear()
        return jobs

    def _break(self, error: BrokenProcessPool, cancel: bool = False) -> None:
        with self._changed:
            self._closed = True
            self._broken = self._broken or error
            dropped = self._take_all()
            self._changed.notify_all()
        for job in dropped:
            if cancel:
                job.future.cancel()
            elif job.future.set_running_or_notify_cancel():
                job.future.set_exception(error)

    def _next(self) -> Job | None:
        """The next job; None when there will be none."""
        with self._changed:
            self._idle += 1
            try:
                while not self._waiting:
                    if self._closed:
                        return None
                    self._changed.wait()
                return self._waiting.popleft()
            finally:
                self._idle -= 1

    def _serve(self) -> None:
        """One thread: run jobs on a worker of its own, and on the next one if it dies."""
        seat = _Seat(self)
        try:
            while (job := self._next()) is not None:
                if not job.future.set_running_or_notify_cancel():
                    continue
                try:
                    answers = seat.answers(job.message)
                except BaseException as error:
                    broken = error if isinstance(error, BrokenProcessPool) else BrokenProcessPool(str(error))
                    self._break(broken)
                    job.future.set_exception(broken)
                else:
                    job.deliver(answers)
                del job  # its result is the caller's, and not kept until the next one
        finally:
            seat.close()

    def start_worker(self) -> _Worker:
        """Start a worker and wait until it is ready; raises as `_Worker`."""
        with self._changed:
            if self._broken is not None:
                raise self._broken
        worker = _Worker(self._context, self._setup)
        with self._changed:
            self._workers.add(worker)
            killed = self._broken is not None
        if killed:
            worker.kill()
        try:
            worker.wait_until_ready()
        except BaseException:
            self.dismiss(worker)
            raise
        return worker

    def dismiss(self, worker: _Worker) -> None:
        """Let a worker leave, or take away what is left of it."""
        with self._changed:
            self._workers.discard(worker)
        worker.close()

    @property
    def is_killed(self) -> bool:
        """Whether no worker is to be started any more."""
        with self._changed:
            return self._broken is not None


class _Seat:
    """Place of one worker after the other."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._worker: _Worker | None = None

    def answers(self, message: bytes) -> Answers:
        """Run a chunk.

        Raises:
            BrokenProcessPool: if no worker can be started.
        """
        try:
            found = self._ask(message)
        except _Died:
            return self._one_by_one(pickle.loads(message))
        if isinstance(found, BaseException):
            count = len(pickle.loads(message).rows)
            return Answers([Answer(None, found)] * count, 0.0)
        return found

    def _one_by_one(self, chunk: Chunk) -> Answers:
        """Run the rows of a chunk, in whose middle a worker died, apart from each other."""
        first_time = len(chunk.rows) > 1
        rows, seconds = [], 0.0
        for row in chunk.rows:
            answers = self._patiently(chunk._replace(rows=[row]), ATTEMPTS if first_time else ATTEMPTS - 1)
            rows += answers.rows
            seconds += answers.seconds
        return Answers(rows, seconds)

    def _patiently(self, chunk: Chunk, attempts: int) -> Answers:
        message = pickle.dumps(chunk)
        died: _Died | None = None
        for _ in range(attempts):
            try:
                found = self._ask(message)
            except _Died as error:
                died = error
                continue
            return Answers([Answer(None, found)], 0.0) if isinstance(found, BaseException) else found
        given_up = BrokenProcessPool(f"this row was given up, for {ATTEMPTS} workers died of it: the last, {died}")
        return Answers([Answer(None, given_up)], 0.0)

    def _ask(self, message: bytes) -> Answers | BaseException:
        if self._worker is None:
            self._worker = self._started()
        try:
            return self._worker.ask(message)
        except _Died:
            worker, self._worker = self._worker, None
            self._crew.dismiss(worker)
            if self._crew.is_killed:
                raise BrokenProcessPool("the worker processes were killed") from None
            raise

    def _started(self) -> _Worker:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._crew.start_worker()
            except _Died as error:
                if attempt == ATTEMPTS or self._crew.is_killed:
                    raise BrokenProcessPool(
                        f"worker processes end before they are ready, the last: {error}; where processes are spawned, "
                        "the main program must guard what it does with if __name__ == '__main__'"
                    ) from error
        raise AssertionError  # the last attempt returns or raises

    def close(self) -> None:
        """Let the worker leave."""
        if self._worker is not None:
            self._crew.dismiss(self._worker)
