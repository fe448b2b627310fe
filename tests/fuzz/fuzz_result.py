"""Fuzzing of what the host reads from a guest: frame and pickle. Needs atheris (``pip install atheris``).

    python tests/fuzz/fuzz_result.py tests/fuzz/corpus -max_len=4096 -max_total_time=3600
    python tests/fuzz/fuzz_result.py --replay     every kept input once, without atheris

Whatever the bytes are: only our own error, bounded time, and plain data.
"""

from __future__ import annotations

import contextlib
import sys
import time
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fuzz.kept import replayed

CORPUS = Path(__file__).parent / "corpus"
MOST_SECONDS = 2.0


@cache
def import_what_the_host_needs() -> None:
    """For the zones that it knows, and for its own codecs."""
    ZoneInfo("Europe/Paris")
    str(b"x", "raw-unicode-escape")
    available_timezones()


def check(data: bytes) -> None:
    """The invariant; raises if it does not hold."""
    from wasm_sandbox.decode.frame import encode_frame, split_frames
    from wasm_sandbox.decode.pickle_decoder import DecodeError, loads

    import_what_the_host_needs()
    began = time.monotonic()
    modules = set(sys.modules)
    for output in (data, encode_frame(data), data[:20] + encode_frame(data[20:])):
        found = split_frames(output, max_payload=1 << 20)
        if found.payload is None:
            assert found.text == output
            continue
        try:
            value = loads(found.payload)
        except DecodeError:
            continue
        with contextlib.suppress(ValueError):  # an int has more digits than this host prints
            repr(value)  # else what is accepted is safe to show
    assert set(sys.modules) == modules, set(sys.modules) - modules
    assert time.monotonic() - began < MOST_SECONDS


def replay() -> int:
    """Check every kept input; how many there are."""
    return replayed(CORPUS, check)


def main() -> None:
    if "--replay" in sys.argv:
        print(f"{replay()} inputs held")
        return
    import atheris

    with atheris.instrument_imports(include=["wasm_sandbox"]):
        import wasm_sandbox.decode.frame
        import wasm_sandbox.decode.pickle_decoder  # noqa: F401 - imported to be instrumented
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
