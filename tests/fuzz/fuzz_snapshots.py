"""Fuzzing of what the host reads of a session's bytes. Needs atheris (``pip install atheris``).

    python tests/fuzz/fuzz_snapshots.py tests/fuzz/snapshots -max_len=4096 -max_total_time=600
    python tests/fuzz/fuzz_snapshots.py --replay     every kept input once, without atheris

Whatever the bytes are: our own error, or a checkpoint within the limits, which goes the same way again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
import sys
import time
import zlib
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fuzz.kept import replayed

with contextlib.ExitStack() as instrumented:
    if __name__ == "__main__" and "--replay" not in sys.argv:
        import atheris

        instrumented.enter_context(atheris.instrument_imports(include=["wasm_sandbox"]))
    from wasm_sandbox.errors import SnapshotError
    from wasm_sandbox.limits import Limits
    from wasm_sandbox.sandbox import snapshots

CORPUS = Path(__file__).parent / "snapshots"
LIMITS = Limits(memory_bytes=64 << 20, files_bytes=1 << 16)
MOST_SECONDS = 2.0

HEAD: dict[str, Any] = {
    "format": snapshots.FORMAT, "is_signed": False, "image": "0" * 64, "calls": 1, "cells": 1, "elapsed": [5, 5],
    "size": 1 << 20, "globals": {"__stack_pointer": 1 << 16}, "ranges": [[4096, 8], [8192, 8]],
    "nodes": [[-1, "", None, 0, 0, 0], [0, "a", 4, 1, 1, 3]], "opened": [[4, 1, True, True, 0, 2]], "body_bytes": 20,
    "pending": [],
}  # fmt: skip


def check(data: bytes) -> None:
    """The invariant; raises if it does not hold."""
    began = time.process_time()
    for blob in (data, sealed(data[:64] if len(data) < 64 else data), changed(data)):
        check_blob(blob)
    assert time.process_time() - began < MOST_SECONDS


def put_together(head: bytes, packed: bytes) -> bytes:
    whole = snapshots.MAGIC + struct.pack("<I", len(head)) + head + packed
    return whole + hashlib.sha256(whole).digest()


def sealed(data: bytes) -> bytes:
    """Bytes with a beginning and a checksum that are right: of the head the first two bytes tell."""
    size = int.from_bytes(data[:2], "big")
    return put_together(data[2 : 2 + size], data[2 + size :])


def changed(data: bytes) -> bytes:
    """A head that fits, but for what a JSON object in the data says otherwise, with a body of its length."""
    head = dict(HEAD)
    with contextlib.suppress(ValueError, RecursionError):
        given = json.loads(data)
        if isinstance(given, dict):
            head |= given
    size = head["body_bytes"]
    body = data[:size].ljust(size, b"x") if isinstance(size, int) and 0 <= size < 1 << 16 else data
    try:
        return put_together(json.dumps(head).encode(), zlib.compress(body, 1))
    except (ValueError, RecursionError):
        return data


def check_blob(blob: bytes) -> None:
    """What holds of one snapshot."""
    try:
        found = snapshots.load(blob, LIMITS, None)
    except SnapshotError:
        return
    memory, files = found.point.memory, found.point.files
    assert memory.size <= LIMITS.memory_bytes
    end = 0
    for offset, part in memory.changed:
        assert offset >= end
        assert offset % 4096 == 0
        end = offset + len(part)
    assert end <= memory.size
    assert files is None or files.nbytes <= LIMITS.files_bytes
    again = snapshots.load(snapshots.dump(found, b"key"), LIMITS, b"key")
    assert again == found


def replay() -> int:
    """Check every kept input; how many there are."""
    return replayed(CORPUS, check)


def main() -> None:
    if "--replay" in sys.argv:
        print(f"{replay()} inputs held")
        return
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
