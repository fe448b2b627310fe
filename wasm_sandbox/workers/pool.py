"""The one pool of worker processes of a process: it grows with demand, and replaces a worker that dies."""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from wasm_sandbox import errors
from wasm_sandbox.directories import CACHE_VARIABLE, cache_directory
from wasm_sandbox.engine import BUILT_IN_IMAGE, Checkpoint, GuestThreads, Rest, Watchdog, check_processes
from wasm_sandbox.errors import HostError, SnapshotError
from wasm_sandbox.forks import PerProcess
from wasm_sandbox.limits import Limits
from wasm_sandbox.outcome import Ending, Outcome, Patience
from wasm_sandbox.request import ExecutionRequest
from wasm_sandbox.switches import ENGINE_VARIABLE
from wasm_sandbox.workers import messages
from wasm_sandbox.workers.serving import Serving

if TYPE_CHECKING:
    from wasm_sandbox.engine import ImageSource

MAX_PROCESSES = max(4, 2 * (os.cpu_count() or 1))
"""Size of the pool, whatever images its workers have. Further runs wait for a worker; their deadlines start when they
get one."""

OVERDUE_SECONDS = 10.0
"""Time from a guest's deadline until a worker that has not reported is killed."""

ABANDONED_SECONDS = 0.05
"""Interval of the looks at a run whose caller may go without saying so."""

HELD_SECONDS = 1.0
"""Interval of the looks at a run that is overdue, but for the time in which its guest waited for the host."""

EXIT_GRACE_SECONDS = 1.0

PIPE_BYTES = 1 << 20
"""Capacity of a pipe, as large as Linux lets anybody have it; memory is taken for what is in it."""

_INHERITED = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", ENGINE_VARIABLE)
"""Variables that Python itself may need to start, and the one that chooses the engine."""

PROGRAM = "from wasm_sandbox.workers.worker import main; main()"
"""Program of a worker, which runs once it looks for modules where its host does."""

_log = logging.getLogger(__name__)


class Visit(NamedTuple):
    """Call of a guest that is at rest between its calls, and may be on another worker at each."""

    rest: Rest
    image_id: str
    """Id of the guest's image."""
    keep: Callable[[Checkpoint], None]
    """Takes the checkpoint after a call that did not end the guest; before the outcome is delivered."""

    def read(self, stream: Any, limits: Limits) -> None:
        """Read the guest's checkpoint, and have it kept.

        Args:
            stream: pipe from the worker.
            limits: limits of the call.

        Raises:
            EOFError, MessageError: as `messages.read_point`.
        """
        before = self.rest.point
        memory_bytes = max(limits.memory_bytes, before.memory.size if before else 0)
        bounds = self.rest.limits.model_copy(update={"memory_bytes": memory_bytes})
        point = messages.read_point(stream, bounds, before)
        if point.image_id != self.image_id:
            raise messages.MessageError("a checkpoint of another image")
        self.keep(point)


