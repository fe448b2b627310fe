"""Loaded images: what the engine runs, and where it gets them from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import wasmtime

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
    from wasm_sandbox.engine.compiled.steps import Step


@dataclass(frozen=True)
class LoadedImage:
    """A compiled guest, linked to our host functions."""

    id: str
    """Hash of everything that its memory was made from."""
    path: Path
    """The compiled image in the cache."""
    build: Build
    """What its guest is."""
    start: Start
    """How a script is started in it."""
    memory: LinearMemory
    instances: InstancePool
    host_functions: HostFunctions
    memory_bytes: int
    """What an instance has from the start; a run needs some more."""
    hold: Hold = field(repr=False)
    """Keeps its file in the cache."""
    mutable_globals: tuple[str, ...] = ()
    """Names under which the module exports them; with the linear memory they are an instance's whole state."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Files that every run finds: absolute guest path -> contents."""
    tool_codes: ToolCodes | None = field(default=None, repr=False)
    """Of tools that were called in it; None if no code is kept between runs."""

    @property
    def needed_bytes(self) -> int:
        """The smallest memory limit that a run can have."""
        return min_memory_bytes(self.memory_bytes)

    @cached_property
    def mounting(self) -> wasmtime.InstancePre:
        """What runs with mounts need beside the guest; made for the first of them."""
        from wasm_sandbox.engine.world.mounts import link_mounting  # lazy: only for a run with mounts

        return link_mounting(self.memory.engine)


class ImageLoader(Protocol):
    """What a source may ask of the engine that loads its image."""

    def prepared(self, identity: str, steps: Callable[[], Sequence[Step]], files: Mapping[str, bytes]) -> LoadedImage:
        """An image of our own guest: from the cache, or prepared now (seconds) and put there.

        Args:
            identity: the image's id.
            steps: makes what its preparation does beyond that of the default image; called if it is prepared.
            files: what every run finds.

        Raises:
            CacheError: if the cache directory cannot be used or written.
            ArtifactError: if the guest module of this installation is missing or damaged.
            ImageError: if the guest could not be initialised.
        """

    def exported(self, identity: str, code: Path, files: Mapping[str, bytes]) -> LoadedImage:
        """An image from a file of compiled code, which must have been checked.

        Raises:
            ImageError: if it cannot be loaded on this machine.
        """

    def command(
        self, identity: str, code_id: str, start: Start, module: Path, files: Mapping[str, bytes]
    ) -> LoadedImage:
        """An image of another CPython: from the cache, or compiled now and put there.

        Args:
            identity: the image's id.
            code_id: identifies what is compiled.
            start: how a script is started in it.
            module: its file.
            files: what every run finds.

        Raises:
            ImageError: if the module is none, or asks for more than WASI preview 1.
        """


class ImageSource(Protocol):
    """Where the engine gets an image from; the public `wasm_sandbox.Image` holds one."""

    @property
    def id(self) -> str:
        """The image's identity: two sources with the same id load the same image."""

    @property
    def distributions(self) -> Mapping[str, str]:
        """The Python distributions in it, besides what every guest has: canonical name -> version."""

    @property
    def start(self) -> StartKind:
        """What kind of module its guest is."""

    def load(self, loader: ImageLoader) -> LoadedImage:
        """Load the image, preparing it if need be; called once per engine and way of metering.

        Raises:
            HostError: if it cannot be loaded; the message says what to do.
        """
