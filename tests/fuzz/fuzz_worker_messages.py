"""Fuzzing of what the host reads from a worker process. Needs atheris (``pip install atheris``).

    python tests/fuzz/fuzz_worker_messages.py tests/fuzz/worker_messages -max_len=4096 -max_total_time=600
    python tests/fuzz/fuzz_worker_messages.py --replay     every kept input once, without atheris

Whatever the bytes are: an end, our own error, or plain data within the limits; bounded time and memory.
"""

from __future__ import annotations

import contextlib
import io
import json
import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fuzz.kept import replayed

with contextlib.ExitStack() as instrumented:
    if __name__ == "__main__" and "--replay" not in sys.argv:
        import atheris

        instrumented.enter_context(atheris.instrument_imports(include=["wasm_sandbox"]))
    from wasm_sandbox.files import check_path
    from wasm_sandbox.limits import Limits
    from wasm_sandbox.outcome import Ending, GuestException, Outcome
    from wasm_sandbox.workers import messages

CORPUS = Path(__file__).parent / "worker_messages"
LIMITS = Limits(output_bytes=64, result_bytes=64, file_count=8, files_bytes=64)
MOST_SECONDS = 1.0


def check(data: bytes) -> None:
    """The invariant; raises if it does not hold."""
    began = time.process_time()
    modules = set(sys.modules)
    for message in (data, framed(data), fitting(data)):
        check_message(message)
    assert set(sys.modules) == modules, set(sys.modules) - modules
    assert time.process_time() - began < MOST_SECONDS


def framed(data: bytes) -> bytes:
    """A message with sizes that are right: of the head the first two bytes tell."""
    size = int.from_bytes(data[:2], "big")
    head, body = data[2 : 2 + size], data[2 + size :]
    return struct.pack(">IQ", len(head), len(body)) + head + body


def fitting(data: bytes) -> bytes:
    """An outcome whose head fits its body, cut into parts as the first bytes tell."""
    sizes, body = list(data[:7]), data[8:]
    sizes.append(max(0, len(body) - sum(sizes)))
    out, error, detail, *exception, paths, contents = [*sizes, *[0] * (8 - len(sizes))]
    files = data[7] if len(data) > 7 and data[7] < 200 else None
    head = {
        "kind": "ended", "ending": "exited", "exit_code": 0, "stdout_dropped": 0, "stderr_dropped": 0, "fuel": None,
        "wall_seconds": 0.5, "memory": 0, "host_calls": 0, "files": files,
        "stdout_bytes": out, "stderr_bytes": error, "detail_bytes": detail,
        "exception_bytes": exception if any(exception) else None, "paths_bytes": paths, "contents_bytes": contents,
    }  # fmt: skip
    encoded = json.dumps(head).encode()
    return struct.pack(">IQ", len(encoded), len(body)) + encoded + body


def check_message(data: bytes) -> None:
    """What holds of one message, as each of the two readers takes it."""
    for read in (messages.read_ready, lambda stream: messages.read_outcome(stream, LIMITS)):
        stream = io.BytesIO(data)
        try:
            found = read(stream)
        except EOFError:
            assert stream.tell() == len(data), "an end that is none"
            continue
        except messages.MessageError:
            continue
        if isinstance(found, Outcome):
            check_outcome(found)
        else:
            check_start(*found)


def check_start(reply: object, message: str) -> None:
    """What a worker says first is of one of two kinds, and short."""
    assert type(reply) in (messages.Ready, messages.Failed)
    assert type(message) is str
    assert len(message) <= 4 * messages.MAX_TEXT_CHARACTERS


def check_outcome(found: Outcome) -> None:
    """An outcome is plain data, and goes the same way again."""
    plain = {Ending, bool, int, float, str, bytes, dict, GuestException, type(None)}
    assert set(map(type, found)) <= plain
    for path, content in (found.files or {}).items():
        check_path("files", path)
        assert type(content) is bytes
    assert sum(map(len, (found.files or {}).values())) <= LIMITS.files_bytes
    assert len(found.files or {}) <= LIMITS.file_count
    if len(found.detail) <= messages.MAX_TEXT_CHARACTERS:
        again = io.BytesIO()
        messages.write_message(again, *messages.encode_outcome(found))
        again.seek(0)
        assert messages.read_outcome(again, LIMITS) == found


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
