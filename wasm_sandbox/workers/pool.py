"""The one pool of worker processes of a process: it grows with demand, and replaces a worker that dies."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from wasm_sandbox import errors
from wasm_sandbox.directories import CACHE_VARIABLE, cache_directory
from wasm_sandbox.engine import GuestThreads, PerProcess, Watchdog
from wasm_sandbox.errors import HostError
from wasm_sandbox.outcome import Ending, Outcome, Patience
from wasm_sandbox.request import ExecutionRequest
from wasm_sandbox.switches import ENGINE_VARIABLE, IMAGE_VARIABLE
from wasm_sandbox.workers import messages

MAX_PROCESSES = max(4, 2 * (os.cpu_count() or 1))
"""More runs than this wait for a worker; their deadlines start when they get one."""

OVERDUE_SECONDS = 10.0
"""A worker that does not report this long after its guest's deadline is killed."""

ABANDONED_SECONDS = 0.05
"""So often a run is looked at whose caller may go without saying so."""

EXIT_GRACE_SECONDS = 1.0

_INHERITED = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", ENGINE_VARIABLE)
"""What Python itself may need to start, and what chooses the engine."""

PROGRAM = "from wasm_sandbox.workers.worker import main; main()"
"""What the Python of a worker runs, once it looks for modules where that of its host does."""

_log = logging.getLogger(__name__)


class WorkerProcess:
    """One worker, seen from the host.

    Args:
        program: what its Python runs; it speaks as `messages` says.

    Raises:
        HostError: it cannot be started.
    """

    def __init__(self, program: str = PROGRAM) -> None:
        environ = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environ[CACHE_VARIABLE] = str(cache_directory().absolute())
        if exported := os.environ.get(IMAGE_VARIABLE):
            environ[IMAGE_VARIABLE] = str(Path(exported).expanduser().absolute())
        # A group of its own: Ctrl-C is for the host to handle, which then stops the workers.
        options: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
        # Absolute, for its working directory is another.
        path = [os.path.abspath(place) for place in sys.path if isinstance(place, str)]
        command = f"import sys; sys.path[:] = {path!r}\n{program}"
        try:
            self._process = subprocess.Popen(
                [_python(), "-I", "-X", "utf8", *_lock_options(), "-c", command],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environ,
                cwd=os.path.abspath(os.sep),
                **options,
            )
        except OSError as error:
            raise HostError(f"no worker process can be started: {error.strerror or error}") from error
        self.killed = False
        self.restrictions: list[str] = []
        self.lacking: list[str] = []

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs, and nobody has told it to end."""
        return not self.killed and self._process.poll() is None

    def wait_until_ready(self) -> None:
        """Wait until it has loaded the image, which may have to be prepared.

        Raises:
            HostError: it cannot run guests.
        """
        try:
            reply = messages.decode_reply(messages.read_message(self._process.stdout)[0])
            if isinstance(reply, messages.Ended):
                raise messages.MessageError("a worker ended a run before it had one")
        except (EOFError, OSError, messages.MessageError) as error:
            self.end()
            raise HostError(f"a worker process ended before it was ready ({self.death}) {error}".strip()) from error
        if isinstance(reply, messages.Failed):
            self.end()
            raise _host_error(reply)
        self.restrictions, self.lacking = reply.restrictions, reply.lacking

    def run(self, request: ExecutionRequest) -> Outcome:
        """Run a request.

        Raises:
            EOFError, OSError, MessageError: the worker died, or sends what it should not.
            HostError: the worker failed in something that is not the guest's doing.
        """
        messages.write_message(self._process.stdin, *messages.encode_request(request))
        head, body = messages.read_message(self._process.stdout, max_body=messages.max_output_bytes(request.limits))
        reply = messages.decode_reply(head)
        if isinstance(reply, messages.Failed):
            raise _host_error(reply)
        if not isinstance(reply, messages.Ended):
            raise messages.MessageError("a worker was ready a second time")
        return messages.outcome_of(reply, body, request.limits)

    def kill(self) -> None:
        """End it now; `end` waits for that."""
        self.killed = True
        with suppress(OSError):
            self._process.kill()

    def end(self) -> None:
        """End it, and wait until it has ended."""
        self.kill()
        self._process.wait()
        self.close_pipes()

    def close_pipes(self) -> None:
        """Close the host's ends. They have no buffer, so this never waits for another thread, nor for one that
        the child of a fork does not have."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def disown(self) -> None:
        """In the child of a fork: this worker is the parent's."""
        self.close_pipes()
        self._process.returncode = 0  # nothing to wait for

    @property
    def death(self) -> str:
        """How it ended, in words."""
        code = self._process.returncode
        if code is not None and code < 0:
            with suppress(ValueError):
                return signal.Signals(-code).name
        return f"exit code {code}"


