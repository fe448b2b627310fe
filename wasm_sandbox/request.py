"""Request of a run: the script, its environment and its limits."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import NamedTuple, Protocol, TypeVar

from wasm_sandbox.files import GivenFiles
from wasm_sandbox.limits import Limits
from wasm_sandbox.results import Connection, Request

T = TypeVar("T")


MAX_OWN_BYTES = 64 << 10
"""Most bytes of a request of a guest that hands nothing over: these are served whatever its budget."""


OUTPUT = 255
"""Operation of a worker's channel, not of a guest's: hand over what was written to a descriptor, its number."""


class NetworkOperation(IntEnum):
    """Operations of a guest's connections, above those of host functions. The number of a request is a descriptor."""

    OPEN = 32
    """Give a descriptor, the next free one after that of the request; the answer is its number (``<I``)."""
    CONNECT = 33
    """Begin to connect: port (``<H``), and the name of the host."""
    STATUS = 34
    """Wait for what is under way: microseconds (``<q``, negative for no end). The answer describes TLS, as JSON."""
    START_TLS = 35
    """Begin TLS: JSON of ``name`` and ``alpn``, and of ``in_band``: a mark, if the answer is to be data behind it."""
    SHUTDOWN = 36
    """Say that nothing more is sent."""
    POLL = 37
    """Wait for any: whether answers of host functions count (``<?``), microseconds or `UNTIL_IDLE` (``<q``), then
    descriptor and `READABLE`, `WRITABLE` of each (``<IB``). The answer is those that are ready, in the same form."""
    RECEIVE = 38
    """Most bytes (``<I``) and microseconds (``<q``). The answer is the bytes; none at the end."""
    SEND = 39
    """Microseconds (``<q``) and bytes. The answer is the number of bytes that were taken (``<I``)."""
    CLOSE = 40


UNTIL_IDLE = -2
"""Instead of a time: until none of the connections waits for its server."""

READABLE, WRITABLE = 1, 2
"""What a descriptor is polled for."""

DONE, REFUSED = 16, 17
"""Kinds of answers to an operation of the network. One that is refused has an errno of WASI (``<i``), then the name of
a class of exceptions and a sentence, with a NUL between them."""

FIRST_SOCKET, LAST_SOCKET = 512, 959
"""Descriptors of connections: above those of files, and below 1024, which is what ``select`` takes."""

MAX_SENT_BYTES = 256 << 10
"""Most bytes that one operation sends."""


class Answer(NamedTuple):
    """Answer to a request of a guest."""

    kind: int
    """What the bytes are, as the guest reads them."""
    ident: int
    """Number of the call that is answered; 0 for none."""
    data: bytes


class Wait(Protocol):
    """Wait of a guest for something of the host's, without its turn."""

    def __call__(self, ready: Callable[[], T | None], seconds: float, changed: threading.Condition) -> T | None:
        """Wait until ``ready`` gives something.

        Args:
            ready: called with ``changed`` held.
            seconds: longest wait.
            changed: notified whenever there may be something.

        Returns:
            What ``ready`` gave; None when the time, or the run, is over.
        """


class Peer(Protocol):
    """Other end of a guest's channel (`wasm_sandbox.functions.RunCalls`), called on the guest's thread."""

    @property
    def max_request_bytes(self) -> int:
        """Most bytes of a request that are read."""

    @property
    def holds_deadline(self) -> bool:
        """Whether the deadline stands still while it works."""

    def handle(self, op: int, ident: int, payload: bytes, wait: Wait) -> Answer:
        """Serve a request, whose bytes are hostile."""

    def refuse(self, ident: int, size: int, wait: Wait) -> Answer:
        """Answer to a request that is too long to be read."""

    def close(self) -> None:
        """End what is under way; the guest has ended. May be called again, from any thread."""


class Connections(Protocol):
    """Connections of a guest (`wasm_sandbox.egress.RunConnections`), called on the guest's thread."""

    changed: threading.Condition
    """Notified whenever an operation that waits may go on."""
    connections: list[Connection]
    requests: list[Request]

    @property
    def environ(self) -> Mapping[str, str]:
        """Placeholders of secrets, as environment variables of the guest."""

    def scrub(self, text: str) -> str:
        """A text without the values of secrets."""

    def scrub_bytes(self, data: bytes) -> bytes:
        """Bytes without the values of secrets."""

    def save(self) -> None:
        """Write what has been recorded, if it is to be."""

    def begin_run(self, has_answer: Callable[[], bool]) -> None:
        """Begin a run; ``has_answer``, called with `changed` held, ends a wait for host functions, too."""

    def handle(self, op: int, ident: int, payload: bytes, wait: Wait) -> Answer:
        """Serve a `NetworkOperation`, whose bytes are hostile."""

    @property
    def is_ending(self) -> bool:
        """Whether a connection that was ended is still open."""

    def end_run(self) -> None:
        """End what the run began; called when its guest has ended, perhaps again, from any thread."""

    def settle(self, seconds: float) -> None:
        """Wait until no connection that was ended is open."""


class Tap(Protocol):
    """Listener to what a guest writes, called on the guest's thread (`wasm_sandbox.sandbox.streams.Events`)."""

    def begin(self, wait: Wait) -> None:
        """Take note of the guest's way to wait, before it runs."""

    def output(self, fd: int, data: bytes) -> None:
        """Take what was written to standard output or error; the guest may have to wait for that."""


class ExecutionRequest(NamedTuple):
    """Script to run, with its environment, limits and files."""

    script: str
    environ: Mapping[str, str]
    limits: Limits
    script_name: str = "script.py"
    tool_name: str = "tool.py"
    """File name for the tool's part of the script, in tracebacks."""
    tool_first_line: int = 0
    tool_line_count: int = 0
    given: GivenFiles | None = None
    """Files and mounts that the caller gives; with None it has scratch files alone, and none are in the outcome."""
    values: tuple[bytes, ...] = ()
    """Values that the script fetches instead of spelling them out (`ExecutionScript.values`): only in our own guest."""
    call: bytes = b""
    """Call of ``_sandbox_live`` instead of a script, of which there is none then: only in our own guest."""
    peer: Peer | None = None
    """Other end of the guest's channel; with None it has no channel."""
    tap: Tap | None = None
    """Listener to the guest's output, if there is one."""
    has_network: bool = False
    """Whether its peer serves connections, too."""

    def encode(self, code: bytes = b"") -> bytes:
        """Encode the request for ``sandbox_run`` (``struct request`` in ``reactor.c``).

        Args:
            code: compiled code of the script from the tool's source on; empty if there is none (`tool_codes`).
        """
        texts = [self.script.encode(), self.script_name.encode(), self.tool_name.encode()]
        values = [part for value in self.values for part in (len(value).to_bytes(4, "little"), value)]
        sizes = [*map(len, texts), self.tool_first_line, self.tool_line_count, sum(map(len, values)), len(code)]
        head = struct.pack("<7I", *sizes)
        return b"".join([head, *(part for text in texts for part in (text, b"\0")), *values, code])
