"""Loading an image: from the cache or prepared, then linked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import wasmtime

from wasm_sandbox.directories import cache_ceiling
from wasm_sandbox.engine.binding.configuration import Progress
from wasm_sandbox.engine.compiled.artifact import PLAIN, Artifact, find_artifact
from wasm_sandbox.engine.compiled.build import Build
from wasm_sandbox.engine.compiled.cache import Hold, ImageCache
from wasm_sandbox.engine.compiled.instances import InstancePool
from wasm_sandbox.engine.compiled.loaded import LoadedImage
from wasm_sandbox.engine.compiled.steps import Step
from wasm_sandbox.engine.compiled.tool_codes import ToolCodes
from wasm_sandbox.engine.memory.base import LinearMemory
from wasm_sandbox.engine.memory.slots import ImageMemory
from wasm_sandbox.engine.module.binary import PAGE_BYTES
from wasm_sandbox.engine.module.image_file import image_parts
from wasm_sandbox.engine.module.metering import ADDED_GLOBALS, Metering
from wasm_sandbox.engine.start.base import Start
from wasm_sandbox.engine.start.kind import StartKind
from wasm_sandbox.engine.start.reactor import Reactor
from wasm_sandbox.engine.world.host_functions import HostFunctions
from wasm_sandbox.errors import ImageError

_log = logging.getLogger(__name__)


class Loader:
    """Loader of images into one engine.

    Args:
        memory: engine and provider of its instances' memory.
        metering: metering of the guest's code. An exported image has only the code that it has.
        progress: called at the start of every slow step.
        cache: cache of compiled images; by default the user's.
        keeps_code: whether the code of tools is kept between runs.
    """

    def __init__(
        self,
        memory: LinearMemory,
        metering: Metering = Metering.FUEL,
        progress: Progress | None = None,
        cache: ImageCache | None = None,
        keeps_code: bool = True,
    ) -> None:
        self._memory, self._metering, self._progress = memory, metering, progress or _log.info
        self._cache, self._keeps_code = cache, keeps_code

    def build(self, artifact: Artifact, start: StartKind = StartKind.REACTOR) -> Build:
        """Build of a guest in this engine."""
        return Build(artifact, start, self._metering, self._memory.kind)

    def prepared(
        self, identity: str, steps: Callable[[], Sequence[Step]], files: Mapping[str, bytes], flavour: str = PLAIN
    ) -> LoadedImage:
        """As `ImageLoader.prepared`."""
        build = self.build(find_artifact(flavour))

        def prepare(cache: ImageCache) -> bytes:
            from wasm_sandbox.engine.compiled import preparation  # lazy: not where there is a compiled image

            parts = _parts_of_others(cache, build, identity)
            return preparation.prepare(self._memory, build, self._progress, steps(), parts.code, parts.memory)

        return self._cached(build, Reactor(), identity, identity, prepare, files)

    def exported(self, identity: str, code: Path, files: Mapping[str, bytes]) -> LoadedImage:
        """As `ImageLoader.exported`."""
        try:
            module = wasmtime.Module.deserialize_file(self._memory.engine, str(code))
        except wasmtime.WasmtimeError as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise ImageError(f"{code} cannot be loaded on this machine: {reason}; export it again") from error
        build = Build(find_artifact(), StartKind.REACTOR, Metering.FUEL, self._memory.kind)
        return self._linked(build, Reactor(), identity, code, module, files)

    def command(
        self, identity: str, code_id: str, start: Start, module: Path, files: Mapping[str, bytes]
    ) -> LoadedImage:
        """As `ImageLoader.command`."""
        build = self.build(Artifact(module, code_id, module.stat().st_size, {}, is_compressed=False), StartKind.COMMAND)

        def compiled(_cache: ImageCache) -> bytes:
            from wasm_sandbox.engine.compiled import compiling  # lazy: not where there is compiled code

            self._progress(f"compiling {module.name} for this machine")
            return compiling.compile_command(self._memory.engine, module, self._metering)

        return self._cached(build, start, identity, code_id, compiled, files)

    def _cached(
        self,
        build: Build,
        start: Start,
        identity: str,
        code_id: str,
        prepare: Callable[[ImageCache], bytes],
        files: Mapping[str, bytes],
    ) -> LoadedImage:
        cache = self._cache or ImageCache()
        key = build.compile_key(code_id)
        module = self._load_compiled(cache, key) or self._prepare_once(cache, key, prepare)
        if module is None:
            raise ImageError(
                f"the image just written to {cache.path(key)} cannot be loaded: is something else changing it?"
            )
        cache.note_use(key)
        return self._linked(build, start, identity, cache.path(key), module, files)

    def _prepare_once(
        self, cache: ImageCache, key: str, prepare: Callable[[ImageCache], bytes]
    ) -> wasmtime.Module | None:
        """Load the image, prepared by one of several processes while the others wait."""
        with cache.lock(key, lambda: self._progress("waiting for another process that prepares the image")):
            cache.sweep()
            module = self._load_compiled(cache, key)
            if module is None:
                cache.add(key, prepare(cache))
                for removed in cache.prune(cache_ceiling(), keep=key):
                    _log.info("removed %s from the cache, which had grown past its ceiling", removed.path)
                module = self._load_compiled(cache, key)
            return module

    def _load_compiled(self, cache: ImageCache, key: str) -> wasmtime.Module | None:
        path = cache.find(key)
        if path is None:
            return None
        try:
            return wasmtime.Module.deserialize_file(self._memory.engine, str(path))
        except wasmtime.WasmtimeError as error:
            _log.warning("the compiled image %s is not for this engine (%s): preparing it again", path, error)
            return None

    def _linked(
        self,
        build: Build,
        start: Start,
        identity: str,
        path: Path,
        module: wasmtime.Module,
        files: Mapping[str, bytes],
    ) -> LoadedImage:
        """Link a compiled module.

        Raises:
            ImageError: if the image is for the other kind of memory, or its memory cannot be mapped.
        """
        is_reactor = start.kind is StartKind.REACTOR
        linker = wasmtime.Linker(self._memory.engine)
        functions = HostFunctions(linker, module)
        memory = self._memory_in(path)
        # An instance of a snapshot runs nothing when it is made, so it may be made ahead.
        instances = InstancePool(self._memory, linker.instantiate_pre(module), memory, ahead=is_reactor)
        return LoadedImage(
            id=identity,
            path=path,
            build=build,
            start=start,
            memory=self._memory,
            instances=instances,
            host_functions=functions,
            memory_bytes=memory.size + PAGE_BYTES if memory else _memory_bytes_of(module),
            hold=Hold(path),
            mutable_globals=_mutable_globals_of(module),
            files=files,
            tool_codes=ToolCodes() if self._keeps_code and is_reactor else None,
        )

    def _memory_in(self, path: Path) -> ImageMemory | None:
        try:
            return self._memory.of_image(path)
        except OSError as error:
            raise ImageError(f"the memory of the image {path} cannot be mapped: {error.strerror or error}") from error


class _Parts(NamedTuple):
    """Files of other images with parts to take instead of making them again."""

    code: Path | None = None
    """File of an image with the same code."""
    memory: Path | None = None
    """File of an image with the same memory."""


def _parts_of_others(cache: ImageCache, build: Build, identity: str) -> _Parts:
    if not build.keeps_memory_apart:
        return _Parts()
    others = [Build(build.artifact, build.start, metering, build.memory) for metering in Metering]
    keys = [other.compile_key(identity) for other in others if other != build]
    same_memory = (cache.find(key, full_check=True) for key in keys)
    return _Parts(_with_code(cache, build.code_key), next(filter(None, same_memory), None))


def _with_code(cache: ImageCache, key: bytes) -> Path | None:
    """Path of the most recently used image in the cache with this code."""
    for entry in reversed(cache.entries()):
        try:
            parts = image_parts(entry.path)
        except OSError:  # another process may be quicker
            continue
        if parts and parts.code_key == key and cache.find(entry.key, full_check=True):
            return entry.path
    return None


def _memory_bytes_of(module: wasmtime.Module) -> int:
    """Initial memory of an instance in bytes."""
    types = [export.type for export in module.exports if isinstance(export.type, wasmtime.MemoryType)]
    return sum(type_.limits.min for type_ in types) * PAGE_BYTES


def _mutable_globals_of(module: wasmtime.Module) -> tuple[str, ...]:
    """Export names of the mutable globals, without those of metering."""
    globals_ = [export for export in module.exports if isinstance(export.type, wasmtime.GlobalType)]
    names = [str(export.name) for export in globals_ if export.type.mutable]  # type: ignore[union-attr]  # globals only
    return tuple(name for name in names if name not in ADDED_GLOBALS)
