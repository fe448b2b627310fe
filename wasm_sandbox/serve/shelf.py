"""Shelf: the directory of sessions that outlive a server, which one server at a time uses."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from wasm_sandbox import CacheError, Limits, StoreError
from wasm_sandbox.directories import private_directory
from wasm_sandbox.serve.shapes import SessionShape

LOCK_NAME = "serve.lock"
SUFFIX = ".session"
MAX_HEADER_BYTES = 64 << 10
MAX_FILE_BYTES = 5 << 30
ID = re.compile(r"[A-Za-z0-9_-]{24}")


class Alias(BaseModel):
    """What a session is called by clients that have a name for it, and not its id."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    protocol: Literal["mcp", "e2b"]
    name: str


class ShelfEntry(BaseModel):
    """What is known of a session besides its bytes."""

    model_config = ConfigDict(extra="forbid")

    id: str
    client: str
    """Name of its owner."""
    shape: SessionShape
    limits: Limits
    calls: int
    expires_at: float
    """End of its life, on the clock of `time.time`."""
    alias: Alias | None = None
    directory: str | None = None
    """Directory that it began in, of a context of E2B's."""


class Shelf:
    """Directory of sessions, locked until `close`.

    Args:
        directory: directory; made if there is none.

    Raises:
        StoreError: if it cannot be used, others can write it, or another server uses it.
    """

    def __init__(self, directory: Path) -> None:
        try:
            self._directory = private_directory(directory, "the data directory", "--data-dir")
        except CacheError as error:
            raise StoreError(str(error)) from error
        self._lock = FileLock(self._directory / LOCK_NAME, timeout=0, thread_local=False)
        try:
            self._lock.acquire()
        except Timeout:
            raise StoreError(f"{directory}: another server uses it: give each one a --data-dir of its own") from None
        except OSError as error:
            raise StoreError(f"{directory} cannot be used: {error.strerror or error}") from error

    def entries(self) -> dict[str, ShelfEntry]:
        """Sessions whose time is not over; files of others are removed, and what is no session of ours is left."""
        found = {}
        for path in sorted(self._directory.glob(f"*{SUFFIX}")):
            entry = self._entry(path)
            if entry is None or entry.id != path.stem or not ID.fullmatch(entry.id):
                continue
            if entry.expires_at <= time.time():
                with suppress(OSError):
                    path.unlink()
                continue
            found[entry.id] = entry
        return found

    def _entry(self, path: Path) -> ShelfEntry | None:
        try:
            with path.open("rb") as file:
                line = file.readline(MAX_HEADER_BYTES)
            return ShelfEntry.model_validate_json(line)
        except (OSError, ValidationError):
            return None

    def write(self, entry: ShelfEntry, blob: bytes) -> None:
        """Write a session: the whole file, or none.

        Raises:
            OSError: if it cannot be written.
        """
        path = self._path(entry.id)
        draft = path.with_suffix(".draft")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
        descriptor = os.open(draft, flags, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(entry.model_dump_json().encode() + b"\n")
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)

    def read(self, session_id: str) -> bytes | None:
        """Bytes of a session; None if they cannot be read."""
        try:
            with self._path(session_id).open("rb") as file:
                file.readline(MAX_HEADER_BYTES)
                return file.read(MAX_FILE_BYTES)
        except OSError:
            return None

    def remove(self, session_id: str) -> None:
        """Remove a session's file."""
        with suppress(OSError):
            self._path(session_id).unlink()

    def _path(self, session_id: str) -> Path:
        assert ID.fullmatch(session_id)
        return self._directory / f"{session_id}{SUFFIX}"

    def close(self) -> None:
        """Let another server use it."""
        self._lock.release()
