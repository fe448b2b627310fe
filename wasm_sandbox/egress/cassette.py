"""Cassettes: the requests and answers of a run in a file of JSON, from which a later run is answered without a network.

A request is known by method, URL and the hash of its body; equal ones are answered in the order of their recording. No
secret is in the file: headers of requests are not kept, placeholders are written as ``{{NAME}}``, answers are kept as
the guest got them, and the values of cookies are left out.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from collections import defaultdict, deque
from pathlib import Path
from typing import Any, NamedTuple

from wasm_sandbox.errors import InvalidNetwork
from wasm_sandbox.limits import MIB

VERSION = 1
MAX_CASSETTE_BYTES = 128 * MIB
"""Largest file that is read, and size of all answers that are recorded."""

_FORMAT = "wasm-sandbox cassette"


class Key(NamedTuple):
    """What a request is known by."""

    method: str
    url: str
    body_sha256: str


class Answer(NamedTuple):
    """Answer to a request."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Recorder:
    """Requests and answers of one run. Used by one thread at a time."""

    def __init__(self) -> None:
        self._exchanges: list[dict[str, Any]] = []
        self._size = 0

    def add(self, key: Key, answer: Answer) -> None:
        """Keep an answer, as the guest got it."""
        self._size += len(answer.body) + sum(len(name) + len(value) for name, value in answer.headers)
        if self._size > MAX_CASSETTE_BYTES:
            self._exchanges.clear()
            return
        headers = [[name.decode("latin-1"), _without_cookie(name, value)] for name, value in answer.headers]
        told = {"status": answer.status, "headers": headers, **_as_text(answer.body)}
        self._exchanges.append({**key._asdict(), "answer": told})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, whole or not at all.

        Raises:
            InvalidNetwork: if there is too much, or the file cannot be written.
        """
        content = {"format": _FORMAT, "version": VERSION, "exchanges": self._exchanges}
        data = json.dumps(content, indent=1).encode()
        if max(self._size, len(data)) > MAX_CASSETTE_BYTES:
            raise InvalidNetwork(f"{os.fspath(path)}: more than {MAX_CASSETTE_BYTES} bytes are to be kept: record less")
        beside = Path(f"{os.fspath(path)}.{os.getpid()}.new")
        try:
            beside.write_bytes(data)
            beside.replace(path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise InvalidNetwork(f"{os.fspath(path)}: cannot be written: {error}") from None


class Player:
    """Answers of a file, each given once. Used by one thread at a time.

    Raises:
        InvalidNetwork: if the file cannot be read, or is no cassette.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._answers: dict[Key, deque[Answer]] = defaultdict(deque)
        try:
            for exchange in _exchanges(Path(path)):
                key = Key(exchange["method"], exchange["url"], exchange["body_sha256"])
                if not all(isinstance(part, str) for part in key):
                    raise ValueError("a request is incomplete")
                self._answers[key].append(_answer(exchange["answer"]))
        except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            words = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise InvalidNetwork(f"{os.fspath(path)} is no cassette: {words}; record it again") from None

    def answer(self, key: Key) -> Answer | None:
        """The next answer to a request; None if there is no further one."""
        waiting = self._answers.get(key)
        return waiting.popleft() if waiting else None


def _exchanges(path: Path) -> list[dict[str, Any]]:
    with path.open("rb") as file:
        data = file.read(MAX_CASSETTE_BYTES + 1)
    if len(data) > MAX_CASSETTE_BYTES:
        raise ValueError(f"it is larger than {MAX_CASSETTE_BYTES} bytes")
    content = json.loads(data)
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"its format is not {_FORMAT!r}")
    if content.get("version") != VERSION:
        raise ValueError(f"its version is {content.get('version')!r}, and {VERSION} is read")
    exchanges = content["exchanges"]
    if not isinstance(exchanges, list):
        raise ValueError("its exchanges are no list")
    return exchanges


def _answer(told: dict[str, Any]) -> Answer:
    status = told["status"]
    if not isinstance(status, int) or not 200 <= status <= 999:
        raise ValueError(f"{status!r} is no status of an answer")
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in told["headers"]]
    body = told["text"].encode() if "text" in told else b64decode(told["base64"], validate=True)
    return Answer(status, headers, body)


def _as_text(body: bytes) -> dict[str, str]:
    try:
        return {"text": body.decode()}
    except UnicodeDecodeError:
        return {"base64": b64encode(body).decode()}


def _without_cookie(name: bytes, value: bytes) -> str:
    text = value.decode("latin-1")
    if name.lower() != b"set-cookie":
        return text
    pair, semicolon, rest = text.partition(";")
    return f"{pair.partition('=')[0]}=left-out{semicolon}{rest}"