# Guarantees: any thread may `kill` the process or ask whether it is `alive` at any time; all else is for the thread
# that has the worker, but for answers to a guest. Locks: `_writing`, held while a message is written to the worker; and
# those of `subprocess.Popen`.
class WorkerProcess:
    """Worker process, seen from the host.

    Args:
        program: what its Python runs; it speaks as `messages` says.
        source: source of the image that it is to run, and no other.

    Raises:
        HostError: if it cannot be started.
        UnsupportedIsolation: if the image cannot be run in a worker.
    """

    def __init__(self, program: str = PROGRAM, source: ImageSource = BUILT_IN_IMAGE) -> None:
        self.image_id = source.id
        """Id of its image."""
        environ = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environ[CACHE_VARIABLE] = str(cache_directory().absolute())
        # A group of its own: Ctrl-C is for the host to handle, which then stops the workers.
        options: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
        # Absolute, for its working directory is another.
        path = [os.path.abspath(place) for place in sys.path if isinstance(place, str)]
        command = f"import sys; sys.path[:] = {path!r}\n{program}"
        check_processes()
        try:
            self._process = subprocess.Popen(
                [_python(), "-I", "-X", "utf8", *_lock_options(), "-c", command, source.id, *source.address],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environ,
                cwd=os.path.abspath(os.sep),
                **options,
            )
        except OSError as error:
            raise HostError(f"no worker process can be started: {error.strerror or error}") from error
        self._widen_pipes()
        self._writing = threading.Lock()
        self._runs = 0
        self.killed = False
        self.restrictions: list[str] = []
        self.lacking: list[str] = []

    def _widen_pipes(self) -> None:
        """Let a small session's checkpoint cross at once: the two processes need not take turns for each 64 KiB."""
        if sys.platform != "linux":
            return
        import fcntl  # lazy: POSIX has it

        for stream in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # more than this user may have
                fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)  # type: ignore[union-attr]  # they are pipes

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs and has not been killed."""
        return not self.killed and self._process.poll() is None

    def wait_until_ready(self) -> None:
        """Wait until the worker has loaded the image, which may have to be prepared.

        Raises:
            HostError: if it cannot run guests; it is closed then.
            MemoryError: if this process has no memory for its answer; it is closed then.
        """
        try:
            reply, message = messages.read_ready(self._process.stdout)
        except (EOFError, OSError, messages.MessageError) as error:
            self.close()
            raise HostError(f"a worker process ended before it was ready ({self.death}) {error}".strip()) from error
        except MemoryError:
            self.close()
            raise
        if isinstance(reply, messages.Failed):
            self.close()
            raise _host_error(reply.name, message)
        self.restrictions, self.lacking = reply.restrictions, reply.lacking

    @property
    def is_silent(self) -> bool:
        """Whether the worker, which has not been asked anything, has said nothing; True where no one can tell."""
        stdout = self._process.stdout
        if stdout is None or not hasattr(select, "poll"):
            return True
        look = select.poll()
        look.register(stdout, select.POLLIN)
        return not look.poll(0)

    def run(
        self,
        request: ExecutionRequest,
        threads: GuestThreads,
        held: Callable[[], AbstractContextManager[None]],
        visit: Visit | None = None,
    ) -> Outcome:
        """Run a request.

        Args:
            request: the script, its environment, its limits, and the other end of its channel.
            threads: threads to serve what the guest asks on.
            held: keeps the run's time from passing.
            visit: guest at rest to run it in, if there is one.

        Raises:
            EOFError, OSError, MessageError: if the worker died, failed, or sends what it should not.
            BaseException: a defect of the other end of the channel.
        """
        self._runs += 1
        calls = None
        if request.peer is not None:
            calls = Serving(self._runs, request.peer, threads, self._write, held, self.kill, request.tap)
        try:
            self._write(*messages.encode_order(self._runs, request, visit.rest if visit else None))
            outcome = messages.read_outcome(self._process.stdout, request.limits, calls)
            if visit is not None and not outcome.is_over:
                visit.read(self._process.stdout, request.limits)
            return outcome
        except (EOFError, OSError) as error:
            if calls is not None and calls.failure is not None:
                raise calls.failure from error
            raise
        finally:
            if calls is not None:
                calls.close()

    def _write(self, head: bytes, body: bytes) -> None:
        with self._writing:
            _block_sigpipe()
            messages.write_message(self._process.stdin, head, body)

    def kill(self) -> None:
        """Kill the process; `close` waits for its end."""
        self.killed = True
        with suppress(OSError):
            self._process.kill()

    def close(self) -> None:
        """End the worker, and wait until it has ended."""
        self.kill()
        self._process.wait()
        with self._writing:  # whoever writes fails now; the descriptor must not become another's under its hands
            self.close_pipes()

    def close_pipes(self) -> None:
        """Close the host's ends of the pipes.

        They have no buffer, so this never waits for another thread, nor for one that the child of a fork lacks.
        """
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def disown(self) -> None:
        """Let go of the process without ending it: in the child of a fork it is the parent's."""
        self.close_pipes()
        self._process.returncode = 0  # nothing to wait for

    @property
    def death(self) -> str:
        """Exit code or signal of the process that has ended, in words."""
        code = self._process.returncode
        if code is not None and code < 0:
            with suppress(ValueError):
                return signal.Signals(-code).name
        return f"exit code {code}"


def _block_sigpipe() -> None:
    """Keep SIGPIPE from the calling thread: a caller may let it end the process, as many a command does.

    A worker that closes its pipe would end its host by it. The write fails all the same.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})


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


def _what_happened(worker: WorkerProcess, error: Exception) -> str:
    """Words for a run whose worker reports no outcome; those of the worker are the guest's, for all one knows."""
    if isinstance(error, messages.WorkerFailed):
        return f"the worker process failed: {' '.join(str(error).split())}"
    said = f": {error}" if isinstance(error, messages.MessageError) else ""
    return f"the worker process died ({worker.death}){said}"


def _host_error(name: str, message: str) -> HostError:
    """Exception of a worker that has run no guest yet, of the class that it has there if that is one of ours."""
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, HostError):
        return kind(message)
    return HostError(f"a worker process failed: {name}: {message}")


