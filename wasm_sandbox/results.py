"""Result of a run, with its error and its usage.

Results and usage are made without being checked (`made`), and the models are built when something else asks for it:
the first model of a process that is built costs as much as importing pydantic (it looks for plugins).
"""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import PurePath
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from wasm_sandbox.limits import DEFER_BUILD

M = TypeVar("M", bound=BaseModel)

_set = object.__setattr__


def made(kind: type[M], fields: dict[str, Any], unset: frozenset[str] = frozenset()) -> M:
    """Make a model as `model_construct` does, in a tenth of the time: that of a short cell's result is felt.

    Args:
        kind: class of the model, without private fields.
        fields: all its fields, in the order of their declaration; the model keeps the dict.
        unset: names of those that have their defaults.
    """
    model = kind.__new__(kind)
    _set(model, "__dict__", fields)
    _set(model, "__pydantic_fields_set__", fields.keys() - unset if unset else {*fields})
    _set(model, "__pydantic_extra__", None)
    _set(model, "__pydantic_private__", None)
    return model


def amend(model: M, fields: dict[str, Any]) -> M:
    """Set fields of a model that nobody else has yet, also of a frozen one; the same model."""
    model.__dict__.update(fields)
    model.__pydantic_fields_set__.update(fields)
    return model


class ErrorKind(StrEnum):
    """Reason of a failed run. The set is closed: every failure of a guest is one of these."""

    TOOL_EXCEPTION = "tool_exception"
    """The tool, or code it called, raised an exception that nothing caught."""
    SYNTAX_ERROR = "syntax_error"
    """The tool's source does not compile."""
    BAD_ARGUMENTS = "bad_arguments"
    """An argument does not fit the tool's JSON schema or argument schema; nothing of the tool was run."""
    OUT_OF_FUEL = "out_of_fuel"
    """The instruction budget (``Limits.fuel``) was used up."""
    TIMEOUT = "timeout"
    """The deadline (``Limits.timeout_seconds``) passed."""
    OUT_OF_MEMORY = "out_of_memory"
    """The memory ceiling (``Limits.memory_bytes``) was reached and the tool did not cope."""
    STACK_OVERFLOW = "stack_overflow"
    """The guest recursed past its native stack, where CPython does not count."""
    NO_RESULT = "no_result"
    """The guest ended without writing a framed result."""
    CORRUPTED_RESULT = "corrupted_result"
    """The guest wrote a framed result that is cut, too large, or fails its checksum."""
    FORBIDDEN_RESULT = "forbidden_result"
    """The result is not plain data: decoding it would have to execute something."""
    GUEST_TRAP = "guest_trap"
    """The guest trapped for another reason than those above."""
    CANCELLED = "cancelled"
    """The caller stopped the run."""


class ToolError(BaseModel):
    """Error of a failed run: its kind, and the guest's exception if there was one."""

    model_config = ConfigDict(frozen=True, defer_build=DEFER_BUILD)

    kind: ErrorKind
    message: str
    """One human sentence; for a guest exception its ``str()``, and advice if it is about the tool's value."""
    exception_name: str | None = None
    """Class name of the guest's exception."""
    traceback: str | None = None
    """The guest's formatted traceback, with the tool's own line numbers."""


def tool_error(
    kind: ErrorKind, message: str, exception_name: str | None = None, traceback: str | None = None
) -> ToolError:
    """Make an error without a check (`made`).

    To build the model is the work of milliseconds, in which pydantic makes an error of its own of what a signal handler
    raises.
    """
    fields = {"kind": kind, "message": message, "exception_name": exception_name, "traceback": traceback}
    return made(ToolError, fields, frozenset(name for name, value in fields.items() if value is None))


class Usage(BaseModel):
    """Usage of one run."""

    model_config = ConfigDict(frozen=True, defer_build=DEFER_BUILD)

    fuel: int | None
    """Units of work done, as `Limits.fuel` counts them: the same for the same run with the same image. None if they
    were not counted."""
    wall_seconds: float
    """Wall time of the run in seconds, without the wait for a thread; up to the deadline if that ended it."""
    peak_memory_bytes: int
    """Size of the guest's linear memory at its end; it never shrinks."""
    stdout_dropped_bytes: int = 0
    """Bytes of standard output past ``Limits.output_bytes`` that were dropped."""
    stderr_dropped_bytes: int = 0
    """Bytes of standard error past ``Limits.output_bytes`` that were dropped."""
    host_calls: int = 0
    """Calls of host functions."""
    host_seconds: float = 0.0
    """Seconds that host functions took, added up."""
    host_bytes_in: int = 0
    """Bytes that the guest handed to host functions."""
    host_bytes_out: int = 0
    """Bytes that host functions handed to the guest."""


