"""Guests in other processes: the pool, what crosses to a worker, what a worker gives up.

May import: values, decode, images, engine.
Imported by: sandbox, cli.doctor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasm_sandbox.doors import door

if TYPE_CHECKING:
    from wasm_sandbox.workers.pool import Visit as Visit
    from wasm_sandbox.workers.pool import process_pool as process_pool

_HOMES = {"Visit": "pool", "process_pool": "pool"}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - a face lists itself once

__getattr__ = door(__name__, _HOMES)
