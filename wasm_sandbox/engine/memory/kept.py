"""Linear memory of ours (Linux): slots, kept between runs and restored from the image."""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import wasmtime

from wasm_sandbox.engine.binding import capi
from wasm_sandbox.engine.binding.configuration import engine_configuration
from wasm_sandbox.engine.memory.address_space import AddressSpace, PageScanner
from wasm_sandbox.engine.memory.base import LinearMemory, MemoryKind
from wasm_sandbox.engine.memory.slots import ImageMemory, MappedMemory, Memories
from wasm_sandbox.engine.module.image_file import image_parts

_log = logging.getLogger(__name__)


def is_supported() -> bool:
    """Whether linear memory can be ours on this system."""
    return sys.platform == "linux" and sys.maxsize > 2**32


class _Engine(wasmtime.Engine):
    """A wasmtime engine with its memory creator: every store refers to the engine, and so keeps the creator alive."""

    def __init__(self, config: wasmtime.Config, creator: capi.MemoryCreator) -> None:
        self._creator = creator
        super().__init__(config)


class KeptMemory(LinearMemory):
    """Engine whose instances have memory of ours.

    Args:
        scan: whether slots may be restored page by page, where the system can do that.
    """

    kind = MemoryKind.KEPT

    def __init__(self, scan: bool = True) -> None:
        config = engine_configuration(own_memory=True)
        self._space = AddressSpace()
        self._creator = capi.MemoryCreator(config, self._new_memory)
        self._scanner = self._find_scanner() if scan else None
        self.engine = _Engine(config, self._creator)

    @property
    def keeps_pages(self) -> bool:
        """Whether slots are restored page by page; else their pages are mapped anew."""
        return self._scanner is not None

    def of_image(self, path: Path) -> ImageMemory | None:
        parts = image_parts(path)
        return None if parts is None else ImageMemory(self._space, path, parts, self._scanner)

    def instance(self, store: wasmtime.Store, pre: wasmtime.InstancePre, memories: Memories | None) -> capi.Instance:
        if memories is None:
            return capi.Instance(store, pre)
        with self._offering(memories):
            return capi.Instance(store, pre, memories.linear)

    def unstarted(self, size: int, segments: Iterable[tuple[int, bytes]]) -> Memories:
        memories = Memories(self._space, size)
        base, move = memories.linear.address, ctypes.memmove
        for address, data in segments:
            if address + len(data) > size:
                raise ValueError("a data segment is outside of the memory")
            move(base + address, data, len(data))
        return memories

    @contextmanager
    def _offering(self, memories: Memories) -> Iterator[None]:
        """Give these memories to the instance that this thread makes inside the block."""
        with self._creator.offering((memories.linear, memories.poll)):
            yield

    def _new_memory(self, minimum: int) -> MappedMemory:
        return MappedMemory(self._space, minimum)

    def _find_scanner(self) -> PageScanner | None:
        try:
            return PageScanner(self._space)
        except OSError as error:
            _log.info("this system does not tell which pages were written to (%s): memory comes anew", error)
            return None
