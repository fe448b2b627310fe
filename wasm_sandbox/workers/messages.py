"""What crosses between the host and a worker process: plain data. The host reads a worker's as hostile.

A guest that broke out of WebAssembly owns its worker. Were the worker's words a pickle, as those of every
pool of the standard library are, it would own the host next. So they are a little JSON of a fixed shape, and bytes.

A message is the length of its head (4 bytes) and of its body (8 bytes), big-endian, then both.
"""

from __future__ import annotations

import json
import struct
from typing import Annotated, Any, Literal, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from wasm_sandbox.decode.frame import HEADER_BYTES
from wasm_sandbox.engine import Checkpoint, Count, Elapsed, PointHead, Rest, cut, head_of
from wasm_sandbox.errors import InvalidFiles, SnapshotError
from wasm_sandbox.files import MAX_PATH_BYTES, GivenFiles, check_path
from wasm_sandbox.limits import Limits
from wasm_sandbox.outcome import Ending, GuestException, Outcome
from wasm_sandbox.request import Answer, ExecutionRequest

MAX_HEAD_BYTES = 4 << 10
"""Of a reply, which is of numbers and a few words, so that nothing in it can be many: texts are in the body."""

DECODER_BYTES = 1 << 20
"""More than pydantic's reader of JSON allocates when it is first used (256 KiB, in pydantic-core 2.50)."""

MAX_POINT_HEAD_BYTES = 16 << 20
"""Of the head of a checkpoint, which tells of each range of memory, and each file."""

MAX_TEXT_CHARACTERS = 16 << 10
"""Of a text of the engine's or of the host's; more is left out by whoever sends it."""

MAX_REPORT_BYTES = 4 << 20
"""Of a report of an exception: the guest's 1 MiB, in which each wrong byte has become a character of three."""

BODY_SLACK_BYTES = 4 << 20

_SIZES = struct.Struct(">IQ")
_FILE = struct.Struct(">HQ")  # bytes of a path, and of its file
_CHUNK_BYTES = 1 << 20
_ORDER = struct.Struct(">cQ??I")
"""In front of a request: its kind, the run, whether it has a channel and is tapped, bytes of the head of a guest at
rest."""
_ANSWER = struct.Struct(">cQBI")  # head of an answer: its kind, and kind and number of the answer


class MessageError(Exception):
    """A message is not what was agreed on."""


class WorkerFailed(MessageError):
    """A worker says that it failed in something that is not a guest's doing.

    Args:
        name: class name of its exception.
        message: text of its exception.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name, self.message = name, message


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Words = Annotated[list[Annotated[str, Field(max_length=1000)]], Field(max_length=10)]


class Ready(_Reply):
    """The worker has loaded the image and waits for requests."""

    kind: Literal["ready"] = "ready"
    restrictions: _Words
    """What the worker took from itself, in words."""
    lacking: _Words
    """What it could not, and why."""


class Failed(_Reply):
    """The worker cannot run guests, or failed in something that is not a guest's doing; the body says why."""

    kind: Literal["failed"] = "failed"
    name: Annotated[str, Field(max_length=100)]
    """Class name of the exception."""
    message_bytes: _Count


class Ended(_Reply):
    """A run ended. The body has, one after the other, what the fields that end in ``_bytes`` give the sizes of."""

    kind: Literal["ended"] = "ended"
    ending: Ending
    exit_code: Annotated[int, Field(ge=-(2**63), lt=2**63)]
    stdout_dropped: _Count
    stderr_dropped: _Count
    fuel: _Count | None
    wall_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    memory: _Count
    host_calls: _Count
    files: _Count | None
    """Number of files."""
    stdout_bytes: _Count
    stderr_bytes: _Count
    detail_bytes: _Count
    exception_bytes: tuple[_Count, _Count, _Count] | None
    """Of its name, message and traceback."""
    is_over: bool
    """Whether a guest that is visited cannot be called again; if it can, its checkpoint is the next message."""
    paths_bytes: _Count
    """Of the list of files: the size of each path, that of its file, and the path."""
    contents_bytes: _Count
    answer: _Count | None
    """Size of the guest's answer to a call, 0 if there is none; None if it was none."""
    answer_bytes: _Count | None
    """The same, if it is in the body."""

    @property
    def sizes(self) -> list[int]:
        """Sizes of all parts of the body, in order."""
        exception = self.exception_bytes or (0, 0, 0)
        before = [self.stdout_bytes, self.stderr_bytes, self.detail_bytes]
        return [*before, *exception, self.paths_bytes, self.contents_bytes, self.answer_bytes or 0]


