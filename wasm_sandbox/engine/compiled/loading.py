"""Loaded images: a guest module ready to run - identified, found in the cache or prepared, linked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import wasmtime

from wasm_sandbox.engine.binding.configuration import Progress
from wasm_sandbox.engine.compiled.artifact import find_artifact
from wasm_sandbox.engine.compiled.cache import Hold, ImageCache, cache_ceiling
from wasm_sandbox.engine.compiled.identity import code_key, compile_key, image_id, memory_bytes_of
from wasm_sandbox.engine.compiled.instances import InstancePool
from wasm_sandbox.engine.compiled.loaded import LoadedImage, Prepare, Wanted
from wasm_sandbox.engine.memory.slots import ImageMemory, OwnMemoryEngine
from wasm_sandbox.engine.module.binary import PAGE_BYTES
from wasm_sandbox.engine.module.image_file import image_parts
from wasm_sandbox.engine.world.host_functions import HostFunctions
from wasm_sandbox.errors import ImageError

_log = logging.getLogger(__name__)


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
