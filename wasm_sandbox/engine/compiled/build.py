"""`Build`: module, start, metering and memory of a guest, in one value."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from dataclasses import dataclass

from wasm_sandbox.engine.binding.configuration import ENGINE_SETTINGS
from wasm_sandbox.engine.binding.version import wasmtime_version
from wasm_sandbox.engine.compiled.artifact import Artifact
from wasm_sandbox.engine.memory.base import MemoryKind
from wasm_sandbox.engine.module.metering import METERING_FORMAT, Metering
from wasm_sandbox.engine.start.kind import StartKind


def key_prefix(image: str) -> str:
    """What the keys of all builds of an image begin with."""
    return f"{image[:16]}-"


@dataclass(frozen=True)
class Build:
    """Build of a guest, of which the cache's keys and the preparation are functions."""

    artifact: Artifact
    """Module of the guest."""
    start: StartKind
    metering: Metering
    memory: MemoryKind

    @property
    def keeps_memory_apart(self) -> bool:
        """Whether an image's file has its memory beside the code, which is the same for all images then."""
        return self.memory is MemoryKind.KEPT and self.start is StartKind.REACTOR

    def compile_key(self, image: str) -> str:
        """Key of a compiled image in the cache.

        Args:
            image: id of the image.
        """
        return f"{key_prefix(image)}{self._digest(image).hex()[:16]}"

    @property
    def code_key(self) -> bytes:
        """Key of the compiled code of the module, for any image: 32 bytes."""
        return self._digest(self.artifact.sha256)

    def _digest(self, what: str) -> bytes:
        """Hash of what is compiled and of all that its code depends on: version, settings, machine, build."""
        machine = [wasmtime_version(), sys.platform, platform.machine()]
        own_memory, metering = self.memory is MemoryKind.KEPT, _METERINGS[self.metering]
        parts = [what, METERING_FORMAT, *machine, ENGINE_SETTINGS, own_memory, metering]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()


_METERINGS = {Metering.FUEL: True, Metering.DEADLINE: False, Metering.NONE: None}
"""Metering as it is hashed into keys."""