class Called(_Reply):
    """The guest asks something of the host; the body is the request's."""

    kind: Literal["called"] = "called"
    run: _Count
    op: Annotated[int, Field(ge=0, lt=2**8)]
    ident: Annotated[int, Field(ge=0, lt=2**32)]
    too_long: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    """Size of a request that was too long to be sent."""


_before = TypeAdapter[Ready | Failed](Annotated[Ready | Failed, Field(discriminator="kind")])
_after = TypeAdapter[Ended | Failed | Called](Annotated[Ended | Failed | Called, Field(discriminator="kind")])

Buffer = bytes | bytearray


def write_message(stream: Any, head: bytes, body: bytes = b"") -> None:
    """Write a message to an unbuffered binary stream."""
    for part in (_SIZES.pack(len(head), len(body)) + head, body):
        view = memoryview(part)
        while view:
            view = view[stream.write(view) :]


def read_message(stream: Any, max_head: int, max_body: int) -> tuple[Buffer, Buffer]:
    """The head and the body of the next message of an unbuffered binary stream.

    Raises:
        EOFError: if the stream ends first.
        MessageError: if one of them is longer than allowed.
    """
    head, body_size = _read_head(stream, max_head, max_body)
    return head, _read(stream, body_size)


def _read_head(stream: Any, max_head: int, max_body: int) -> tuple[Buffer, int]:
    """The head of the next message, and the size of its body."""
    head_size, body_size = _SIZES.unpack(_read(stream, _SIZES.size))
    if head_size > max_head or body_size > max_body:
        raise MessageError(f"a message of {head_size} and {body_size} bytes; {max_head} and {max_body} are allowed")
    return _read(stream, head_size), body_size


def _read(stream: Any, size: int) -> Buffer:
    whole: Buffer = b""
    while (left := size - len(whole)) > 0:  # what is declared is believed only as it comes
        part = stream.read(min(left, _CHUNK_BYTES))
        if not part:
            raise EOFError
        if not whole:
            whole = part
            continue
        if isinstance(whole, bytes):
            whole = bytearray(whole)
        whole += part
    return whole


_NOT_SENT = ("peer", "tap")


def encode_request(request: ExecutionRequest) -> tuple[bytes, bytes]:
    """Head and body of a request."""
    head = {name: value for name, value in request._asdict().items() if name not in _NOT_SENT}
    script = head.pop("script").encode("utf-8", "surrogatepass")
    head |= {"environ": dict(request.environ), "limits": request.limits.model_dump(), "script_bytes": len(script)}
    head["values"] = [len(value) for value in request.values]
    files = request.given.files if request.given else {}
    if request.given is not None:
        head["given"] = [(path, len(content)) for path, content in files.items()]
    head["call"] = len(request.call)
    return json.dumps(head).encode(), b"".join([script, *request.values, request.call, *files.values()])


def decode_request(head: Buffer, body: Buffer | memoryview) -> ExecutionRequest:
    """The request that the host encoded; the host is trusted."""
    values, view = json.loads(head), memoryview(body)
    limits, script_bytes, listed = Limits(**values.pop("limits")), values.pop("script_bytes"), values.pop("given")
    at, parts = script_bytes, []
    for size in values.pop("values"):
        parts.append(bytes(view[at : at + size]))
        at += size
    end = at + values.pop("call")
    call = bytes(view[at:end])
    given = None if listed is None else GivenFiles(_contents(listed, view[end:]), {})
    script = str(view[:script_bytes], "utf-8", "surrogatepass")
    return ExecutionRequest(script, limits=limits, given=given, values=tuple(parts), call=call, **values)


def _contents(listed: list[tuple[str, int]], data: memoryview) -> dict[str, bytes]:
    """The files that are listed by path and size."""
    files, at = {}, 0
    for path, size in listed:
        files[path] = bytes(data[at : at + size])
        at += size
    return files


class Order(NamedTuple):
    """Run that the host wants."""

    run: int
    """Number of the run on this worker, from 1."""
    has_channel: bool
    is_tapped: bool
    request: ExecutionRequest
    rest: Rest | None
    """Guest at rest to run it in; None for a fresh one."""


class Answered(NamedTuple):
    """Answer of the host's to a request of a guest."""

    run: int
    answer: Answer


class _RestHead(BaseModel):
    elapsed: tuple[Count, Count]
    calls: Count
    limits: Limits
    point: PointHead | None


