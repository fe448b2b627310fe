"""Sessions: guests that stay, whose state is kept from call to call, forked, taken back, dumped and paused."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, Unpack, cast

from wasm_sandbox.decode.cells import interpret_session_cell
from wasm_sandbox.decode.interpret import interpret, tool_file_name
from wasm_sandbox.engine import Checkpoint, wait_for
from wasm_sandbox.environment import merge_environment
from wasm_sandbox.errors import (
    BadArguments,
    SessionError,
    SnapshotError,
    UnsupportedIsolation,
    UnsupportedToolError,
    pass_on,
)
from wasm_sandbox.files import check_files
from wasm_sandbox.functions import Deferred, Functions, RunCalls, answer_of, pending_call
from wasm_sandbox.limits import Limits
from wasm_sandbox.options import RunOptions, checked
from wasm_sandbox.request import Answer, ExecutionRequest
from wasm_sandbox.results import Call, CodeResult, ErrorKind, ToolExecutionResult, amend
from wasm_sandbox.sandbox import registry
from wasm_sandbox.sandbox.code import refused
from wasm_sandbox.sandbox.executors import request_of
from wasm_sandbox.sandbox.hosting import calls_of, functions_of, with_calls
from wasm_sandbox.sandbox.keepers import Cancel, keeper
from wasm_sandbox.sandbox.snapshots import Loaded, Pending, dump, load
from wasm_sandbox.sandbox.streams import Events, events_of, listeners, told
from wasm_sandbox.sandbox.wasm import WasmToolSandbox, as_tool
from wasm_sandbox.script.cells import CellScript, cell_name, resume_script, session_cell_script
from wasm_sandbox.tool.definition import Tool

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from wasm_sandbox.egress import RunConnections
    from wasm_sandbox.outcome import Outcome

IDLE_SECONDS, LIFETIME_SECONDS = 900.0, 3600.0

PACK_SECONDS = 0.5
"""Time without a call after which a small checkpoint is packed: while the guest lives, only a rollback needs it."""

REST_SECONDS = 5.0
"""Time without a call after which only the checkpoint of a guest is kept, if that is small."""

LOCK_SECONDS = 0.001
"""Interval at which an async caller looks whether another call of the session has ended."""

S = TypeVar("S")

Steps = Generator[tuple[ExecutionRequest, RunCalls], "Outcome", S]
"""Steps of a call, for callers that wait and for those that await: written once."""

_OWN_OPTIONS = frozenset({"image", "files", "mounts", "isolation", "build_images", "network"})
"""Options of a session itself, which no call of it can have other ones of."""


class Box(Protocol):
    """Sandbox, as its sessions see it."""

    @property
    def options(self) -> RunOptions:
        """Options, checked."""

    @property
    def functions(self) -> Functions:
        """Host functions."""

    def run_function_tool(self, tool: Tool, args: Mapping[str, Any]) -> ToolExecutionResult:
        """Run a tool that a guest calls as a host function."""


_inside: contextvars.ContextVar[tuple[int, ...]] = contextvars.ContextVar("wasm_sandbox_sessions", default=())
"""Sessions whose calls this context is inside of: a host function may not call its own."""


given_up: contextvars.ContextVar[threading.Event | None] = contextvars.ContextVar("wasm_sandbox_given_up", default=None)
"""Set when nobody waits any more for what this context does: then it does not begin."""


@dataclass(frozen=True, eq=False)
class SessionPoint:
    """Point of a session's life, to go back to; of no use to any other session but its forks."""

    _point: Checkpoint | None = field(repr=False)
    _cells: int
    _owner: object = field(repr=False)

    @property
    def nbytes(self) -> int:
        """Size in bytes, about."""
        return self._point.nbytes if self._point else 0


