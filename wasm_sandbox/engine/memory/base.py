"""Linear memory of an engine's instances: the interface of the two kinds beside this file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import ClassVar

import wasmtime

from wasm_sandbox.engine.binding import capi
from wasm_sandbox.engine.memory.slots import ImageMemory, Memories


class MemoryKind(Enum):
    """Provider of linear memory."""

    KEPT = "kept"
    """Memory of ours, kept from run to run and restored from the image."""
    WASMTIME = "wasmtime"
    """Memory of wasmtime, made anew for each instance."""


class LinearMemory(ABC):
    """A wasmtime engine and the provider of its instances' linear memory; shared by all threads."""

    kind: ClassVar[MemoryKind]
    engine: wasmtime.Engine

    @abstractmethod
    def of_image(self, path: Path) -> ImageMemory | None:
        """Initial memory in the file of a compiled image; None if it is in the data segments of the code.

        Raises:
            ImageError: if the file is for the other kind of memory.
            OSError: if the file cannot be mapped.
        """

    @abstractmethod
    def unstarted(self, size: int, segments: Iterable[tuple[int, bytes]]) -> Memories | None:
        """Memories of a guest before its start; None where the engine makes them.

        Args:
            size: size of the linear memory in bytes.
            segments: its content that is not zero: (address, bytes).

        Raises:
            OSError: if the system gives no memory.
            ValueError: if a segment is outside of the memory.
        """

    @abstractmethod
    def instance(self, store: wasmtime.Store, pre: wasmtime.InstancePre, memories: Memories | None) -> capi.Instance:
        """Make an instance with these memories, or with ones that the engine makes.

        Raises:
            GuestStopped: if the module cannot be instantiated.
        """