# Guarantees: `stop` may come from any thread at any time, and kills a worker only while it is the run's; the first
# reason to stop stays. Locks: `_lock` guards the worker and the reason; nothing is waited for while it is held.
class _Run:
    """One run on its way: its worker, and the reason to stop it."""

    def __init__(
        self,
        request: ExecutionRequest,
        abandoned: Callable[[], bool] | None,
        visit: Visit | None,
        source: ImageSource,
    ) -> None:
        self.request, self.visit, self.source = request, visit, source
        self.stopped: Ending | None = None
        self._abandoned = abandoned
        self._held_since: float | None = None
        self._lock = threading.Lock()
        self._worker: WorkerProcess | None = None
        self._overdue = 0.0

    def assign(self, worker: WorkerProcess) -> bool:
        """Put the run on a worker; false if it has been stopped."""
        with self._lock:
            if self.stopped is None:
                self._worker = worker
                self._overdue = time.monotonic() + self.request.limits.timeout_seconds + OVERDUE_SECONDS
            return self.stopped is None

    def leave(self) -> None:
        """Take the run off its worker, which `stop` kills no more."""
        with self._lock:
            self._worker = None

    def stop(self, why: Ending = Ending.CANCELLED) -> None:
        """End the run now: by killing its worker, if it is on one."""
        with self._lock:
            self.stopped = self.stopped or why
            if self._worker is not None:
                self._worker.kill()

    def look(self) -> float | None:
        """Stop the run if its time is over or nobody waits any more, else return the time of the next look."""
        if self._abandoned is not None and self._abandoned():
            self.stop()
        elif self._held_since is None and time.monotonic() > self._overdue:
            self.stop(Ending.DEADLINE)
        return None if self.stopped is not None else self.next_look()

    def next_look(self) -> float:
        """Time of the next look, on the clock of `time.monotonic`."""
        now = time.monotonic()
        overdue = self._overdue if self._held_since is None else max(self._overdue, now + HELD_SECONDS)
        return overdue if self._abandoned is None else min(overdue, now + ABANDONED_SECONDS)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the run's time from passing inside the block."""
        began = self._held_since = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._overdue += time.monotonic() - began
            self._held_since = None

    def outcome_without_worker(self, detail: str, wall_seconds: float) -> Outcome:
        """Outcome of a run whose worker reports none."""
        return Outcome(self.stopped or Ending.TRAPPED, detail=detail, wall_seconds=wall_seconds)


