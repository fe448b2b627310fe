"""Loaded images: a guest module ready to run - identified, found in the cache or prepared, linked."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import wasmtime

from wasm_sandbox.engine.binding.configuration import ENGINE_SETTINGS, Progress
from wasm_sandbox.engine.binding.version import wasmtime_version
from wasm_sandbox.engine.compiled.artifact import Artifact, find_artifact
from wasm_sandbox.engine.compiled.cache import Hold, ImageCache, cache_ceiling
from wasm_sandbox.engine.compiled.command import Command
from wasm_sandbox.engine.compiled.instances import InstancePool
from wasm_sandbox.engine.compiled.tool_codes import ToolCodes
from wasm_sandbox.engine.compiled.warm_up import PRELOAD, warm_up_scripts
from wasm_sandbox.engine.memory.slots import ImageMemory, OwnMemoryEngine, is_supported
from wasm_sandbox.engine.module.binary import PAGE_BYTES
from wasm_sandbox.engine.module.image_file import image_parts
from wasm_sandbox.engine.module.metering import METERING_FORMAT
from wasm_sandbox.engine.world.world import HostFunctions
from wasm_sandbox.errors import ImageError
from wasm_sandbox.limits import MIB, MIN_MEMORY_BYTES, ROOM_BYTES

SNAPSHOT_FORMAT = 4
"""Raised when the way a snapshot is made changes: part of an image's identity."""


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

_log = logging.getLogger(__name__)


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