def _python() -> str:
    # On Windows a virtual environment's python is a launcher: killing it would leave the real one behind.
    executable = getattr(sys, "_base_executable", None) if sys.platform == "win32" else sys.executable
    if not executable or getattr(sys, "frozen", False):
        raise HostError("no worker process can be started: this program has no Python interpreter in sys.executable")
    return str(executable)


def _lock_options() -> list[str]:
    """A worker has the global lock where its host has it: with ``-I`` it does not see PYTHON_GIL."""
    if "free-threading build" in sys.version and getattr(sys, "_is_gil_enabled", lambda: True)():
        return ["-X", "gil=1"]
    return []


def _host_error(reply: messages.Failed) -> HostError:
    """What the worker raised, as the host would have raised it."""
    kind = getattr(errors, reply.name, None)
    if isinstance(kind, type) and issubclass(kind, HostError):
        return kind(reply.message)
    return HostError(f"a worker process failed: {reply.name}: {reply.message}")


class _Run:
    """One run on its way: where it is, and whether somebody wants it to end."""

    def __init__(self, request: ExecutionRequest, abandoned: Callable[[], bool] | None) -> None:
        self.request = request
        self.stopped: Ending | None = None
        self._abandoned = abandoned
        self._lock = threading.Lock()
        self._worker: WorkerProcess | None = None
        self._overdue = 0.0

    def begin(self, worker: WorkerProcess) -> bool:
        """Whether it may begin on this worker: nobody has stopped it."""
        with self._lock:
            if self.stopped is None:
                self._worker = worker
                self._overdue = time.monotonic() + self.request.limits.timeout_seconds + OVERDUE_SECONDS
            return self.stopped is None

    def leave(self) -> None:
        """It no longer has a worker: nothing can be stopped any more."""
        with self._lock:
            self._worker = None

    def stop(self, why: Ending = Ending.CANCELLED) -> None:
        """End it now, wherever it is: a guest by ending its worker."""
        with self._lock:
            self.stopped = self.stopped or why
            if self._worker is not None:
                self._worker.kill()

    def look(self) -> float | None:
        """Stop it if its time is over, or nobody waits any more; else when to look again."""
        if self._abandoned is not None and self._abandoned():
            self.stop()
        elif time.monotonic() > self._overdue:
            self.stop(Ending.DEADLINE)
        return None if self.stopped is not None else self.next_look()

    def next_look(self) -> float:
        """When there may be something new to see, on the clock of `time.monotonic`."""
        if self._abandoned is None:
            return self._overdue
        return min(self._overdue, time.monotonic() + ABANDONED_SECONDS)

    def outcome_without_worker(self, detail: str, wall_seconds: float) -> Outcome:
        """The outcome of a run whose worker told none."""
        return Outcome(self.stopped or Ending.TRAPPED, detail=detail, wall_seconds=wall_seconds)


