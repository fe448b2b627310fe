"""How the instances of an engine come by their linear memory: the interface of the two kinds beside this file."""

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
    """Whose linear memory is."""

    KEPT = "kept"
    """Ours: kept from run to run, and put back as the image has it."""
    WASMTIME = "wasmtime"
    """wasmtime's own: made anew for each instance."""


class LinearMemory(ABC):
    """A wasmtime engine, and where the memory of its instances comes from."""

    kind: ClassVar[MemoryKind]
    engine: wasmtime.Engine

    @abstractmethod
    def of_image(self, path: Path) -> ImageMemory | None:
        """The memory that the file of a compiled image brings along; None if it is in the code's data segments.

        Raises:
            ImageError: if the file is for the other kind.
            OSError: if it cannot be mapped.
        """

    @abstractmethod
    def unstarted(self, size: int, segments: Iterable[tuple[int, bytes]]) -> Memories | None:
        """The memories of a guest that has not been started; None where the engine makes them.

        Args:
            size: in bytes, of its linear memory.
            segments: what of it is not zero: (address, bytes).

        Raises:
            OSError: if the system gives none.
            ValueError: if a segment is outside of it.
        """

    @abstractmethod
    def instance(self, store: wasmtime.Store, pre: wasmtime.InstancePre, memories: Memories | None) -> capi.Instance:
        """An instance with these memories, or with ones that the engine makes.

        Raises:
            GuestStopped: if the module cannot be instantiated.
        """