class Call(BaseModel):
    """Call of a host function."""

    model_config = ConfigDict(extra="forbid", defer_build=DEFER_BUILD, ser_json_bytes="base64", val_json_bytes="base64")

    id: int
    """Number of the call in its run, from 1."""
    name: str
    args: tuple[Any, ...] = ()
    """Arguments by position, as they were checked; empty if they did not fit, or are no longer kept: of the calls of a
    run that have ended those of the first MiB are."""
    kwargs: dict[str, Any] = {}
    """Arguments by name."""
    argument_bytes: int = 0
    """Size of the arguments as the guest sent them."""
    outcome: Literal["pending", "ok", "error", "bad_arguments", "refused", "timeout", "cancelled"] = "pending"
    """``"refused"``: by a gate or for want of a budget."""
    seconds: float = 0.0
    """Time from the guest's request to the answer."""
    cause: Any = Field(default=None, exclude=True, repr=False)
    """Exception that was raised on the host, which the guest does not see."""

    @classmethod
    def begun(cls, number: int, name: str, argument_bytes: int) -> Call:
        """Make a call that is under way, as ``model_construct`` does; but that takes a quarter of a round trip."""
        call = cls.__new__(cls)
        fields = {"id": number, "name": name, "args": (), "kwargs": {}, "argument_bytes": argument_bytes}
        fields |= {"outcome": "pending", "seconds": 0.0, "cause": None}
        object.__setattr__(call, "__dict__", fields)
        object.__setattr__(call, "__pydantic_fields_set__", set(fields))
        object.__setattr__(call, "__pydantic_extra__", None)
        object.__setattr__(call, "__pydantic_private__", None)
        return call


class Connection(BaseModel):
    """Connection of a run, or one that it asked for."""

    model_config = ConfigDict(extra="forbid", defer_build=DEFER_BUILD)

    id: int
    """Number of the connection in its run, from 1."""
    host: str
    """Name that was asked for, in its canonical form."""
    port: int
    address: str | None = None
    """Address that was connected to; of a proxy, if there is one."""
    tls: bool = False
    outcome: Literal["open", "closed", "refused", "failed"] = "open"
    """``"refused"``: by the policy, before or after its name was looked up."""
    reason: str | None = None
    """Why it was refused or failed, for whoever wrote the policy: which rule was missing."""
    bytes_out: int = 0
    """Bytes that were sent, without those of TLS."""
    bytes_in: int = 0
    """Bytes that came, without those of TLS."""
    seconds: float = 0.0
    """Time from the guest's connect to the end."""
    _began: float = PrivateAttr(default=0.0)

    @classmethod
    def begun(cls, number: int, host: str, port: int) -> Connection:
        """Make a record of a connection that is asked for now."""
        made = cls.model_construct(id=number, host=host, port=port)
        made._began = time.monotonic()
        return made

    def end_at(self, now: float, outcome: Literal["closed", "refused", "failed"] = "closed") -> None:
        """Note how it ended, unless that is known; time on the clock of `time.monotonic`."""
        if self.outcome == "open":
            self.outcome, self.seconds = outcome, now - self._began


class Request(BaseModel):
    """HTTP request of a run, as it was sent or refused."""

    model_config = ConfigDict(extra="forbid", defer_build=DEFER_BUILD)

    id: int = 0
    """Number of the request in its run, from 1."""
    connection: int = 0
    """Number of its connection; 0 if none was needed, in a replay."""
    method: str
    url: str
    headers: dict[str, str] = {}
    """Headers as the guest sent them: with placeholders, and never with the values of secrets."""
    status: int | None = None
    """Status of the answer, once there is one."""
    outcome: Literal["pending", "ok", "refused", "failed"] = "pending"
    """``"ok"``: the whole answer came, or at least its status before the guest closed the connection."""
    reason: str | None = None
    """Why it was refused or failed, for whoever wrote the policy: which rule was missing."""
    bytes_out: int = 0
    """Size of its body."""
    bytes_in: int = 0
    """Size of the answer's body."""


