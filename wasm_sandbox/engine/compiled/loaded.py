"""Loaded images, and the interfaces of their sources."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import wasmtime

from wasm_sandbox.engine.compiled.artifact import PLAIN
from wasm_sandbox.engine.compiled.build import Build
from wasm_sandbox.engine.compiled.cache import Hold
from wasm_sandbox.engine.compiled.identity import min_memory_bytes
from wasm_sandbox.engine.compiled.instances import InstancePool
from wasm_sandbox.engine.compiled.tool_codes import ToolCodes
from wasm_sandbox.engine.memory.base import LinearMemory
from wasm_sandbox.engine.start.base import Start
from wasm_sandbox.engine.start.kind import StartKind
from wasm_sandbox.engine.world.host_functions import HostFunctions

if TYPE_CHECKING:
    from wasm_sandbox.engine.binding import capi
    from wasm_sandbox.engine.compiled.steps import Step

COMPARED_BYTES, PAGE_BYTES = 64 << 10, 4096
"""Sizes of the ranges of memory that are compared, and of those that are told apart in them."""


# Guarantees: shared by all runs in the image, and kept alive by each of them, also after the engine has dropped it.
# Locks: those of its parts. Two threads may both link `mounting`; one of the two results is kept.
@dataclass(frozen=True)
class LoadedImage:
    """Compiled guest, linked to our host functions."""

    id: str
    """Hash of everything that its memory was made from."""
    path: Path
    """Path of the compiled image, in the cache or in an export."""
    build: Build
    """Build of its guest."""
    start: Start
    """Way to start a script in it."""
    memory: LinearMemory
    """Engine and provider of the instances' memory."""
    instances: InstancePool
    """Pool of its instances."""
    host_functions: HostFunctions
    """Imports of its module."""
    memory_bytes: int
    """Initial memory of an instance in bytes; a run needs some more."""
    hold: Hold = field(repr=False)
    """Lock that keeps its file in the cache."""
    mutable_globals: tuple[str, ...] = ()
    """Export names of the mutable globals; with the linear memory they are an instance's whole state."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Files that every run finds: absolute guest path -> contents."""
    tool_codes: ToolCodes | None = field(default=None, repr=False)
    """Compiled code of tools that were called in it; None if no code is kept between runs."""

    @cached_property
    def needed_bytes(self) -> int:
        """Smallest memory limit of a run."""
        return min_memory_bytes(self.memory_bytes)

    @cached_property
    def _initial_memory(self) -> bytes:
        """Memory of a fresh instance, where that is not in the image's file: read once, for the first session."""
        fresh = self.instances.fresh()
        try:
            return fresh.instance.read(0, fresh.instance.memory()[1])
        finally:
            fresh.close()

    def content(self, offset: int, size: int) -> bytes:
        """Bytes of a range of a fresh instance's memory, with zeros behind its end."""
        image = self.instances.image
        found = self._initial_memory[offset : offset + size] if image is None else image.content(offset, size)
        return found.ljust(size, b"\0")

    def changed(self, instance: capi.Instance) -> list[tuple[int, bytes]]:
        """What of an instance's memory differs from a fresh one's: offset and bytes of each range.

        All of the memory is compared: for memory of wasmtime, whose pages nobody can ask for.
        """
        before, size = self._initial_memory, instance.memory()[1]
        found: list[tuple[int, bytes]] = []
        for at in range(0, size, COMPARED_BYTES):
            now = instance.read(at, min(COMPARED_BYTES, size - at))
            then = before[at : at + len(now)].ljust(len(now), b"\0")
            if now == then:
                continue
            for inner in range(0, len(now), PAGE_BYTES):
                page = now[inner : inner + PAGE_BYTES]
                if page != then[inner : inner + PAGE_BYTES]:
                    found.append((at + inner, page))
        return found

    @cached_property
    def mounting(self) -> wasmtime.InstancePre:
        """Module that passes calls of mounts on, linked for the first run with mounts."""
        from wasm_sandbox.engine.world.mounts import link_mounting  # lazy: only for a run with mounts

        return link_mounting(self.memory.engine)


class ImageLoader(Protocol):
    """Ways to load an image into an engine, for its source."""

    def prepared(
        self, identity: str, steps: Callable[[], Sequence[Step]], files: Mapping[str, bytes], flavour: str = PLAIN
    ) -> LoadedImage:
        """Load an image of our own guest: from the cache, or prepared now (seconds) and put there.

        Args:
            identity: id of the image.
            steps: makes the further steps of its preparation; called only if it is prepared.
            files: files that every run finds.
            flavour: flavour of the guest.

        Raises:
            CacheError: if the cache directory cannot be used or written.
            ArtifactError: if the guest module of this installation is missing or damaged.
            ImageError: if the guest could not be initialised.
        """

    def exported(self, identity: str, code: Path, files: Mapping[str, bytes]) -> LoadedImage:
        """Load an image from a file of compiled code, which must have been checked.

        Raises:
            ImageError: if it cannot be loaded on this machine.
        """

    def command(
        self, identity: str, code_id: str, start: Start, module: Path, files: Mapping[str, bytes]
    ) -> LoadedImage:
        """Load an image of another CPython: from the cache, or compiled now and put there.

        Args:
            identity: id of the image.
            code_id: id of what is compiled.
            start: way to start a script in it.
            module: path of its module.
            files: files that every run finds.

        Raises:
            ImageError: if the module is no WASI command, or imports more than WASI preview 1.
        """


class ImageSource(Protocol):
    """Source of an image; the public `wasm_sandbox.Image` holds one."""

    @property
    def id(self) -> str:
        """Id of the image: two sources with the same id load the same image."""

    @property
    def distributions(self) -> Mapping[str, str]:
        """Python distributions beyond those of every guest: canonical name -> version."""

    @property
    def start(self) -> StartKind:
        """Kind of the guest's module."""

    @property
    def address(self) -> tuple[str, ...]:
        """Words by which a worker process of this machine makes the source again, before it gives its files up.

        Raises:
            UnsupportedIsolation: if its guests open files when they run, which they cannot in such a process.
        """

    def load(self, loader: ImageLoader) -> LoadedImage:
        """Load the image, and prepare it if need be.

        Raises:
            HostError: if it cannot be loaded; the message says what to do.
        """
