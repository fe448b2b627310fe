"""Guests in other processes: the pool, what crosses to a worker, what a worker gives up.

May import: values, decode, images, engine.
Imported by: sandbox, cli.doctor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wasm_sandbox.workers.pool import process_pool as process_pool

__all__ = ["process_pool"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from wasm_sandbox.workers.pool import process_pool

    return process_pool