# Guarantees:
# - a worker has one guest at a time; one that was killed, or that died, is never given another;
# - a worker has guests of one image only;
# - there are never more workers than `MAX_PROCESSES`: where one more is needed, the one that was used the longest ago
#   ends, which is idle and of another image;
# - no worker outlives this process: its end closes the pipes, at which they end.
# Locks: `_lock` guards the sets of workers and the counts, and is never held together with `_Run._lock`. Nothing is
# waited for while either is held.
class ProcessPool:
    """Pool of worker processes; a worker has one guest at a time, and one thread of this process talks to it.

    Args:
        program: what the Python of a worker runs.
    """

    def __init__(self, program: str = PROGRAM) -> None:
        self._program = program
        self._watchdog = Watchdog()
        self._threads = GuestThreads(self._watchdog, MAX_PROCESSES)
        self._calls = GuestThreads(self._watchdog)
        """Threads for host functions, which may block for longer than their run lasts."""
        self._lock = threading.Lock()
        self._all: set[WorkerProcess] = set()
        self._idle: list[WorkerProcess] = []  # the last used is last
        self._taken = 0
        """Workers that are not idle, those that are about to be started among them."""
        self._closed = False
        self._running = 0
        self._warned = False
        self._ready_since: float | None = None

    @property
    def workers(self) -> list[WorkerProcess]:
        """Workers, busy and idle."""
        with self._lock:
            return list(self._all)

    @property
    def running(self) -> int:
        """Number of runs that are on a worker now."""
        return self._running

    @property
    def idle_workers(self) -> list[WorkerProcess]:
        """Workers that wait for a run."""
        with self._lock:
            return list(self._idle)

    def start(
        self,
        request: ExecutionRequest,
        abandoned: Callable[[], bool] | None = None,
        visit: Visit | None = None,
        source: ImageSource = BUILT_IN_IMAGE,
    ) -> tuple[Future[Outcome], Callable[[], None]]:
        """Run a request on a worker.

        Args:
            request: the script, its environment and its limits.
            abandoned: whether nobody waits any more, for callers that can go without saying so.
            visit: guest at rest to run it in; by default a fresh one.
            source: source of the image to run it in; by default our guest without packages.

        Returns:
            A future of the outcome, and a function that stops the run. The future raises HostError if no worker
            can be had, and SnapshotError if the guest cannot be restored.

        Raises:
            HostError: if the interpreter is exiting, or no thread can be started.
            UnsupportedIsolation: if the image cannot be run in a worker.
        """
        _ = source.address  # before anything begins
        run = _Run(request, abandoned, visit, source)
        patience = Patience(request.limits.timeout_seconds, lambda: self._ready_since)
        try:
            return self._threads.submit(lambda deliver: self._work(run, deliver), patience), run.stop
        except BaseException:  # a signal handler's, when the run may be on its way
            run.stop()
            raise

    def _work(self, run: _Run, deliver: Callable[[Outcome], None]) -> None:
        if run.stopped is not None:
            deliver(run.outcome_without_worker("stopped before it started", 0.0))
            return
        worker = self._take(run.source)
        began = time.monotonic()
        try:
            outcome = self._run_on(worker, run)
        except (EOFError, OSError, messages.MessageError) as error:
            worker.close()
            if run.visit is not None and isinstance(error, messages.WorkerFailed) and error.name == "SnapshotError":
                raise SnapshotError(" ".join(error.message.split())) from None
            detail = _what_happened(worker, error)
            outcome = run.outcome_without_worker(detail, time.monotonic() - began)
        except BaseException:
            worker.close()
            raise
        finally:
            run.leave()
            self._give_back(worker)
        deliver(outcome)

    def _run_on(self, worker: WorkerProcess, run: _Run) -> Outcome:
        if not run.assign(worker):
            return run.outcome_without_worker("stopped before it started", 0.0)
        with self._lock:
            self._running += 1
        try:
            with self._watchdog.watch(run.next_look(), run.look):
                outcome = worker.run(run.request, self._calls, run.held, run.visit)
            self._ready_since = self._ready_since or time.monotonic()
            return outcome
        finally:
            with self._lock:
                self._running -= 1

    def _take(self, source: ImageSource) -> WorkerProcess:
        """An idle worker of the image that is alive, or a new one."""
        while (idle := self._next_idle(source.id)) is not None:
            if idle.alive and idle.is_silent:
                return idle
            idle.kill()
            self._give_back(idle)
        worker: WorkerProcess | None = None
        try:
            self._make_room()
            worker = WorkerProcess(self._program, source)
            with self._lock:
                self._all.add(worker)
                closed = self._closed
            if closed:
                raise HostError("the interpreter is exiting: no guest can be started")
            worker.wait_until_ready()
        except BaseException:
            if worker is not None:
                worker.close()
            self._give_back(worker)
            raise
        if worker.lacking and not self._warned:
            self._warned = True
            _log.warning("worker processes run without %s", ", ".join(worker.lacking))
        return worker

    def _next_idle(self, image_id: str) -> WorkerProcess | None:
        """The idle worker of the image that was used last, or None: then a new one is to be taken."""
        with self._lock:
            self._taken += 1
            of_image = [worker for worker in self._idle if worker.image_id == image_id]
            if not of_image:
                return None
            self._idle.remove(of_image[-1])
            return of_image[-1]

    def _make_room(self) -> None:
        """End the worker that was idle for longest, if there are as many as there may be beside a new one."""
        with self._lock:
            is_full = self._taken + len(self._idle) > MAX_PROCESSES
            ended = self._idle.pop(0) if is_full and self._idle else None
        if ended is not None:
            ended.close()
            with self._lock:
                self._all.discard(ended)

    def _give_back(self, worker: WorkerProcess | None) -> None:
        """Make the worker idle, or forget it if it is dead; None, if there is none after all."""
        if worker is not None and not worker.alive:
            worker.close()
        with self._lock:
            self._taken -= 1
            if worker is None:
                return
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
        self._calls.close(time.monotonic())
        self._watchdog.close()
        for worker in workers:
            worker.close()

    def disown(self) -> None:
        """Let go of the workers in the child of a fork: they are the parent's, and its end must reach them."""
        for worker in list(self._all):
            worker.disown()


_pool = PerProcess(ProcessPool, ProcessPool.close, ProcessPool.disown)


def process_pool() -> ProcessPool:
    """Pool of this process, made on first use; after a fork the child gets a pool of its own."""
    return _pool.get()