# Guarantees:
# - calls of a session follow one another, whichever threads they come from; a call from inside one of its own calls is
#   refused;
# - after `close`, and when its time is over, its memory is given back and every call raises `SessionError`.
# Locks, in this order: `_lock`, held through a call by the thread that makes it; the guest's own.
class Session:
    """Guest that stays: what one call leaves, the next one finds. Made by `Sandbox.session`.

    A Python error leaves it as it is; a limit, a trap or a cancel takes it back to what it was before that call.
    """

    def __init__(
        self,
        box: Box,
        *,
        idle_seconds: float = IDLE_SECONDS,
        lifetime_seconds: float = LIFETIME_SECONDS,
        loaded: Loaded | None = None,
        family: object = None,
    ) -> None:
        for name, seconds in (("idle_seconds", idle_seconds), ("lifetime_seconds", lifetime_seconds)):
            if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 < seconds < float("inf"):
                raise ValueError(f"{name} must be seconds above 0, not {seconds!r}")
        self._box, self._options, self._functions = box, box.options, box.functions
        if self._options["mounts"]:
            raise UnsupportedIsolation("a session has no mounts, which could not be taken back: give files instead")
        self._limits = cast(Limits, self._options["limits"])
        self._idle_seconds, self._lifetime_seconds = float(idle_seconds), float(lifetime_seconds)
        self._environ = merge_environment(self._options["env"])
        self._network = self._connections(loaded.placeholders if loaded else {})
        self._given = check_files(self._options["files"], None, self._limits)
        options, point = self._options, loaded.point if loaded else None
        self._kept = keeper(options["isolation"], options["image"], self._given, self._limits, point)
        self._cells = loaded.cells if loaded else 0
        self._is_fork = loaded is not None
        self._family = family or object()
        self._lock = threading.Lock()
        self._made = self._used = time.monotonic()
        self._closed_because = ""
        self._paused: Paused | None = None
        registry.register(self)

    def _connections(self, placeholders: Mapping[str, str]) -> RunConnections | None:
        """Connections, which stay open from call to call, and end when it is taken back.

        Args:
            placeholders: what the guest has in place of secrets already.
        """
        if self._options["network"] is None:
            return None
        from wasm_sandbox.sandbox.networking import connections_of  # lazy: only for sessions with a network

        return connections_of(self._options, is_kept=True, placeholders=placeholders)

    def _content(self, point: Checkpoint, pending: tuple[Pending, ...] = ()) -> Loaded:
        """What a fork, or bytes, have of it; the guest's objects may hold placeholders of secrets."""
        return Loaded(point, self._cells, pending, self._network.environ if self._network else {})

    def _disconnect(self) -> None:
        """End the connections: the guest is at a checkpoint again, and none holds them."""
        if self._network is not None:
            self._network.drop()

    # -- life ------------------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """Whether it was closed, or its time is over."""
        return bool(self._closed_because)

    def expires(self) -> float:
        """When it is closed unless it is used before, on the clock of `time.monotonic`."""
        return min(self._used + self._idle_seconds, self._made + self._lifetime_seconds)

    def expire(self) -> None:
        """Close it if its time is over and no call is under way."""
        if self._lock.acquire(blocking=False):
            try:
                self._expire_now()
            finally:
                self._lock.release()

    def rest_if_unused(self, now: float) -> int:
        """Give memory back while nobody calls it: first what a checkpoint takes, then that of its guest.

        The next call begins at the checkpoint then. Connections are of one instance, so the guest of a session with a
        network stays.

        Returns:
            Number of bytes that its checkpoint takes less.
        """
        unused = now - self._used
        if unused < PACK_SECONDS or not self._lock.acquire(blocking=False):
            return 0
        try:
            if self._closed_because:
                return 0
            freed = self._kept.pack()
            if self._network is None and unused >= REST_SECONDS:
                self._kept.rest()
            return freed
        finally:
            self._lock.release()

    def _end(self, reason: str) -> None:
        self._closed_because = reason
        registry.unregister(self)
        self._kept.close()
        self._disconnect()
        self._paused = None

    def close(self) -> None:
        """Give its memory back; it may be called again. A call that is under way is waited for."""
        with self._lock:
            if not self._closed_because:
                self._end("it was closed")

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def using(self, paused: Paused | None = None, *, is_held: bool = False) -> Iterator[None]:
        """Hold the session for one call.

        Args:
            paused: the program that is to be resumed, if one is.
            is_held: whether the caller has locked it already (`lock_async`).

        Raises:
            SessionError: if it cannot be called.
        """
        if is_held:
            try:
                yield from self._used_by_one(paused)
            finally:
                self._lock.release()
        else:
            self.check_caller()
            with self._lock:
                if (event := given_up.get()) is not None and event.is_set():
                    raise SessionError("nobody waits for it any more")
                yield from self._used_by_one(paused)

    def _used_by_one(self, paused: Paused | None) -> Iterator[None]:
        self._expire_now()
        if self._closed_because:
            raise SessionError(f"the session cannot be called: {self._closed_because}")
        if self._paused is not paused:
            if paused is not None:
                raise SessionError("the program does not wait any more: it was resumed or given up")
            raise SessionError("the session is paused: resume it, or roll it back")
        before = _inside.get()
        try:  # at once: a signal handler may raise after any call
            _inside.set((*before, id(self)))
            yield
        finally:
            _inside.set(before)
            self._used = time.monotonic()

    def check_caller(self) -> None:
        """Refuse a caller who could only wait for itself, or is another process.

        Raises:
            SessionError: if it is one.
        """
        if not registry.are_ours():
            raise SessionError("the session is of the process that this one was forked from: dump it, and load it here")
        if id(self) in _inside.get():
            raise SessionError("a host function cannot call the session that called it: take another one")

    async def lock_async(self) -> None:
        """Lock it as `using` does, with the event loop free."""
        import asyncio  # lazy: 20 ms, only for async callers

        self.check_caller()
        while not self._lock.acquire(blocking=False):  # noqa: ASYNC110 - a lock of threads tells no event loop
            await asyncio.sleep(LOCK_SECONDS)

    def _expire_now(self) -> None:
        """Close it if its time is over; the caller holds it."""
        if not self._closed_because and self.expires() <= time.monotonic():
            is_old = time.monotonic() >= self._made + self._lifetime_seconds
            age = f"its {self._lifetime_seconds:g} seconds (lifetime_seconds) are over"
            idle = f"it was not used for {self._idle_seconds:g} seconds (idle_seconds)"
            self._end(age if is_old else idle)

    # -- calls -----------------------------------------------------------------------------------

    def _settings(self, overrides: Mapping[str, Any]) -> tuple[Functions, RunOptions, dict[str, str]]:
        if own := _OWN_OPTIONS & overrides.keys():
            raise TypeError(f"{', '.join(sorted(own))}: an option of the whole session, give it to the Sandbox")
        if not overrides:
            return self._functions, self._options, self._environ
        options = checked(cast(RunOptions, {**self._options, **overrides}))
        functions = self._functions
        if "functions" in overrides:
            functions = functions_of(overrides["functions"], self._box.run_function_tool)
        return functions, options, merge_environment(options["env"])

    def run_code(
        self, code: str, inputs: Mapping[str, Any] | None = None, **overrides: Unpack[RunOptions]
    ) -> CodeResult:
        """Run a cell: its names are kept for the next one.

        Args:
            code: Python source; it may ``await`` at its top level.
            inputs: name of a variable -> its value.
            overrides: options for this call: ``limits``, ``env``, ``functions``, ``gate``.

        Returns:
            The result; ``rolled_back`` says whether the session is what it was before.

        Raises:
            SessionError: if the session is closed, paused, or called from inside a call of its own.
            TypeError: if the code is no text, the inputs are no mapping, or an option is not of one call.
            SandboxError: if the run cannot be made.
        """
        found = self._cell(code, inputs, overrides, may_defer=False)
        assert isinstance(found, CodeResult)
        return found

    def start(
        self, code: str, inputs: Mapping[str, Any] | None = None, **overrides: Unpack[RunOptions]
    ) -> CodeResult | Paused:
        """Run a cell as `run_code`, which may wait for what the host does not answer at once.

        Returns:
            The result; or, when nothing but calls of deferred functions is left to wait for, the paused program.
        """
        return self._cell(code, inputs, overrides, may_defer=True)

    def _cell(
        self, code: str, inputs: Mapping[str, Any] | None, overrides: Mapping[str, Any], may_defer: bool
    ) -> CodeResult | Paused:
        return self._done(self.cell_steps(code, inputs, overrides, may_defer))

    def _done(self, steps: Steps[S], paused: Paused | None = None) -> S:
        """Take the steps of a call, and wait for the guest between them."""
        with self.using(paused):
            try:
                request, calls = next(steps)
                steps.send(self._outcome(request, calls))
            except StopIteration as end:
                return cast(S, end.value)
        raise AssertionError("a call has one guest")

    def cell_steps(
        self,
        code: str,
        inputs: Mapping[str, Any] | None,
        overrides: Mapping[str, Any],
        may_defer: bool,
        loop: AbstractEventLoop | None = None,
    ) -> Steps[CodeResult | Paused]:
        """Steps of a cell: gives what a guest is to run, takes its outcome, returns the result."""
        functions, options, environ = self._settings(overrides)
        names = functions.names if functions else None
        try:
            script = session_cell_script(code, inputs, names, name=cell_name(self._cells + 1), is_fork=self._is_fork)
        except BadArguments as error:
            pass_on(error)
            return refused(error)
        events = events_of(options)
        calls = calls_of(functions, options, loop, self._network, may_defer=may_defer, **listeners(events))
        return (yield from self._script_steps(script, calls, options, environ, events))

    def _script_steps(
        self,
        script: CellScript,
        calls: RunCalls,
        options: RunOptions,
        environ: Mapping[str, str],
        events: Events | None = None,
    ) -> Steps[CodeResult | Paused]:
        limits = cast(Limits, options["limits"])
        if events is not None:
            events.expect_no_frame()
        request = request_of(script, environ, limits, calls, given=self._given, tap=events)
        outcome = yield request, calls
        result, is_paused = interpret_session_cell(outcome, limits)
        if outcome.is_over:
            self._disconnect()
        else:
            self._is_fork = False
            self._cells += 1
        result = amend(with_calls(result, calls), {"rolled_back": outcome.is_over})
        if not is_paused:
            return told(result, events)
        told(result, events)
        self._paused = Paused(self, dict(calls.deferred), result, options)
        return self._paused

    def give_up(self) -> None:
        """Forget the program that is paused, which nobody can resume; the caller holds the session."""
        self._paused = None

    def call(self, limits: Limits) -> Cancel:
        """Next call of the guest, for `begin`."""
        return cast(Cancel, self._kept.call(limits))

    def begin(self, request: ExecutionRequest, call: Cancel) -> Future[Outcome]:
        """Start the guest: a future of its outcome; the caller holds the session."""
        if isinstance(request.tap, Events):
            request.tap.stop_with(call.cancel)
        return self._kept.start(request, call)

    def _outcome(self, request: ExecutionRequest, calls: RunCalls) -> Outcome:
        call: Cancel | None = None
        try:
            outcome = self._kept.attempt(request)
            if outcome is None:
                call = self.call(request.limits)
                outcome = wait_for(self.begin(request, call))
            return outcome
        except BaseException:
            if call is not None:
                call.cancel()
            raise
        finally:
            if call is None:
                calls.end_unused()
            else:
                calls.settle()

    def run_tool(
        self,
        tool: Tool | Callable[..., Any],
        args: Mapping[str, Any] | None = None,
        agent_state: Any = None,
        **overrides: Unpack[RunOptions],
    ) -> ToolExecutionResult:
        """Run a tool in the session's guest: with its files, its environment and what its modules keep.

        The tool's own global names are fresh, as in every call of a tool.

        Args:
            tool: the tool.
            args: argument name -> JSON value.
            agent_state: as of `Sandbox.run_tool`.
            overrides: as of `run_code`.

        Raises:
            SessionError: as `run_code`.
            SandboxError: if the run cannot be made.
        """
        return self._done(self.tool_steps(tool, args, agent_state, overrides))

    def tool_steps(
        self,
        tool: Tool | Callable[..., Any],
        args: Mapping[str, Any] | None,
        agent_state: Any,
        overrides: Mapping[str, Any],
        loop: AbstractEventLoop | None = None,
    ) -> Steps[ToolExecutionResult]:
        """Steps of a tool call, as `cell_steps`."""
        functions, options, environ = self._settings(overrides)
        made = as_tool(tool, functions)
        limits = cast(Limits, options["limits"])
        sandbox = WasmToolSandbox(made.name, args or {}, None, None, tool_object=made, **options)
        try:
            script = sandbox.session_script(agent_state)
        except (BadArguments, UnsupportedToolError) as error:
            pass_on(error)
            return sandbox.refused(error)
        events = events_of(options)
        calls = calls_of(functions, options, loop, self._network, **listeners(events))
        outcome = yield (
            request_of(
                script,
                environ,
                limits,
                calls,
                tool_name=tool_file_name(made.name),
                tool_first_line=script.tool_first_line,
                tool_line_count=script.tool_line_count,
                given=self._given,
                tap=events,
            ),
            calls,
        )
        if outcome.is_over:
            self._disconnect()
        result = interpret(
            outcome,
            limits,
            made.name,
            agent_state=agent_state,
            injects_agent_state=script.injects_agent_state,
            argument_lines=script.argument_lines,
        )
        return told(amend(with_calls(result, calls), {"rolled_back": outcome.is_over}), events)

    def set(self, **values: Any) -> None:
        """Set variables.

        Raises:
            BadArguments: if a value cannot be handed to a guest.
            SessionError: as `run_code`; or if a limit ended it.
        """
        check_set(self.run_code("", values))

    def get(self, name: str) -> Any:
        """Value of a variable, as plain data.

        Raises:
            KeyError: if there is no variable of the name.
            TypeError: if its value is no plain data.
            SessionError: as `run_code`; or if a limit ended it.
        """
        return value_got(name, self.run_code(variable(name)))

    # -- points ----------------------------------------------------------------------------------

    def checkpoint(self) -> SessionPoint:
        """Point of its life to which `rollback` takes it back, as often as wanted."""
        with self.using(self._paused):
            return SessionPoint(self._kept.checkpoint(), self._cells, self._family)

    def rollback(self, point: SessionPoint) -> None:
        """Take it back to a point; a program that is paused is given up.

        Raises:
            SessionError: as `run_code`; or if the point is of another session.
        """
        if not isinstance(point, SessionPoint) or point._owner is not self._family:
            raise SessionError("the point is of another session")
        with self.using(self._paused):
            self._disconnect()
            self._kept.go_back(point._point)
            self._cells = point._cells
            self._paused = None

    def fork(self) -> Session:
        """Make another session that is what this one is now; they go on apart, and draw other random numbers."""
        with self.using():
            return self._copy()

    def _copy(self) -> Session:
        point = self._kept.checkpoint()
        loaded = None if point is None else self._content(point)
        return Session(
            self._box,
            idle_seconds=self._idle_seconds,
            lifetime_seconds=self._lifetime_seconds,
            loaded=loaded,
            family=self._family,
        )

    def forked(self, paused: Paused) -> Paused:
        """Copy a paused program, in a session of its own; for `Paused.fork`."""
        with self.using(paused):
            twin = self._copy()
        deferred = {ident: found._replace(call=found.call.model_copy()) for ident, found in paused.deferred.items()}
        twin._paused = Paused(twin, deferred, paused._so_far, paused.options)
        return twin._paused

    def dump(self, key: bytes | None = None) -> bytes:
        """Bytes of the session as it is, for `Sandbox.load_session` in any process with the same image.

        They hold everything that the guest has in memory: variables, arguments, environment.

        Args:
            key: key to sign them with (HMAC-SHA-256); they are loaded with the same key only.
        """
        return self._dumped(key, ())

    def _dumped(self, key: bytes | None, pending: tuple[Pending, ...], paused: Paused | None = None) -> bytes:
        with self.using(paused):
            point = self._kept.checkpoint()
            if point is None:  # nothing has run in it
                self._touch()
                point = self._kept.checkpoint()
                assert point is not None
            return dump(self._content(point, pending), key)

    def _touch(self) -> None:
        script = session_cell_script("", None, None, name=cell_name(0), is_fork=False)
        calls = calls_of(self._functions, self._options, network=self._network)
        steps = self._script_steps(script, calls, self._options, self._environ)
        request, calls = next(steps)
        self._outcome(request, calls)

    def resumed(self, paused: Paused, answers: list[Answer]) -> CodeResult | Paused:
        """Go on with a paused program; for `Paused.resume`."""
        return self._done(self.resume_steps(paused, answers), paused)

    def resume_steps(
        self, paused: Paused, answers: list[Answer], loop: AbstractEventLoop | None = None
    ) -> Steps[CodeResult | Paused]:
        """Steps of going on with a paused program, as `cell_steps`; what ends the guest leaves the program paused."""
        options = paused.options
        given = [(answer.ident, answer.kind, answer.data) for answer in answers]
        script = resume_script(given, is_fork=self._is_fork)
        events = events_of(options)
        calls = calls_of(self._functions, options, loop, self._network, may_defer=True, **listeners(events))
        answered = {answer.ident for answer in answers}
        calls.deferred.update({ident: d for ident, d in paused.deferred.items() if ident not in answered})
        environ = merge_environment(options["env"])
        found = yield from self._script_steps(script, calls, options, environ, events)
        if isinstance(found, CodeResult) and not found.rolled_back:
            self._paused = None
        return found


