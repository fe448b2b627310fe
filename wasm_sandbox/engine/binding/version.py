"""Version of the installed wasmtime."""

from __future__ import annotations

from pathlib import Path

import wasmtime


def wasmtime_version() -> str:
    """Version of wasmtime-py."""
    # The name of its metadata directory says it; importlib.metadata costs 15 ms of every cold start.
    site = Path(wasmtime.__file__).parents[1]
    for directory in site.glob("wasmtime-*.dist-info"):
        return directory.name.removeprefix("wasmtime-").removesuffix(".dist-info")
    from importlib.metadata import version  # lazy: 15 ms of every cold start

    return version("wasmtime")
