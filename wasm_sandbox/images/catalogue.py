"""What the command says of images and of the cache of compiled ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wasm_sandbox.directories import cache_ceiling
from wasm_sandbox.engine import (
    FLAVOUR_IMAGES,
    CachedImage,
    ImageCache,
    find_artifact,
    image_id,
    key_prefix,
    min_memory_bytes,
    usual_builds,
)
from wasm_sandbox.images.loading import identity
from wasm_sandbox.images.store import ImageStore, Kept

__all__ = [
    "CacheState",
    "CompiledImage",
    "Kept",
    "built_in_images",
    "compiled_default",
    "describe",
    "kept_image",
    "kept_images",
    "prune_cache",
    "remove_image",
]


def kept_images() -> list[Kept]:
    """The images of this machine, the oldest first.

    Raises:
        CacheError: if the directory of images cannot be used.
    """
    return ImageStore().all()


def built_in_images() -> dict[str, dict[str, str]]:
    """Name of each image that comes with the package -> its distributions, name -> version."""
    return {name: dict(source.distributions) for name, source in FLAVOUR_IMAGES.items()}


def kept_image(reference: str) -> Kept:
    """The image of a name, an id, or the first 12 characters of one.

    Raises:
        ImageNotFound: if there is none.
        CacheError: if the directory of images cannot be used.
    """
    return ImageStore().kept(reference, identity)


def describe(kept: Kept) -> dict[str, Any]:
    """An image as plain data: names, id, contents, and sizes in bytes."""
    own_id, recipe = identity(kept.recipe), kept.recipe
    compiled, memory = _compiled(own_id), kept.entry.memory_bytes
    return {
        "names": list(kept.names),
        "id": own_id,
        "base": recipe.base,
        "requirements": list(recipe.requirements),
        "distributions": recipe.distributions,
        "preload": list(recipe.preload),
        "files": list(recipe.files),
        "made_at": kept.entry.made_at.isoformat(),
        "kept_bytes": kept.archive.stat().st_size if kept.archive.exists() else 0,
        "compiled_bytes": sum(found.size_bytes for found in compiled) or None,
        "memory_bytes": memory or None,
        "needed_memory_bytes": min_memory_bytes(memory) if memory else None,
    }


def remove_image(reference: str) -> Sequence[str]:
    """Remove an image, and its compiled code; one that has other names only loses this one.

    Returns:
        The names that it still has.

    Raises:
        ImageNotFound: if there is none.
    """
    store = ImageStore()
    kept = store.kept(reference, identity)
    others = [name for name in kept.names if name != reference]
    if reference in kept.names and others:
        store.unname(reference)
        return others
    store.remove(kept.recipe.digest)
    for found in _compiled(identity(kept.recipe)):
        ImageCache().remove(found.key)
    return []


def _compiled(of_image: str) -> list[CachedImage]:
    """All that an image is compiled to: with fuel and without, for each engine, by each version of wasmtime."""
    return [found for found in ImageCache().entries() if found.key.startswith(key_prefix(of_image))]


@dataclass(frozen=True)
class CompiledImage:
    """Compiled code of an image, in the cache."""

    id: str
    """The image's id."""
    path: Path
    """File of the code; where it would be if it is not there."""
    is_there: bool
    """Whether a run would load it, and not prepare the image."""
    is_whole: bool
    """Whether it is what was written: all of it was read and its SHA-256 compared."""


def compiled_default() -> CompiledImage:
    """Compiled code of the guest of this installation, as the engine of this process looks for it.

    Raises:
        ArtifactError: if the guest module is missing or damaged.
        CacheError: if the cache cannot be used.
        HostError: if a switch has a value that means nothing.
    """
    cache, own_id = ImageCache(), image_id(find_artifact())
    key = usual_builds(find_artifact())[0].compile_key(own_id)
    is_there = cache.find(key) is not None
    is_whole = is_there and cache.find(key, full_check=True) is not None
    return CompiledImage(own_id, cache.path(key), is_there, is_whole)


@dataclass(frozen=True)
class CacheState:
    """The cache of compiled images after it was pruned."""

    directory: Path
    removed: list[CachedImage]
    left: list[CachedImage]


def prune_cache(max_bytes: int | None = None, *, unused_seconds: float | None = None) -> CacheState:
    """Remove compiled images that are not in use; they are prepared again when they are needed.

    Args:
        max_bytes: what may be left; the cache's ceiling if not given.
        unused_seconds: those that were not used for so long are removed in any case.

    Raises:
        CacheError: if the cache cannot be used.
    """
    cache = ImageCache()
    cache.sweep()
    removed = cache.prune(cache_ceiling() if max_bytes is None else max_bytes, unused_seconds=unused_seconds)
    return CacheState(cache.directory, removed, cache.entries())