def encode_order(run: int, request: ExecutionRequest, rest: Rest | None = None) -> tuple[bytes, bytes]:
    """Head and body of a request, with the number of its run, and the guest that it is for."""
    head, body = encode_request(request)
    resting, parts = b"", []
    if rest is not None:
        point = rest.point
        resting = (
            _RestHead(
                elapsed=tuple(rest.elapsed),
                calls=rest.calls,
                limits=rest.limits,
                point=head_of(point) if point else None,
            )
            .model_dump_json()
            .encode()
        )
        parts = point.parts if point else []
    order = _ORDER.pack(b"R", run, request.peer is not None, request.tap is not None, len(resting))
    return b"".join([order, resting, head]), b"".join([*parts, body])


def encode_answer(run: int, answer: Answer) -> tuple[bytes, bytes]:
    """Head and body of an answer."""
    return _ANSWER.pack(b"A", run, answer.kind, answer.ident), answer.data


def decode_order(head: Buffer, body: Buffer) -> Order | Answered:
    """What the host sends, which is trusted."""
    if head[:1] == b"A":
        _, run, kind, ident = _ANSWER.unpack(head)
        return Answered(run, Answer(kind, ident, bytes(body)))
    _, run, has_channel, is_tapped, size = _ORDER.unpack_from(head)
    start, rest = _ORDER.size + size, None
    view = memoryview(body)
    if size:
        resting = _RestHead.model_validate_json(head[_ORDER.size : start])
        sizes = resting.point.sizes if resting.point else []
        point = resting.point.point(cut(view, sizes)) if resting.point else None
        rest = Rest(point, Elapsed(*resting.elapsed), resting.calls, resting.limits)
        view = view[sum(sizes) :]
    return Order(run, has_channel, is_tapped, decode_request(head[start:], view), rest)


def encode_call(
    run: int, op: int, ident: int, payload: bytes = b"", too_long: int | None = None
) -> tuple[bytes, bytes]:
    """Head and body of what a guest asks of the host."""
    size = "null" if too_long is None else too_long
    return f'{{"kind":"called","run":{run},"op":{op},"ident":{ident},"too_long":{size}}}'.encode(), payload


def encode_outcome(outcome: Outcome) -> tuple[bytes, bytes]:
    """Head and body of the reply to a request."""
    exception, files = outcome.exception, outcome.files or {}
    texts = [outcome.detail[-MAX_TEXT_CHARACTERS:]]  # the last line says most
    texts += [exception.name, exception.message, exception.traceback] if exception else []
    encoded = [text.encode("utf-8", "replace") for text in texts]
    paths = [(path.encode(), len(content)) for path, content in files.items()]
    listed = b"".join(_FILE.pack(len(path), size) + path for path, size in paths)
    ended = Ended(
        ending=outcome.ending,
        exit_code=outcome.exit_code,
        stdout_dropped=outcome.stdout_dropped_bytes,
        stderr_dropped=outcome.stderr_dropped_bytes,
        fuel=outcome.fuel,
        wall_seconds=outcome.wall_seconds,
        memory=outcome.memory_bytes,
        host_calls=outcome.host_calls,
        files=None if outcome.files is None else len(files),
        stdout_bytes=len(outcome.stdout),
        stderr_bytes=len(outcome.stderr),
        detail_bytes=len(encoded[0]),
        exception_bytes=(len(encoded[1]), len(encoded[2]), len(encoded[3])) if exception else None,
        is_over=outcome.is_over,
        paths_bytes=len(listed),
        contents_bytes=sum(size for _, size in paths),
        answer=outcome.answer_bytes,
        answer_bytes=None if outcome.answer is None else len(outcome.answer),
    )
    body = b"".join([outcome.stdout, outcome.stderr, *encoded, listed, *files.values(), outcome.answer or b""])
    return ended.model_dump_json().encode(), body


class _Point(PointHead):
    old: Annotated[list[Annotated[int, Field(strict=True, ge=-1, lt=1 << 31)]], Field(max_length=MAX_POINT_HEAD_BYTES)]
    """Of each part, its place among those of the checkpoint that the worker was given; -1 if it is in the body."""


def encode_point(point: Checkpoint, before: Checkpoint | None) -> tuple[bytes, bytes]:
    """Head and body of a checkpoint.

    Args:
        point: the checkpoint.
        before: that which the host has; parts that are shared with it (the same objects) are not sent.
    """
    known = {id(part): place for place, part in enumerate(before.parts)} if before else {}
    old = [known.get(id(part), -1) for part in point.parts]
    new = [part for part, place in zip(point.parts, old, strict=True) if place < 0]
    return _Point(**dict(head_of(point)), old=old).model_dump_json().encode(), b"".join(new)