class CodeResult(BaseModel):
    """Result of code of a user's own. In JSON, bytes are base64."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", defer_build=DEFER_BUILD)

    status: Literal["success", "error"]
    value: Any = None
    """Value of the last expression as plain data; ``None`` if there is none, or it is no data."""
    text: str | None = None
    """``repr`` of that value; ``None`` if the code does not end in an expression."""
    stdout: list[str] | None = None
    """What the code printed, one item (no item if it printed nothing)."""
    stderr: list[str] | None = None
    """What the guest wrote to standard error, one item (no item if nothing)."""
    displays: list[dict[str, str | bytes]] = []
    """Bundles that were shown, in order: MIME type -> text or bytes."""
    files: dict[str, bytes] | None = None
    """As of a tool's result."""
    error: ToolError | None = None
    """Error of the run; ``None`` exactly when ``status`` is ``"success"``."""
    usage: Usage | None = None
    calls: list[Call] = []
    """Calls of host functions, in order."""
    connections: list[Connection] = []
    """Connections that were asked for, in order, refused ones too: the first 1,000."""
    requests: list[Request] = []
    """HTTP requests, in order: the first 1,000."""
    rolled_back: bool = False
    """Whether a session was taken back to what it was before this call."""

    @property
    def success_flag(self) -> bool:
        """Whether the run succeeded."""
        return self.status == "success"


class ToolExecutionResult(BaseModel):
    """Result of one tool run, in the shape that agent servers already use. In JSON, bytes are base64."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", defer_build=DEFER_BUILD)

    status: Literal["success", "error"]
    func_return: Any = None
    """The tool's value as plain data; on an error, a friendly text that names it."""
    agent_state: Any = None
    """The agent state after the run; always ``None`` on an error."""
    stdout: list[str] | None = None
    """What the tool printed, one item (no item if it printed nothing)."""
    stderr: list[str] | None = None
    """What the guest wrote to standard error, one item (no item if nothing)."""
    sandbox_config_fingerprint: str | None = None
    error: ToolError | None = None
    """Error of the run; ``None`` exactly when ``status`` is ``"success"``."""
    usage: Usage | None = None
    """Usage of the run; ``None`` if nothing was run, or nothing measured."""
    files: dict[str, bytes] | None = None
    """Path -> content of every file in memory that the tool created or changed; what it deleted is not there.
    ``None`` when neither files nor mounts were given, and always on an error."""

    calls: list[Call] | None = None
    """Calls of host functions, in order; ``None`` if the tool was given none."""
    connections: list[Connection] | None = None
    """Connections that were asked for, in order, refused ones too: the first 1,000. ``None`` if the run had
    no network."""
    requests: list[Request] | None = None
    """HTTP requests, in order: the first 1,000; ``None`` if the run had no network."""
    rolled_back: bool = False
    """Whether a session was taken back to what it was before this call."""

    @property
    def success_flag(self) -> bool:
        """Whether the run succeeded."""
        return self.status == "success"


class Event(BaseModel):
    """Event of a run that is under way, and its result at last."""

    model_config = ConfigDict(
        frozen=True, ser_json_bytes="base64", val_json_bytes="base64", defer_build=DEFER_BUILD, extra="forbid"
    )

    kind: Literal["stdout", "stderr", "display", "progress", "call", "result"]
    text: str | None = None
    """Piece of output; of progress, what is being done."""
    data: dict[str, Any] | None = None
    """Bundle that was shown, MIME type -> text or bytes; of progress ``done`` and ``total``, which may be None."""
    call: Call | None = None
    """Call of a host function, as it was then: ``"pending"`` when it began, and with its outcome when it had ended."""
    result: CodeResult | ToolExecutionResult | None = None
    """Result of the run: in the last event, and in no other."""


def document(result: ToolExecutionResult, code: CodeResult | None = None) -> str:
    """JSON document of a whole result; of code of a user's own with its value, text and displays."""
    fields = result.model_dump()
    values = ["func_return", "agent_state"]
    if code is not None:
        fields |= {"value": code.value, "text": code.text, "displays": code.displays}
        values.append("value")
    text = _json(fields)
    if text is None:  # something that JSON cannot express, such as half a surrogate pair
        shown = {name: _repr(fields[name]) for name in values if fields[name] is not None}
        text = _json({**fields, **shown})
        text = text or _json({**fields, **dict.fromkeys([*values, *(["text", "displays"] if code else [])])})
    return text or "{}"


def value_text(value: Any) -> str:
    """A tool's value for a reader: a string as it is, anything else as JSON."""
    if isinstance(value, str):
        return value
    return _json(value) or _repr(value)


def _json(value: Any) -> str | None:
    from pydantic_core import to_json  # lazy: only where a result is written down

    try:
        return to_json(value, indent=2, bytes_mode="base64", inf_nan_mode="strings", fallback=_text).decode()
    except Exception:  # cyclic, too deep, lone surrogates, ...
        return None


def _text(value: Any) -> str:
    return str(value) if isinstance(value, PurePath) else _repr(value)


def _repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:  # too deep, or an integer of too many digits
        return f"<{type(value).__name__}: {error}>"