def image_id(artifact: Artifact) -> str:
    """The identity of the default image: the same on every machine."""
    parts = [str(SNAPSHOT_FORMAT), artifact.sha256, *PRELOAD, *warm_up_scripts()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def compile_key(image: str, own_memory: bool | None = None, counts_fuel: bool = True) -> str:
    """Names the compiled form of an image: it differs by engine version, settings and machine.

    Args:
        image: the image's id.
        own_memory: whether linear memory is ours; by default as `GuestEngine` has it.
        counts_fuel: whether fuel is taken down in its code.
    """
    if own_memory is None:
        own_memory = is_supported()
    return f"{image[:16]}-{_compiled_digest(image, own_memory, counts_fuel).hex()[:16]}"


def code_key(artifact: Artifact, counts_fuel: bool) -> bytes:
    """Names the compiled code of a guest whose memory is ours, whatever image it is for."""
    return _compiled_digest(artifact.sha256, True, counts_fuel)


def _compiled_digest(what: str, own_memory: bool, counts_fuel: bool) -> bytes:
    machine = [wasmtime_version(), sys.platform, platform.machine()]
    parts = [what, METERING_FORMAT, *machine, ENGINE_SETTINGS, own_memory, counts_fuel]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()


def load_image(
    guest_engine: wasmtime.Engine,
    progress: Progress | None = None,
    cache: ImageCache | None = None,
    counts_fuel: bool = True,
) -> LoadedImage:
    """The default image: from the cache, or prepared now (seconds) and put there.

    Args:
        guest_engine: the engine that will run its instances.
        progress: told about every slow step.
        cache: where compiled images are; the user's cache directory by default.
        counts_fuel: whether fuel is taken down in its code.

    Raises:
        CacheError: the cache directory cannot be used or written.
        ArtifactError: the guest module of this installation is missing or damaged.
        ImageError: the guest module could not be initialised.
    """

    def prepare(wanted: Wanted) -> bytes:
        from wasm_sandbox.engine.compiled import preparation  # not needed where there is a compiled image

        return preparation.prepare(guest_engine, wanted)

    identity = image_id(find_artifact())
    return load_prepared(guest_engine, identity, prepare, progress or _log.info, cache, counts_fuel=counts_fuel)


def load_prepared(
    guest_engine: wasmtime.Engine,
    identity: str,
    prepare: Prepare,
    progress: Progress,
    cache: ImageCache | None = None,
    files: Mapping[str, bytes] | None = None,
    pre_initialised: bool = True,
    counts_fuel: bool = True,
) -> LoadedImage:
    """An image from the cache, or prepared now and put there.

    Args:
        guest_engine: the engine that will run its instances.
        identity: the image's id.
        prepare: makes the compiled code; called if it is not in the cache.
        progress: told about every slow step.
        cache: where compiled images are; the user's cache directory by default.
        files: what every run finds.
        pre_initialised: whether it is a snapshot, which has no start function: instances may be made ahead.
        counts_fuel: whether fuel is taken down in its code.

    Raises: as `load_image`, and what ``prepare`` raises.
    """
    cache = cache or ImageCache()
    own_memory = isinstance(guest_engine, OwnMemoryEngine)
    key = compile_key(identity, own_memory, counts_fuel)
    module = _load_compiled(guest_engine, cache, key)
    if module is None:
        wanted = Wanted(find_artifact(), progress, counts_fuel)

        def prepare_from_others() -> bytes:
            if not (own_memory and pre_initialised):
                return prepare(wanted)
            code_from = _with_code(cache, code_key(wanted.artifact, counts_fuel))
            memory_from = cache.find(compile_key(identity, own_memory, not counts_fuel), full_check=True)
            return prepare(wanted._replace(code_from=code_from, memory_from=memory_from))

        module = _prepare_once(guest_engine, cache, key, prepare_from_others, progress)
    if module is None:
        raise ImageError(
            f"the image just written to {cache.path(key)} cannot be loaded: is something else changing it?"
        )
    cache.note_use(key)
    return link(guest_engine, identity, cache.path(key), module, files or {}, pre_initialised)


def _with_code(cache: ImageCache, key: bytes) -> Path | None:
    """The file of an image in the cache with this code."""
    for entry in reversed(cache.entries()):
        try:
            parts = image_parts(entry.path)
        except OSError:  # another process may be quicker
            continue
        if parts and parts.code_key == key and cache.find(entry.key, full_check=True):
            return entry.path
    return None


def link(
    guest_engine: wasmtime.Engine,
    identity: str,
    path: Path,
    module: wasmtime.Module,
    files: Mapping[str, bytes],
    pre_initialised: bool = True,
) -> LoadedImage:
    """A compiled module, ready for instances; ``pre_initialised`` as for `load_prepared`.

    Raises:
        ImageError: its memory cannot be used here.
    """
    linker = wasmtime.Linker(guest_engine)
    functions = HostFunctions(linker, module)
    memory = _memory_in(path, guest_engine)
    instances = InstancePool(guest_engine, linker.instantiate_pre(module), memory, ahead=pre_initialised)
    memory_bytes = memory.size + PAGE_BYTES if memory else memory_bytes_of(module)
    return LoadedImage(identity, path, guest_engine, instances, functions, memory_bytes, Hold(path), files)


def _memory_in(path: Path, guest_engine: wasmtime.Engine) -> ImageMemory | None:
    try:
        parts = image_parts(path)
        if parts is None:
            return None
        if isinstance(guest_engine, OwnMemoryEngine):
            return guest_engine.image_memory(path, parts)
    except OSError as error:
        raise ImageError(f"the memory of the image {path} cannot be mapped: {error.strerror or error}") from error
    raise ImageError(f"the image {path} was compiled for a system whose linear memory this library makes itself")


def memory_bytes_of(module: wasmtime.Module) -> int:
    """The memory that every instance of a module starts with."""
    types = [export.type for export in module.exports if isinstance(export.type, wasmtime.MemoryType)]
    return sum(type_.limits.min for type_ in types) * PAGE_BYTES


def min_memory_bytes(image_bytes: int) -> int:
    """The smallest memory limit, in whole MiB, for an image that takes so much from the start."""
    return max(MIN_MEMORY_BYTES, -(-(image_bytes + ROOM_BYTES) // MIB) * MIB)


def _prepare_once(
    guest_engine: wasmtime.Engine, cache: ImageCache, key: str, prepare: Callable[[], bytes], progress: Progress
) -> wasmtime.Module | None:
    """Of several processes one prepares the image; the others wait, and find it done."""
    with cache.lock(key, lambda: progress("waiting for another process that prepares the image")):
        cache.sweep()
        module = _load_compiled(guest_engine, cache, key)
        if module is None:
            cache.add(key, prepare())
            for removed in cache.prune(cache_ceiling(), keep=key):
                _log.info("removed %s from the cache, which had grown past its ceiling", removed.path)
            module = _load_compiled(guest_engine, cache, key)
        return module


def _load_compiled(guest_engine: wasmtime.Engine, cache: ImageCache, key: str) -> wasmtime.Module | None:
    path = cache.find(key)
    if path is None:
        return None
    try:
        return wasmtime.Module.deserialize_file(guest_engine, str(path))
    except wasmtime.WasmtimeError as error:
        _log.warning("the compiled image %s is not for this engine (%s): preparing it again", path, error)
        return None