def encode_ready(restrictions: list[str], lacking: list[str]) -> tuple[bytes, bytes]:
    """Head and body of what a worker says first."""
    return Ready(restrictions=restrictions, lacking=lacking).model_dump_json().encode(), b""


def encode_failure(error: BaseException) -> tuple[bytes, bytes]:
    """Head and body of the reply of a worker that failed."""
    message = str(error)[:MAX_TEXT_CHARACTERS].encode("utf-8", "replace")
    return Failed(name=type(error).__name__[:100], message_bytes=len(message)).model_dump_json().encode(), message


def read_ready(stream: Any) -> tuple[Ready | Failed, str]:
    """What a worker says first, and why it failed if that is what it says.

    Raises:
        EOFError: if the stream ends first.
        MessageError: if it says anything else.
        MemoryError: if there is hardly any memory left.
    """
    head, size = _read_head(stream, MAX_HEAD_BYTES, 4 * MAX_TEXT_CHARACTERS)
    bytearray(DECODER_BYTES)  # pydantic's native code aborts the process where it gets none: this raises
    reply = _decoded(_before, head)
    if size != (reply.message_bytes if isinstance(reply, Failed) else 0):
        raise MessageError(f"a body of {size} bytes, which is not what the reply says")
    return reply, _text(_read(stream, size))


class Calls(Protocol):
    """Who takes what a guest asks of the host."""

    @property
    def max_request_bytes(self) -> int:
        """Most bytes of the next request."""

    def ask(self, request: Called, payload: bytes) -> None:
        """Take a request; MessageError, if it is not due."""


def read_outcome(stream: Any, limits: Limits, calls: Calls | None = None) -> Outcome:
    """The outcome that a worker replies with to a request.

    Nothing is read that the limits do not allow, and nothing but a head before its sizes have been compared.

    Args:
        stream: pipe from the worker.
        limits: limits of the run.
        calls: takes what the guest asks until then, if it may ask anything.

    Raises:
        EOFError: if the stream ends first.
        WorkerFailed: if the worker says that it failed.
        MessageError: if it says anything else; a file has no proper path, or is there twice; or there is more than an
            honest worker sends within these limits.
    """
    most_asked = calls.max_request_bytes if calls else 0
    most = max(max_output_bytes(limits), most_asked)
    while True:
        head, size = _read_head(stream, MAX_HEAD_BYTES, most)
        reply = _decoded(_after, head)
        if not isinstance(reply, Called):
            break
        if calls is None or size > most_asked:
            raise MessageError(f"a request of {size} bytes; {most_asked} are allowed")
        calls.ask(reply, bytes(_read(stream, size)))
    if isinstance(reply, Failed):
        if size != reply.message_bytes or size > 4 * MAX_TEXT_CHARACTERS:
            raise MessageError(f"a message of {size} bytes of a worker that failed")
        raise WorkerFailed(reply.name, _text(_read(stream, size)))
    _check_sizes(reply, size, limits)
    return _outcome(reply, memoryview(_read(stream, size)))


def read_point(stream: Any, limits: Limits, before: Checkpoint | None) -> Checkpoint:
    """The checkpoint of a guest that a worker has visited, which is as hostile as the bytes of a session.

    Args:
        stream: pipe from the worker.
        limits: limits of the guest, which bound what is read.
        before: checkpoint that the worker was given.

    Raises:
        EOFError: if the stream ends first.
        MessageError: if it is none of a guest within these limits.
    """
    most_head = min(MAX_POINT_HEAD_BYTES, max_point_head_bytes(limits))
    head, size = _read_head(stream, most_head, limits.memory_bytes + limits.files_bytes)
    try:
        said = _Point.model_validate_json(head)
        said.check(limits)
    except ValidationError as error:
        raise MessageError(f"{error.error_count()} things are wrong with a checkpoint") from None
    except SnapshotError as error:
        raise MessageError(str(error)) from None
    sizes, had = said.sizes, before.parts if before else []
    if len(said.old) != len(sizes) or any(
        place >= len(had) or (place >= 0 and len(had[place]) != part_size)
        for place, part_size in zip(said.old, sizes, strict=False)
    ):
        raise MessageError("a checkpoint of parts that the worker was not given")
    new = [part_size for place, part_size in zip(said.old, sizes, strict=True) if place < 0]
    if sum(new) != size:
        raise MessageError(f"{size} bytes of a checkpoint, which is not what its head says")
    fresh = iter(cut(_read(stream, size), new))
    return said.point([had[place] if place >= 0 else next(fresh) for place in said.old])


