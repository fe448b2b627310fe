"""Identity of an image, the same on every machine, and the smallest memory limit of a run in it."""

from __future__ import annotations

import hashlib
import json

from wasm_sandbox.engine.compiled.artifact import Artifact
from wasm_sandbox.engine.compiled.warm_up import PRELOAD, warm_up_scripts
from wasm_sandbox.limits import MIB, MIN_MEMORY_BYTES, ROOM_BYTES

SNAPSHOT_FORMAT = 5
"""Version of the way in which snapshots are made; part of an image's identity."""


def image_id(artifact: Artifact) -> str:
    """Id of the image without packages: the same on every machine."""
    parts = [str(SNAPSHOT_FORMAT), artifact.sha256, *PRELOAD, *artifact.preload, *warm_up_scripts(artifact.preload)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def min_memory_bytes(image_bytes: int) -> int:
    """Smallest memory limit, in whole MiB, of a run in an image of this initial size."""
    return max(MIN_MEMORY_BYTES, -(-(image_bytes + ROOM_BYTES) // MIB) * MIB)
