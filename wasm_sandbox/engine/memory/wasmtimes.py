"""Linear memory of wasmtime, made for each instance: where it cannot be ours, and where a switch asks for it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import wasmtime

from wasm_sandbox.engine.binding import capi
from wasm_sandbox.engine.binding.configuration import engine_configuration
from wasm_sandbox.engine.memory.base import LinearMemory, MemoryKind
from wasm_sandbox.engine.memory.slots import ImageMemory, Memories
from wasm_sandbox.engine.module.image_file import image_parts
from wasm_sandbox.errors import ImageError


class WasmtimeMemory(LinearMemory):
    """Engine whose instances have memory of wasmtime; an image's initial memory is in the data segments of its code."""

    kind = MemoryKind.WASMTIME

    def __init__(self) -> None:
        self.engine = wasmtime.Engine(engine_configuration())

    def of_image(self, path: Path) -> ImageMemory | None:
        if image_parts(path) is not None:
            raise ImageError(
                f"the image {path} was compiled for a system whose linear memory this library makes itself"
            )
        return None

    def unstarted(self, size: int, segments: Iterable[tuple[int, bytes]]) -> None:
        return None

    def instance(self, store: wasmtime.Store, pre: wasmtime.InstancePre, memories: Memories | None) -> capi.Instance:
        return capi.Instance(store, pre)
