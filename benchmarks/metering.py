"""A harness that runs the programs in guests with less metering than the library allows: what does it cost?

Speaks as `wasm_sandbox.bench.foreign` says. It switches metering off behind the library's back, in this process only;
each variant is an image of its own, compiled at its first use (some 10 s, 70 MB of cache).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import wasmtime
from native import PROGRAMS, seconds_in_guest

from wasm_sandbox.guest import settings

VARIANTS = {
    "no metering": {"consume_fuel": False, "epoch_interruption": False},
    "deadline": {"consume_fuel": False, "epoch_interruption": True},
    "fuel": {"consume_fuel": True, "epoch_interruption": False},
}


def choose(variant: str) -> None:
    """Set the engine, before anything makes one."""
    settings.ENGINE_SETTINGS.update(VARIANTS[variant])
    if not VARIANTS[variant]["consume_fuel"]:
        wasmtime.Store.set_fuel = lambda self, fuel: None  # type: ignore[method-assign]
        wasmtime.Store.get_fuel = lambda self: 0  # type: ignore[method-assign]


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