def variable(name: str) -> str:
    """Name of a variable, to be evaluated.

    Raises:
        KeyError: if it is none.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise KeyError(name)
    return name


def value_got(name: str, result: CodeResult) -> Any:
    """Value of a variable, from the result of evaluating it; see `Session.get`."""
    if result.error is not None:
        if result.error.exception_name == "NameError":
            raise KeyError(name)
        raise SessionError(f"{name} cannot be had: {result.error.message}")
    if result.value is None and result.text != "None":
        raise TypeError(f"{name} is no plain data: {(result.text or '')[:200]}")
    return result.value


def check_set(result: CodeResult) -> None:
    """Raise what is wrong with setting variables; see `Session.set`."""
    if result.error is not None:
        if result.error.kind is ErrorKind.BAD_ARGUMENTS:
            raise BadArguments(result.error.message)
        raise SessionError(f"the variables were not set: {result.error.message}")


class Paused:
    """Program that waits for answers that the host did not give at once.

    Attributes:
        calls: calls that it waits for; each has an ``id``.
        session: session that it runs in.
    """

    def __init__(self, session: Session, deferred: dict[int, Any], so_far: CodeResult, options: RunOptions) -> None:
        self.session, self.deferred, self._so_far, self.options = session, deferred, so_far, options
        self.calls: list[Call] = [found.call for found in deferred.values()]

    @property
    def stdout(self) -> list[str]:
        """What it printed since it was started or resumed."""
        return self._so_far.stdout or []

    @property
    def stderr(self) -> list[str]:
        """What it wrote to standard error since then."""
        return self._so_far.stderr or []

    @property
    def displays(self) -> list[dict[str, str | bytes]]:
        """What it showed since then."""
        return self._so_far.displays

    def resume(self, answers: Mapping[int, Any]) -> CodeResult | Paused:
        """Go on with answers, of some or all of `calls`.

        Args:
            answers: id of a call -> its value, or an exception that is raised there.

        Returns:
            The result; or the program, paused once more.

        Raises:
            ValueError: if there is no answer, no such call, or a value is not of the declared type.
            TypeError: if a value cannot be handed to a guest.
            SessionError: if the session is closed, or the program was resumed already.
        """
        return self.session.resumed(self, self.checked(answers))

    def checked(self, answers: Mapping[int, Any]) -> list[Answer]:
        """Answers as the guest takes them; see `resume` for what is raised."""
        if not answers:
            raise ValueError("there is no answer to resume with")
        known = {call.id for call in self.calls}
        if unknown := sorted(set(answers) - known, key=repr):
            raise ValueError(f"the program waits for no call {unknown[0]!r} (it waits for {sorted(known)})")
        return [answer_of(self.deferred[ident].function, ident, value) for ident, value in answers.items()]

    def fork(self) -> Paused:
        """Make another program that waits for the same, in a session of its own: each is resumed in its own way.

        Raises:
            SessionError: as `resume`; or if there are as many sessions as there may be.
        """
        return self.session.forked(self)

    def dump(self, key: bytes | None = None) -> bytes:
        """Bytes of the program as it waits, for `Sandbox.load_paused`; see `Session.dump`."""
        pending = tuple(
            Pending(id=ident, name=found.function.name, arguments=found.arguments.decode("utf-8", "replace"))
            for ident, found in self.deferred.items()
        )
        return self.session._dumped(key, pending, self)

    def __repr__(self) -> str:
        return f"Paused(calls={self.calls!r})"


def load_session(box: Box, blob: bytes, key: bytes | None, **seconds: float) -> Session:
    """Session out of the bytes of `Session.dump`; see `Sandbox.load_session`."""
    loaded = load(blob, cast(Limits, box.options["limits"]), key)
    if loaded.pending:
        raise SnapshotError("the snapshot is of a paused program: take load_paused")
    return Session(box, loaded=loaded, **seconds)


def load_paused(box: Box, blob: bytes, key: bytes | None, **seconds: float) -> Paused:
    """Paused program out of the bytes of `Paused.dump`; see `Sandbox.load_paused`."""
    loaded = load(blob, cast(Limits, box.options["limits"]), key)
    if not loaded.pending:
        raise SnapshotError("the snapshot is of a session, and no paused program: take load_session")
    deferred = {}
    for waiting in loaded.pending:
        arguments = waiting.arguments.encode()
        try:
            function, call = pending_call(box.functions, waiting.id, waiting.name, arguments)
        except ValueError as error:
            raise SnapshotError(str(error)) from None
        deferred[waiting.id] = Deferred(function, call, arguments)
    session = Session(box, loaded=loaded, **seconds)
    so_far = CodeResult.model_construct(status="success", stdout=[], stderr=[], displays=[], calls=[])
    session._paused = Paused(session, deferred, so_far, box.options)
    return session._paused
