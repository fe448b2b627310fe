"""What an image is called, the same on every machine; and the smallest memory limit of a run in it."""

from __future__ import annotations

import hashlib
import json

from wasm_sandbox.engine.compiled.artifact import Artifact
from wasm_sandbox.engine.compiled.warm_up import PRELOAD, warm_up_scripts
from wasm_sandbox.limits import MIB, MIN_MEMORY_BYTES, ROOM_BYTES

SNAPSHOT_FORMAT = 4
"""Raised when the way a snapshot is made changes: part of an image's identity."""


def image_id(artifact: Artifact) -> str:
    """The identity of the default image: the same on every machine."""
    parts = [str(SNAPSHOT_FORMAT), artifact.sha256, *PRELOAD, *warm_up_scripts()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def min_memory_bytes(image_bytes: int) -> int:
    """The smallest memory limit, in whole MiB, for an image that takes so much from the start."""
    return max(MIN_MEMORY_BYTES, -(-(image_bytes + ROOM_BYTES) // MIB) * MIB)
