"""`SandboxExecutor`: the standard library's interface of executors, over processes that each hold an engine."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import weakref
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, Future
from multiprocessing.context import BaseContext
from types import TracebackType
from typing import Any, Self, Unpack

from wasm_sandbox import Image, Sandbox, Tool, ToolExecutionResult
from wasm_sandbox.forks import ForkMark
from wasm_sandbox.options import CallOptions
from wasm_sandbox.parallel.calls import checked_args, tool_of
from wasm_sandbox.parallel.crew import Crew, Job
from wasm_sandbox.parallel.progress import bar_of
from wasm_sandbox.parallel.rows import CHUNKS_PER_WORKER, Results, Row
from wasm_sandbox.parallel.worker import Answer, Answers, Chunk


# Guarantees: each future ends: with a result, with an exception, or cancelled. May be used by several threads. Locks:
# none of its own; see `Crew`.
class SandboxExecutor(Executor):
    """Executor of worker processes, each with an engine of its own: tools run on all cores.

    It keeps to `concurrent.futures`: `as_completed`, `wait` and ``loop.run_in_executor`` work with it. A call whose
    worker dies is run again, so one with host functions or writable mounts may run twice. The rows of a worker that
    died are run apart from each other; one of which three workers died ends with
    `concurrent.futures.process.BrokenProcessPool`, and the executor goes on.

    What goes to workers is pickled when it is submitted. Host functions, gates and listeners (``on_event``) are called
    in the worker.

    Args:
        max_workers: processes; by default as many as there are processors for this process. They are started as they
            are needed, and load their image once.
        mp_context: context of `multiprocessing` that starts them; by default ``spawn``. With ``spawn`` and
            ``forkserver`` the main program must guard what it does with ``if __name__ == "__main__"``.
        options: `RunOptions` of all calls. An image must be kept on this machine, or be the exported one.

    Raises:
        TypeError: if there is no option of a name, or one cannot be pickled.
        ImageNotFound: if there is no image of the name.
        ValueError: if there is no worker, or limits are out of range (`pydantic.ValidationError`).
    """

    def __init__(
        self, max_workers: int | None = None, *, mp_context: BaseContext | None = None, **options: Any
    ) -> None:
        workers = _processors() if max_workers is None else max_workers
        if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
            raise ValueError(f"max_workers must be a whole number from 1, not {max_workers!r}")
        if isinstance(name := options.get("image"), str):
            options["image"] = Image.named(name)
        self._workers = workers
        self._sandbox = Sandbox(**options)
        self._crew = Crew(mp_context or multiprocessing.get_context("spawn"), workers, pickle.dumps(self._sandbox))
        self._mark = ForkMark()
        self._mark.set()
        self._finalizer = weakref.finalize(self, self._crew.close, wait=False, cancel=False)
        self._finalizer.atexit = False

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that are ready."""
        return self._crew.pids

    def submit(  # type: ignore[override]  # the standard one takes any function
        self,
        tool: Tool | Callable[..., Any],
        args: Mapping[str, Any] | None = None,
        agent_state: Any = None,
        /,
        **options: Unpack[CallOptions],
    ) -> Future[ToolExecutionResult]:
        """Let a worker run a tool.

        Args:
            tool: tool, or a function, which is taken by its source (`Tool.from_function`).
            args: argument name -> value.
            agent_state: as of `wasm_sandbox.run_tool`.
            options: options that win over those of the executor.

        Returns:
            The future of its result, which is there whatever the tool did. It raises what `wasm_sandbox.run_tool`
            raises, what pickling the arguments raises, and `BrokenProcessPool`. A call that waits can be cancelled.

        Raises:
            TypeError: if the tool is none, or the arguments are no mapping of names.
            ToolSourceError: if no tool can be made of the function.
            BrokenProcessPool: if workers cannot be started, or were killed.
            RuntimeError: if the executor was shut down, or belongs to another process.
        """
        chunk = Chunk(tool_of(tool), [checked_args(args or {})], {**options, "agent_state": agent_state})
        self._check_process()
        try:
            job = Job(pickle.dumps(chunk), is_single=True)
        except Exception as error:
            future: Future[ToolExecutionResult] = Future()
            future.set_exception(_unsendable(chunk, error))
            return future
        self._crew.add(job)
        return job.future

    def map(  # type: ignore[override]  # the standard one takes any function
        self,
        tool: Tool | Callable[..., Any],
        rows: Iterable[Row],
        chunksize: int | None = None,
        *,
        timeout: float | None = None,
        buffersize: int | None = None,
        progress: bool | str = False,
        **options: Unpack[CallOptions],
    ) -> Results:
        """Run a tool once for each row of arguments.

        Rows are taken as results are, so they may be endless: some are sent at once, and others when results are
        taken. So take the results before the executor is shut down.

        Args:
            tool: as of `submit`.
            rows: arguments of each call: argument name -> value.
            chunksize: rows that travel together; by default as many as take 20 ms.
            timeout: seconds from this call on in which results are waited for; None for no bound.
            buffersize: most rows that are taken before the results of the first of them are; by default eight chunks
                for each worker.
            progress: whether a progress bar is shown on standard error, or the words in front of it (extra
                ``parallel``).
            options: options that win over those of the executor.

        Returns:
            An iterator over results in the order of the rows. ``next`` raises `TimeoutError` when the time is over, and
            for a row what its future would raise; after that it goes on with the next row.

        Raises:
            TypeError: if the tool is none.
            ToolSourceError: if no tool can be made of the function.
            ValueError: if a size is less than 1.
            ImportError: if a bar is asked for, and rich is not installed.
            RuntimeError: if the executor belongs to another process.
        """
        for name, size in (("chunksize", chunksize), ("buffersize", buffersize)):
            if size is not None and size < 1:
                raise ValueError(f"{name} must be at least 1, not {size}")
        self._check_process()
        made, chosen = tool_of(tool), dict(options)
        chunks = CHUNKS_PER_WORKER * self._workers

        def send(chunk: list[Row]) -> list[Future[Answers]]:
            return self._send(Chunk(made, chunk, chosen))

        return Results(rows, send, chunksize, buffersize, chunks, timeout, bar_of(progress, rows))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; workers leave when those that were submitted are done.

        Args:
            wait: whether to wait until they have left.
            cancel_futures: whether to cancel the calls that are not running yet.
        """
        if self._mark.is_set:
            self._crew.close(wait, cancel_futures)

    def kill_workers(self) -> None:
        """End all workers at once: calls that run end with `BrokenProcessPool`, others are cancelled."""
        if self._mark.is_set:
            self._crew.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Shut down and wait; what is no `Exception`, such as a ``KeyboardInterrupt``, ends the workers at once."""
        if error is not None and not isinstance(error, Exception):
            self.kill_workers()
        self.shutdown(wait=True)

    def _check_process(self) -> None:
        if not self._mark.is_set:
            raise RuntimeError("this executor belongs to the process that made it: make another one after a fork")

    def _send(self, chunk: Chunk) -> list[Future[Answers]]:
        """Send a chunk; its rows apart, if they cannot be pickled together.

        Raises:
            BrokenProcessPool: if workers cannot be started, or were killed.
            RuntimeError: if the executor was shut down.
        """
        try:
            job = Job(pickle.dumps(chunk), is_single=False)
        except Exception as error:
            if len(chunk.rows) > 1:
                apart = [self._send(chunk._replace(rows=[row])) for row in chunk.rows]
                return [future for futures in apart for future in futures]
            future: Future[Answers] = Future()
            future.set_result(Answers([Answer(None, _unsendable(chunk, error))], 0.0))
            return [future]
        self._crew.add(job)
        return [job.future]


def _processors() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _unsendable(chunk: Chunk, error: Exception) -> TypeError:
    """Say which part of a call cannot be pickled."""
    for kind, parts in (("argument", chunk.rows[0]), ("option", chunk.options)):
        for name, value in parts.items():
            try:
                pickle.dumps(value)
            except Exception as found:
                return TypeError(f"{kind} {name!r} of a call cannot be pickled for a worker: {found}")
    return TypeError(f"a call cannot be pickled for a worker: {error}")
