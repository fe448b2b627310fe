"""What a guest is, in one value: which module, how it is started, what is metered, whose its memory is."""

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


@dataclass(frozen=True)
class Build:
    """What is compiled, and for what: the cache's keys, the preparation and the command ask it."""

    artifact: Artifact
    """The module."""
    start: StartKind
    metering: Metering
    memory: MemoryKind

    @property
    def keeps_memory_apart(self) -> bool:
        """Whether an image's memory is beside its code in its file, and the code is the same for all images."""
        return self.memory is MemoryKind.KEPT and self.start is StartKind.REACTOR

    def compile_key(self, image: str) -> str:
        """Name of the compiled form of an image in the cache.

        Args:
            image: the image's id.
        """
        return f"{image[:16]}-{self._digest(image).hex()[:16]}"

    @property
    def code_key(self) -> bytes:
        """Name of the compiled code of the module, whatever image it is for: 32 bytes."""
        return self._digest(self.artifact.sha256)

    def _digest(self, what: str) -> bytes:
        """Differs by engine version, settings and machine."""
        machine = [wasmtime_version(), sys.platform, platform.machine()]
        own_memory, metering = self.memory is MemoryKind.KEPT, _METERINGS[self.metering]
        parts = [what, METERING_FORMAT, *machine, ENGINE_SETTINGS, own_memory, metering]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()


_METERINGS = {Metering.FUEL: True, Metering.DEADLINE: False, Metering.NONE: None}
"""As keys have it."""