# Guarantees:
# - a worker has one guest at a time; whose run was stopped, or that died, is never given another;
# - none outlives this process: its end closes the pipes, at which they end.
# Locks: `_lock` guards the sets of workers and runs; `_Run._lock` guards one run's worker, and is never held together
# with it. Nothing is waited for while either is held.
class ProcessPool:
    """Worker processes, each with a guest at a time, and a thread of this process that talks to it.

    Args:
        program: what the Python of a worker runs.
    """

    def __init__(self, program: str = PROGRAM) -> None:
        self._program = program
        self._watchdog = Watchdog()
        self._threads = GuestThreads(self._watchdog, MAX_PROCESSES)
        self._lock = threading.Lock()
        self._all: set[WorkerProcess] = set()
        self._idle: list[WorkerProcess] = []
        self._closed = False
        self._running = 0
        self._warned = False
        self._ready_since: float | None = None

    @property
    def workers(self) -> list[WorkerProcess]:
        """All workers, busy and idle."""
        with self._lock:
            return list(self._all)

    @property
    def running(self) -> int:
        """How many runs are on a worker now."""
        return self._running

    @property
    def idle_workers(self) -> list[WorkerProcess]:
        """The workers that wait for a run."""
        with self._lock:
            return list(self._idle)

    def start(
        self, request: ExecutionRequest, abandoned: Callable[[], bool] | None = None
    ) -> tuple[Future[Outcome], Callable[[], None]]:
        """Run a request on a worker.

        Args:
            request: the script, its environment and its limits.
            abandoned: tells that nobody waits any more, for callers that can go without saying so.

        Returns:
            A future of the outcome, and a function that stops the run. The future raises HostError if no worker
            can be had.

        Raises:
            HostError: the interpreter is exiting, or no thread can be started.
        """
        run = _Run(request, abandoned)
        patience = Patience(request.limits.timeout_seconds, lambda: self._ready_since)
        return self._threads.submit(lambda deliver: self._work(run, deliver), patience), run.stop

    def _work(self, run: _Run, deliver: Callable[[Outcome], None]) -> None:
        if run.stopped is not None:
            deliver(run.outcome_without_worker("stopped before it started", 0.0))
            return
        worker = self._take()
        began = time.monotonic()
        try:
            outcome = self._run_on(worker, run)
        except (EOFError, OSError, messages.MessageError) as error:
            worker.end()
            said = f": {error}" if isinstance(error, messages.MessageError) else ""
            detail = f"the worker process died ({worker.death}){said}"
            outcome = run.outcome_without_worker(detail, time.monotonic() - began)
        except BaseException:
            worker.end()
            raise
        finally:
            run.leave()
            self._give_back(worker)
        deliver(outcome)

    def _run_on(self, worker: WorkerProcess, run: _Run) -> Outcome:
        if not run.begin(worker):
            return run.outcome_without_worker("stopped before it started", 0.0)
        with self._lock:
            self._running += 1
        try:
            with self._watchdog.watch(run.next_look(), run.look):
                outcome = worker.run(run.request)
            self._ready_since = self._ready_since or time.monotonic()
            return outcome
        finally:
            with self._lock:
                self._running -= 1

    def _take(self) -> WorkerProcess:
        """An idle worker that is alive, or a new one."""
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if worker.alive:
                    return worker
                self._all.discard(worker)
                worker.end()
        worker = WorkerProcess(self._program)
        with self._lock:
            self._all.add(worker)
            closed = self._closed
        try:
            if closed:
                raise HostError("the interpreter is exiting: no guest can be started")
            worker.wait_until_ready()
        except BaseException:
            worker.end()
            self._give_back(worker)
            raise
        if worker.lacking and not self._warned:
            self._warned = True
            _log.warning("worker processes run without %s", ", ".join(worker.lacking))
        return worker

    def _give_back(self, worker: WorkerProcess) -> None:
        if not worker.alive:
            worker.end()
        with self._lock:
            if worker.alive:
                self._idle.append(worker)
            else:
                self._all.discard(worker)

    def close(self) -> None:
        """End every worker; none may outlive the interpreter."""
        with self._lock:
            self._closed = True
            workers = list(self._all)
        for worker in workers:
            worker.kill()
        self._threads.close(time.monotonic() + EXIT_GRACE_SECONDS)
        self._watchdog.stop()
        for worker in workers:
            worker.end()

    def disown(self) -> None:
        """In the child of a fork: the workers are the parent's, and its end must reach them."""
        for worker in list(self._all):
            worker.disown()


_pool = PerProcess(ProcessPool, ProcessPool.close, ProcessPool.disown)


def process_pool() -> ProcessPool:
    """The pool of this process, made on first use; after a fork the child gets a pool of its own."""
    return _pool.get()