Adapted = TypeVar("Adapted")


def _decoded(kinds: TypeAdapter[Adapted], head: Buffer) -> Adapted:
    try:
        return kinds.validate_json(head)
    except ValidationError as error:
        raise MessageError(f"{error.error_count()} things are wrong with a reply") from None


def _text(data: Buffer | memoryview) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        raise MessageError("a text that is none") from None


def _check_sizes(ended: Ended, body_size: int, limits: Limits) -> None:
    if sum(ended.sizes) != body_size:
        raise MessageError(f"{body_size} bytes of output and files, which is not what the reply says")
    if ended.answer_bytes not in (None, ended.answer):
        raise MessageError(f"an answer of {ended.answer} bytes, of which there are {ended.answer_bytes}")
    count = ended.files or 0
    if count > limits.file_count or ended.contents_bytes > limits.files_bytes:
        raise MessageError(f"{count} files of {ended.contents_bytes} bytes, which are more than was allowed")
    most = {
        "the engine's words": (ended.detail_bytes, 4 * MAX_TEXT_CHARACTERS),
        "a report": (sum(ended.exception_bytes or ()), MAX_REPORT_BYTES),
        "paths": (ended.paths_bytes, count * (_FILE.size + MAX_PATH_BYTES)),
        "an answer": (ended.answer_bytes or 0, limits.result_bytes),
        "output": (ended.stdout_bytes + ended.stderr_bytes, max_stream_bytes(limits)),
    }
    for what, (size, allowed) in most.items():
        if size > allowed:
            raise MessageError(f"{what} of {size} bytes; {allowed} are allowed")


def _outcome(ended: Ended, body: memoryview) -> Outcome:
    parts, at = [], 0
    for size in ended.sizes:
        parts.append(body[at : at + size])
        at += size
    stdout, stderr, detail, name, message, traceback, paths, contents, answer = parts
    exception = None
    if ended.exception_bytes is not None:
        exception = GuestException(_text(name), _text(message), _text(traceback))
    return Outcome(
        ending=ended.ending,
        exit_code=ended.exit_code,
        exception=exception,
        detail=_text(detail),
        stdout=bytes(stdout),
        stderr=bytes(stderr),
        stdout_dropped_bytes=ended.stdout_dropped,
        stderr_dropped_bytes=ended.stderr_dropped,
        fuel=ended.fuel,
        wall_seconds=ended.wall_seconds,
        memory_bytes=ended.memory,
        host_calls=ended.host_calls,
        files=_contents(_listed(paths, ended.files or 0, len(contents)), contents) if ended.files is not None else None,
        answer=None if ended.answer_bytes is None else bytes(answer),
        answer_bytes=ended.answer,
        is_over=ended.is_over or ended.ending is not Ending.EXITED,
    )


def _listed(paths: memoryview, count: int, contents_bytes: int) -> list[tuple[str, int]]:
    """Path and size of each file, the first that is wrong refused."""
    found: dict[str, int] = {}
    at = total = 0
    for _ in range(count):
        if at + _FILE.size > len(paths):
            raise MessageError("fewer paths than files")
        path_size, size = _FILE.unpack_from(paths, at)
        at += _FILE.size
        path = _text(paths[at : at + path_size])
        at += path_size
        total += size
        try:
            check_path("files", path)
        except InvalidFiles as error:
            raise MessageError(str(error)) from None
        if path in found:
            raise MessageError("files of the same path")
        found[path] = size
    if at != len(paths) or total != contents_bytes:
        raise MessageError("a list of files that is not what the reply says")
    return list(found.items())


def max_stream_bytes(limits: Limits) -> int:
    """The most of standard output and error that `execution.execute` keeps."""
    return 2 * limits.output_bytes + 3 * (limits.result_bytes + HEADER_BYTES) + BODY_SLACK_BYTES


def max_output_bytes(limits: Limits) -> int:
    """The longest body that an honest worker replies with."""
    paths = limits.file_count * (_FILE.size + MAX_PATH_BYTES)
    texts = MAX_REPORT_BYTES + 4 * MAX_TEXT_CHARACTERS
    return max_stream_bytes(limits) + texts + paths + limits.files_bytes + limits.result_bytes


def max_point_head_bytes(limits: Limits) -> int:
    """The longest head of a checkpoint that an honest worker sends: a range for every other page, and all files."""
    return (64 << 10) + limits.memory_bytes // 8192 * 40 + limits.file_count * (6 * MAX_PATH_BYTES + 200)
