"""A harness that runs the programs in guests with less metering than the library allows: what does it cost?

Speaks as `wasm_sandbox.bench.harness` says. Each variant is compiled at its first use (some 10 s, 60 MB of cache).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from native import PROGRAMS, seconds_in_guest

from wasm_sandbox.engine import GuestEngine, Metering

VARIANTS = {"no metering": Metering.NONE, "deadline": Metering.DEADLINE}
"""What is written into the guest's code. The second is what ``Limits(fuel=None)`` gives."""


def main() -> None:
    """List the variants, or run programs in one of them."""
    if sys.argv[1:] == ["--list"]:
        jobs = dict.fromkeys(PROGRAMS, "")
        here = [{"name": variant, "version": "", "jobs": jobs} for variant in VARIANTS]
        print(json.dumps({"contenders": here, "absent": []}))
        return
    engine = GuestEngine(metering=VARIANTS[sys.argv[1]])
    for line in sys.stdin:
        try:
            answer: dict[str, object] = {"seconds": seconds_in_guest(json.loads(line)["job"], engine)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
    engine.close()


if __name__ == "__main__":
    main()
