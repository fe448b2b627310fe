"""The way out to the network: connections within a policy, and what goes through them, read and checked on the host.

May import: values.
Imported by: sandbox.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasm_sandbox.doors import door

if TYPE_CHECKING:
    from wasm_sandbox.egress.connections import RunConnections as RunConnections
    from wasm_sandbox.egress.secrets import RunSecrets as RunSecrets

_HOMES = {
    "RunConnections": "connections",
    "RunSecrets": "secrets",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - a face lists itself once


__getattr__ = door(__name__, _HOMES)
