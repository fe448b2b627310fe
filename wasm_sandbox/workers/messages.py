"""What crosses between the host and a worker process: plain data. The host reads a worker's as hostile.

A guest that broke out of WebAssembly owns its worker. Were the worker's words a pickle, as those of every
pool of the standard library are, it would own the host next. So they are JSON of a fixed shape, and bytes.

A message is the length of its head (4 bytes) and of its body (8 bytes), big-endian, then both.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, fields
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from wasm_sandbox.decode.frame import HEADER_BYTES
from wasm_sandbox.errors import InvalidFiles
from wasm_sandbox.files import GivenFiles, check_path
from wasm_sandbox.limits import Limits
from wasm_sandbox.outcome import Ending, GuestException, Outcome
from wasm_sandbox.request import ExecutionRequest

MAX_HEAD_BYTES = 16 << 20
"""Of a reply: the exception report, at most 1 MiB of text, escaped."""
BODY_SLACK_BYTES = 4 << 20

_SIZES = struct.Struct(">IQ")
_CHUNK_BYTES = 1 << 20


class MessageError(Exception):
    """A message is not what was agreed on."""


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Ready(_Reply):
    """The worker has loaded the image and waits for requests."""

    kind: Literal["ready"] = "ready"
    restrictions: list[str]
    """What the worker took from itself, in words."""
    lacking: list[str]
    """What it could not, and why."""


class Failed(_Reply):
    """The worker cannot run guests, or failed in something that is not a guest's doing."""

    kind: Literal["failed"] = "failed"
    name: str
    """Class name of the exception."""
    message: str


class _Exception(_Reply):
    name: str
    message: str
    traceback: str


_Count = Annotated[int, Field(ge=0, lt=2**63)]


class Ended(_Reply):
    """A run ended; standard output, standard error and the files are the body."""

    kind: Literal["ended"] = "ended"
    ending: Ending
    exit_code: Annotated[int, Field(ge=-(2**63), lt=2**63)]
    exception: _Exception | None
    detail: str
    stdout_bytes: _Count
    stderr_bytes: _Count
    stdout_dropped_bytes: _Count
    stderr_dropped_bytes: _Count
    fuel: _Count | None
    wall_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    memory_bytes: _Count
    host_calls: _Count
    files: list[tuple[str, _Count]] | None
    """Path and size of each; the contents follow in the body."""


Reply = Ready | Failed | Ended
_reply = TypeAdapter[Reply](Annotated[Reply, Field(discriminator="kind")])


def write_message(stream: Any, head: bytes, body: bytes = b"") -> None:
    """Write a message to an unbuffered binary stream."""
    for part in (_SIZES.pack(len(head), len(body)) + head, body):
        view = memoryview(part)
        while view:
            view = view[stream.write(view) :]


def read_message(stream: Any, max_head: int = MAX_HEAD_BYTES, max_body: int = 0) -> tuple[bytes, bytes]:
    """The head and the body of the next message of an unbuffered binary stream.

    Raises:
        EOFError: if the stream ends first.
        MessageError: if one of them is longer than allowed.
    """
    head_size, body_size = _SIZES.unpack(_read(stream, _SIZES.size))
    if head_size > max_head or body_size > max_body:
        raise MessageError(f"a message of {head_size} and {body_size} bytes; {max_head} and {max_body} are allowed")
    return _read(stream, head_size), _read(stream, body_size)


def _read(stream: Any, size: int) -> bytes:
    parts, left = [], size
    while left:  # what is declared is believed only as it comes
        part = stream.read(min(left, _CHUNK_BYTES))
        if not part:
            raise EOFError
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def encode_request(request: ExecutionRequest) -> tuple[bytes, bytes]:
    """Head and body of a request."""
    head = {field.name: getattr(request, field.name) for field in fields(request) if field.name != "peer"}
    script = head.pop("script").encode("utf-8", "surrogatepass")
    head |= {"environ": dict(request.environ), "limits": request.limits.model_dump(), "script_bytes": len(script)}
    head["values"] = [len(value) for value in request.values]
    files = request.given.files if request.given else {}
    if request.given is not None:
        head["given"] = [(path, len(content)) for path, content in files.items()]
    return json.dumps(head).encode(), b"".join([script, *request.values, *files.values()])


