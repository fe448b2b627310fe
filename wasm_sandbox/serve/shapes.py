"""Shapes of bodies: what requests hold, and what answers hold, checked strictly and told in `/openapi.json`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic_core import to_json

from wasm_sandbox import CodeResult, Event, Limits, ToolExecutionResult
from wasm_sandbox.web import MAX_ENTRIES

FREE_FIELDS = frozenset({"args", "agent_state", "inputs"})
"""Fields of bodies that hold any JSON, or an object of any."""
MAX_SECONDS = 7 * 86_400

Text = Annotated[str, Field(max_length=64 << 20)]
Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS, allow_inf_nan=False)]
ImageName = Annotated[str, Field(min_length=1, max_length=200)]
Files = Annotated[dict[str, bytes], Field(max_length=MAX_ENTRIES)]
Environ = Annotated[dict[str, str], Field(max_length=MAX_ENTRIES)]


class Shape(BaseModel):
    """Body of a request: JSON, its types exact, and no field that is not known."""

    model_config = ConfigDict(extra="forbid", strict=True, val_json_bytes="base64", ser_json_bytes="base64")


class CallShape(Shape):
    """What every call may have."""

    limits: Limits | None = None
    """Limits; those that are not given are the usual ones, or the ceiling of the token if that is lower."""
    env: Environ | None = None
    """Environment variables of the guest."""


class FreshShape(CallShape):
    """What a call in a guest of its own may have."""

    image: ImageName | None = None
    """Name of the image to run in; by default the default one."""
    files: Files | None = None
    """Absolute path -> content in base64: files of the guest. With them, files that it changes are in the result."""


class ToolShape(Shape):
    """Tool call."""

    source: Text
    """Python source of the tool."""
    name: Annotated[str, Field(max_length=1000)] | None = None
    """Name of its function; by default the last one at the top level."""
    args: dict[str, JsonValue] = {}
    """Arguments."""
    agent_state: JsonValue = None
    """State that the tool may change, for one that takes ``agent_state``."""


class CodeShape(Shape):
    """Program."""

    code: Text
    """Python source; it may ``await`` at its top level. The value of its last expression is the result's."""
    inputs: dict[str, JsonValue] | None = None
    """Name of a variable that the program finds -> its value."""


class RunShape(ToolShape, FreshShape):
    """Body of ``/v1/run``."""


class RunCodeShape(CodeShape, FreshShape):
    """Body of ``/v1/code``."""


class SessionToolShape(ToolShape, CallShape):
    """Body of ``/v1/sessions/ID/run``."""


class SessionCodeShape(CodeShape, CallShape):
    """Body of ``/v1/sessions/ID/code``."""


class SessionShape(FreshShape):
    """Body of ``/v1/sessions``."""

    idle_seconds: Seconds = 900.0
    """Time after its last call at which it is closed."""
    lifetime_seconds: Seconds = 3600.0
    """Time after its making at which it is closed."""


class RollbackShape(Shape):
    """Body of ``/v1/sessions/ID/rollback``."""

    point: Annotated[str, Field(max_length=100)]
    """Name of the point, as ``checkpoint`` gave it."""


class SessionInfo(BaseModel):
    """Session."""

    id: str
    image: str
    calls: int
    """Number of its calls that have ended, without those before a fork or a load."""
    is_busy: bool
    """Whether a call of it is under way."""
    points: list[str]
    """Points to which it can be taken back, the oldest first."""
    limits: Limits
    """Ceiling of the limits of its calls."""


class SessionList(BaseModel):
    """Sessions of a client."""

    sessions: list[SessionInfo]


class PointInfo(BaseModel):
    """Point of a session's life."""

    point: str


class ImageInfo(BaseModel):
    """Image."""

    name: str
    id: str | None = None
    distributions: dict[str, str] = {}
    """Name of each package in it -> version."""


class ImageList(BaseModel):
    """Images that a client may use."""

    images: list[ImageInfo]
    limits: Limits
    """Ceiling of the client's limits."""


class Told(BaseModel):
    """Event of a stream, the last one with the result."""

    model_config = ConfigDict(ser_json_bytes="base64")

    kind: str
    text: str | None = None
    data: dict[str, Any] | None = None
    result: CodeResult | ToolExecutionResult | None = None
    status: int | None = None
    title: str | None = None
    detail: str | None = None


def result_json(result: CodeResult | ToolExecutionResult) -> bytes:
    """JSON of a result. What JSON cannot express is a string: of a value that it cannot hold at all, its ``repr``."""
    fields = result.model_dump()
    if (data := _json(fields)) is not None:
        return data
    for name in ("func_return", "agent_state", "value"):
        if fields.get(name) is not None:
            fields[name] = _repr(fields[name])
    if (data := _json(fields)) is not None:
        return data
    return to_json(writable(fields), inf_nan_mode="strings", bytes_mode="base64", fallback=_repr)


def event_json(event: Event) -> bytes:
    """JSON of an event, without fields that it has not."""
    if event.result is not None:
        return b'{"kind":"result","result":' + result_json(event.result) + b"}"
    fields = event.model_dump(exclude_none=True)
    data = _json(fields)
    return data if data is not None else to_json(writable(fields), bytes_mode="base64", fallback=_repr)


def _json(fields: Any) -> bytes | None:
    try:
        return to_json(fields, inf_nan_mode="strings", bytes_mode="base64", fallback=_repr)
    except Exception:  # cyclic, too deep, lone surrogates, ...
        return None


def _repr(value: Any) -> str:
    try:
        return repr(value).encode("utf-8", "backslashreplace").decode()
    except Exception as error:  # too deep, or an integer of too many digits
        return f"<{type(value).__name__}: {error}>"


def writable(value: Any) -> Any:
    """Plain data whose texts can be written: half of a surrogate pair is spelled out."""
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {writable(key): writable(item) for key, item in value.items()}
        case list() | tuple():
            return [writable(item) for item in value]
        case _:
            return value
