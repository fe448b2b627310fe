"""Images: a guest module ready to run - identified, found in the cache or prepared, linked."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import wasmtime

from wasm_sandbox.errors import ImageError
from wasm_sandbox.guest.artifact import Artifact, find_artifact
from wasm_sandbox.guest.cache import ImageCache
from wasm_sandbox.guest.settings import ENGINE_SETTINGS, Progress, wasmtime_version
from wasm_sandbox.guest.warm_up import PRELOAD, warm_up_scripts
from wasm_sandbox.guest.wasi import HostFunctions

SNAPSHOT_FORMAT = 2
"""Raised when the way a snapshot is made changes: part of an image's identity."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Image:
    """A compiled, pre-initialised guest, linked to our host functions: instances come from ``pre``."""

    id: str
    """Hash of everything that its memory was made from."""
    path: Path
    """The compiled image in the cache."""
    engine: wasmtime.Engine
    pre: wasmtime.InstancePre
    host_functions: HostFunctions


def image_id(artifact: Artifact) -> str:
    """The identity of the default image: the same on every machine."""
    parts = [str(SNAPSHOT_FORMAT), artifact.sha256, *PRELOAD, *warm_up_scripts()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def compile_key(image: str) -> str:
    """Names the compiled form of an image: it differs by engine version, settings and machine."""
    parts = [image, wasmtime_version(), sys.platform, platform.machine(), ENGINE_SETTINGS]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return f"{image[:16]}-{digest[:16]}"


def load_image(
    guest_engine: wasmtime.Engine, progress: Progress | None = None, cache: ImageCache | None = None
) -> Image:
    """The default image: from the cache, or prepared now (seconds) and put there.

    Args:
        guest_engine: the engine that will run its instances.
        progress: told about every slow step.
        cache: where compiled images are; the user's cache directory by default.

    Raises:
        CacheError: the cache directory cannot be used or written.
        ArtifactError: the guest module of this installation is missing or damaged.
        ImageError: the guest module could not be initialised.
    """
    artifact = find_artifact()
    identity = image_id(artifact)
    cache = cache or ImageCache()
    key = compile_key(identity)
    module = _load_compiled(guest_engine, cache, key)
    if module is None:
        module = _prepare_once(guest_engine, cache, key, artifact, progress or _log.info)
    if module is None:
        raise ImageError(
            f"the image just written to {cache.path(key)} cannot be loaded: is something else changing it?"
        )
    linker = wasmtime.Linker(guest_engine)
    functions = HostFunctions(linker, module)
    pre = linker.instantiate_pre(module)
    return Image(identity, cache.path(key), guest_engine, pre, functions)


def _prepare_once(
    guest_engine: wasmtime.Engine, cache: ImageCache, key: str, artifact: Artifact, progress: Progress
) -> wasmtime.Module | None:
    """Of several processes one prepares the image; the others wait, and find it done."""
    from wasm_sandbox.guest.preparation import prepare

    with cache.lock(key, lambda: progress("waiting for another process that prepares the image")):
        cache.sweep()
        module = _load_compiled(guest_engine, cache, key)
        if module is None:
            cache.add(key, prepare(guest_engine, artifact, progress))
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