def decode_request(head: bytes, body: bytes) -> ExecutionRequest:
    """The request that the host encoded; the host is trusted."""
    values = json.loads(head)
    limits, script_bytes, listed = Limits(**values.pop("limits")), values.pop("script_bytes"), values.pop("given")
    at, parts = script_bytes, []
    for size in values.pop("values"):
        parts.append(body[at : at + size])
        at += size
    given = None if listed is None else GivenFiles(_contents(listed, body[at:]), {})
    script = body[:script_bytes].decode("utf-8", "surrogatepass")
    return ExecutionRequest(script, limits=limits, given=given, values=tuple(parts), **values)


def _contents(listed: list[tuple[str, int]], data: bytes) -> dict[str, bytes]:
    """The files that are listed by path and size."""
    files, at = {}, 0
    for path, size in listed:
        files[path] = data[at : at + size]
        at += size
    return files


def encode_outcome(outcome: Outcome) -> tuple[bytes, bytes]:
    """Head and body of the reply to a request."""
    values = asdict(outcome)
    stdout, stderr, files = values.pop("stdout"), values.pop("stderr"), values.pop("files")
    listed = None if files is None else [(path, len(content)) for path, content in files.items()]
    ended = Ended(stdout_bytes=len(stdout), stderr_bytes=len(stderr), files=listed, **values)
    return encode_reply(ended), b"".join([stdout, stderr, *(files or {}).values()])


def encode_reply(reply: Reply) -> bytes:
    """The head of a reply."""
    return reply.model_dump_json().encode()


def decode_reply(head: bytes) -> Reply:
    """A worker's reply, checked.

    Raises:
        MessageError: if it is none.
    """
    try:
        return _reply.validate_json(head)
    except ValidationError as error:
        raise MessageError(f"{error.error_count()} things are wrong with a reply") from None


def outcome_of(ended: Ended, body: bytes, limits: Limits) -> Outcome:
    """The outcome that a reply tells of.

    Raises:
        MessageError: if the body is not as long as the reply says; a file has no proper path, or is there twice; or
            the files are more than the limits allow.
    """
    listed = ended.files or []
    if len(listed) > limits.file_count or sum(size for _, size in listed) > limits.files_bytes:
        raise MessageError(f"{len(listed)} files, which are more than was allowed")
    if len({path for path, _ in listed}) < len(listed):
        raise MessageError("files of the same path")
    stderr_end = ended.stdout_bytes + ended.stderr_bytes
    if stderr_end + sum(size for _, size in listed) != len(body):
        raise MessageError(f"{len(body)} bytes of output and files, which is not what the reply says")
    files = None if ended.files is None else _contents(listed, body[stderr_end:])
    try:
        for path in files or {}:
            check_path("files", path)
    except InvalidFiles as error:
        raise MessageError(str(error)) from None
    values = ended.model_dump(exclude={"kind", "stdout_bytes", "stderr_bytes", "exception", "files"})
    exception = GuestException(**ended.exception.model_dump()) if ended.exception else None
    stdout, stderr = body[: ended.stdout_bytes], body[ended.stdout_bytes : stderr_end]
    return Outcome(**values, exception=exception, stdout=stdout, stderr=stderr, files=files)


def max_output_bytes(limits: Limits) -> int:
    """The longest body that an honest worker replies with: what `execution.execute` keeps of output and files."""
    output = 2 * limits.output_bytes + 3 * (limits.result_bytes + HEADER_BYTES)
    return output + limits.files_bytes + BODY_SLACK_BYTES
