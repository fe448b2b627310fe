"""Loaded images: what the engine runs, and where it gets them from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import wasmtime

from wasm_sandbox.engine.binding.configuration import Progress
from wasm_sandbox.engine.compiled.artifact import Artifact
from wasm_sandbox.engine.compiled.cache import Hold
from wasm_sandbox.engine.compiled.command import Command
from wasm_sandbox.engine.compiled.identity import min_memory_bytes
from wasm_sandbox.engine.compiled.instances import InstancePool
from wasm_sandbox.engine.compiled.tool_codes import ToolCodes
from wasm_sandbox.engine.world.host_functions import HostFunctions


class Wanted(NamedTuple):
    """An image to be prepared."""

    artifact: Artifact
    progress: Progress
    counts_fuel: bool = True
    """Whether fuel is taken down in its code."""
    code_from: Path | None = None
    """The file of an image whose code is the same, if there is one."""
    memory_from: Path | None = None
    """The file of the image that differs in the code alone, if it is there."""


Prepare = Callable[[Wanted], bytes]
"""Makes the content of a compiled image's file from the guest module; raises as `load_image`."""


@dataclass(frozen=True)
class LoadedImage:
    """A compiled, pre-initialised guest, linked to our host functions."""

    id: str
    """Hash of everything that its memory was made from."""
    path: Path
    """The compiled image in the cache."""
    engine: wasmtime.Engine
    instances: InstancePool
    host_functions: HostFunctions
    memory_bytes: int
    """What an instance has from the start; a run needs some more."""
    hold: Hold = field(repr=False)
    """Keeps its file in the cache."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Files that every run finds: absolute guest path -> contents."""
    tool_codes: ToolCodes = field(default_factory=ToolCodes, repr=False)
    """Of tools that were called in it."""
    command: Command | None = None
    """For a CPython that is a WASI command, and not our own guest."""

    @property
    def needed_bytes(self) -> int:
        """The smallest memory limit that a run can have."""
        return min_memory_bytes(self.memory_bytes)

    @cached_property
    def mounting(self) -> wasmtime.InstancePre:
        """What runs with mounts need beside the guest; made for the first of them."""
        from wasm_sandbox.engine.world.mounts import link_mounting

        return link_mounting(self.engine)


class ImageSource(Protocol):
    """Where the engine gets an image from; the public `wasm_sandbox.Image` holds one."""

    @property
    def id(self) -> str:
        """The image's identity: two sources with the same id load the same image."""

    @property
    def distributions(self) -> Mapping[str, str]:
        """The Python distributions in it, besides what every guest has: canonical name -> version."""

    def load(self, guest_engine: wasmtime.Engine, progress: Progress, counts_fuel: bool = True) -> LoadedImage:
        """Load the image, preparing it if need be; called once per engine and way of counting.

        Args:
            guest_engine: the engine that will run its instances.
            progress: told about every slow step.
            counts_fuel: whether fuel is taken down in its code. An image that has only code with it may be
                loaded all the same.

        Raises:
            HostError: it cannot be loaded; the message says what to do.
        """
