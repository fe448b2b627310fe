"""A harness that runs the programs in guests with less metering than the library allows: what does it cost?

Speaks as `wasm_sandbox.bench.harness` says. It takes metering away behind the library's back, in this process only;
each variant is compiled at its first use (some 10 s, 60 MB of cache).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from native import PROGRAMS, seconds_in_guest

from wasm_sandbox.engine.compiled import loading as image
from wasm_sandbox.engine.module import metering

VARIANTS = {"no metering": (False, False), "deadline": (False, True), "fuel": (True, False)}
"""Whether fuel is counted, and whether the poll page is read. The second is what ``Limits(fuel=None)`` gives."""


def choose(variant: str) -> None:
    """Set what is written into the guest's code, before anything compiles it."""
    fuel, poll = VARIANTS[variant]
    everything = metering._Metering

    class Less(everything):  # type: ignore[misc, valid-type]
        def __init__(self, bodies: dict[int, bytes], counts_fuel: bool) -> None:
            super().__init__(bodies, fuel)
            if not poll:
                self._charge_begin, self._poll_code = self._charge_begin.removeprefix(self._poll_code), b""

    metering._Metering = Less  # type: ignore[misc]
    image.METERING_FORMAT = -1 - list(VARIANTS).index(variant)  # a key of its own in the cache


def main() -> None:
    """List the variants, or run programs in one of them."""
    if sys.argv[1:] == ["--list"]:
        jobs = dict.fromkeys(PROGRAMS, "")
        here = [{"name": variant, "version": "", "jobs": jobs} for variant in VARIANTS]
        print(json.dumps({"contenders": here, "absent": []}))
        return
    choose(sys.argv[1])
    for line in sys.stdin:
        try:
            answer: dict[str, object] = {"seconds": seconds_in_guest(json.loads(line)["job"])}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
