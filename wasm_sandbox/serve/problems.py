"""Problems: what is wrong with a request, in words and as ``application/problem+json`` (RFC 9457)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json
from starlette.responses import Response

from wasm_sandbox import (
    BadArguments,
    ErrorKind,
    HostError,
    ImageNotFound,
    InvalidEnvironment,
    InvalidFiles,
    SandboxError,
    SessionError,
    SnapshotError,
    ToolSourceError,
    UnsupportedIsolation,
    UnsupportedToolError,
)

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 20
"""Most faults of one body that are told."""

TITLES = {
    "bad-request": (400, "The request cannot be read"),
    "unauthorized": (401, "A token is needed"),
    "forbidden-origin": (403, "Requests of other sites are refused"),
    "forbidden-metrics": (403, "This token may not read metrics"),
    "image-forbidden": (403, "This token may not use the image"),
    "over-ceiling": (403, "A limit is above its ceiling"),
    "not-found": (404, "There is nothing here"),
    "unknown-image": (404, "There is no such image"),
    "unknown-session": (404, "There is no such session"),
    "method-not-allowed": (405, "The method does not fit"),
    "slow-request": (408, "The body did not come in time"),
    "session-busy": (409, "The session cannot be called now"),
    "stopped": (409, "The call was stopped"),
    "body-too-large": (413, "The body is too large"),
    "unsupported-media-type": (415, "The body is of another type"),
    "misdirected": (421, "The host is not this server's"),
    "invalid-body": (422, "The body does not fit"),
    "over-budget": (429, "The budget is used up"),
    "queue-full": (429, "Too many calls wait"),
    "too-many-sessions": (429, "There are too many sessions"),
    "internal": (500, "The server has a defect"),
    "not-installed": (501, "Something is not installed here"),
    "draining": (503, "The server is about to end"),
    "host-unfit": (503, "This host cannot run guests"),
    "overloaded": (503, "Too much is under way"),
}
"""Name of each problem -> status, title. The set is closed, and is the end of ``type``."""

TYPE = "urn:wasm-sandbox:problem:"


class Fault(BaseModel):
    """One fault of a body."""

    at: list[str | int]
    """Way to the field."""
    message: str
    """What is wrong, without the value."""


class ProblemDocument(BaseModel):
    """Problem as JSON (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    kind: ErrorKind | None = None
    """Kind of the error, if a run could fail with it, too."""
    faults: list[Fault] = []


class Problem(Exception):
    """Ends a request with a problem.

    Args:
        name: one of `TITLES`.
        detail: one sentence that names what is wrong, and the remedy; never a value.
        kind: kind of the error, if a run could fail with it, too.
        retry_after: seconds after which it may be tried again.
        faults: faults of a body.
        headers: further headers.
    """

    def __init__(
        self,
        name: str,
        detail: str,
        *,
        kind: ErrorKind | None = None,
        retry_after: float | None = None,
        faults: Sequence[Fault] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.name, self.detail, self.kind = name, detail, kind
        self.status, self.title = TITLES[name]
        self.faults = list(faults)
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after)))

    def document(self) -> ProblemDocument:
        """It as JSON is made of it."""
        return ProblemDocument(
            type=TYPE + self.name,
            title=self.title,
            status=self.status,
            detail=self.detail,
            kind=self.kind,
            faults=self.faults,
        )

    def response(self) -> Response:
        """Answer to the request."""
        body = to_json(self.document(), inf_nan_mode="strings")
        return Response(body, self.status, self.headers, media_type=MEDIA_TYPE)


def server_ends() -> Problem:
    """Problem of what is under way when the server ends."""
    return Problem("draining", "the server ended before this did: try again at another one", retry_after=5)


def invalid_body(error: ValidationError) -> Problem:
    """Problem of a body that does not fit its model: each fault with its place, and no value."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    if found and found[0]["type"] == "json_invalid":
        return Problem("bad-request", f"the body is no JSON: {found[0]['msg']}", kind=ErrorKind.BAD_ARGUMENTS)
    faults = [Fault(at=[_step(step) for step in one["loc"]], message=one["msg"]) for one in found[:MAX_ERRORS]]
    first = faults[0]
    place = ".".join(map(str, first.at)) or "the body"
    rest = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return Problem("invalid-body", f"{place}: {first.message}{rest}", kind=ErrorKind.BAD_ARGUMENTS, faults=faults)


def _step(step: Any) -> str | int:
    """Step to a fault; a name that the client chose is shortened."""
    return step if isinstance(step, int) else str(step)[:100].encode("utf-8", "replace").decode()


def problem_of(error: Exception) -> Problem | None:
    """Problem that an exception of the library's is; None for a defect."""
    detail = str(error).encode("utf-8", "replace").decode()
    match error:
        case Problem():
            return error
        case ValidationError():
            return invalid_body(error)
        case ToolSourceError():
            return Problem("invalid-body", detail, kind=ErrorKind.SYNTAX_ERROR)
        case ImageNotFound():
            return Problem("unknown-image", detail)
        case HostError():
            return Problem("host-unfit", detail, retry_after=5)
        case SessionError() if "as many as there may be" in detail:
            return Problem("too-many-sessions", detail, retry_after=60)
        case SessionError():
            return Problem("session-busy", detail)
        case SnapshotError():
            return Problem("invalid-body", detail, kind=ErrorKind.BAD_ARGUMENTS)
        case BadArguments() | UnsupportedToolError() | InvalidEnvironment() | InvalidFiles() | UnsupportedIsolation():
            return Problem("invalid-body", detail, kind=ErrorKind.BAD_ARGUMENTS)
        case SandboxError():
            return Problem("invalid-body", detail)
        case _:
            return None
