"""From a kept recipe to a loaded image: its identity, and its preparation when it is not in the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from wasm_sandbox.engine import (
    FLAVOUR_IMAGES,
    PLAIN,
    BuiltInImage,
    StartKind,
    find_artifact,
    image_id,
    installer,
    package_steps,
)
from wasm_sandbox.errors import ImageError
from wasm_sandbox.images.recipe import Contents, Recipe

if TYPE_CHECKING:
    from wasm_sandbox.engine import ImageLoader, ImageSource, LoadedImage, Step

_ID_LENGTH = 64


def identity(recipe: Recipe) -> str:
    """The id of a recipe's image with the guest of this installation: the same on every machine."""
    return _identity(recipe.digest, recipe.base)


@cache
def _identity(digest: str, base: str) -> str:
    parts = [image_id(find_artifact(base)), installer(), digest]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class KeptFiles(Protocol):
    """Where the files of a recipe are kept."""

    directory: Path

    def contents(self, recipe: Recipe) -> Contents:
        """The files of a kept recipe, verified.

        Raises:
            ImageError: if they are missing or damaged.
        """

    def files(self, recipe: Recipe) -> Mapping[str, bytes]:
        """The files that a run finds; raises as `contents`."""


@dataclass(frozen=True)
class BuiltSource:
    """An image whose recipe is kept."""

    recipe: Recipe
    kept: KeptFiles

    def __reduce__(self) -> Any:
        """Parts of a pickle: the content hash alone, by which it is found where it is loaded again."""
        return _source_here, (self.id,)

    @cached_property
    def id(self) -> str:
        return identity(self.recipe)

    @property
    def distributions(self) -> Mapping[str, str]:
        built_in = FLAVOUR_IMAGES[self.recipe.base].distributions if self.recipe.base != PLAIN else {}
        return {**built_in, **self.recipe.distributions}

    @property
    def start(self) -> StartKind:
        return StartKind.REACTOR

    @property
    def address(self) -> tuple[str, ...]:
        return "kept", str(self.kept.directory), self.id

    def load(self, loader: ImageLoader) -> LoadedImage:
        """Load it from the cache, or prepare it from the kept files; raises as `ImageSource.load`."""
        return loader.prepared(self.id, self.steps, self.files(), self.recipe.base)

    def steps(self) -> list[Step]:
        """What its preparation does beyond that of its base."""
        packages = self.kept.contents(self.recipe).packages
        return package_steps(packages, self.recipe.preload, self.recipe.warm_up)

    def files(self) -> Mapping[str, bytes]:
        """The files that every run finds."""
        return self.kept.files(self.recipe)


def find_source(reference: str) -> tuple[ImageSource, tuple[str, ...]]:
    """Source of the image of a name or an id on this machine, and its names; raises as `Image.named`."""
    if reference in FLAVOUR_IMAGES:
        return FLAVOUR_IMAGES[reference], (reference,)
    from wasm_sandbox.images.exported import exported_source  # lazy: only where images are kept
    from wasm_sandbox.images.store import ImageStore  # lazy: as above

    if len(reference) == _ID_LENGTH:
        exported = exported_source()
        if exported is not None and exported.id == reference:
            return exported, ()
    store = ImageStore()
    kept = store.kept(reference, identity)
    return BuiltSource(kept.recipe, store), kept.names


def _source_here(identifier: str) -> ImageSource:
    """Source of the image of an id on this machine; raises as `Image.named`."""
    return find_source(identifier)[0]


def source_at(address: Sequence[str], identifier: str) -> ImageSource:
    """Source of an image of this machine, in a process that was told which.

    Args:
        address: its `ImageSource.address`.
        identifier: id that the image had for whoever gave the address.

    Raises:
        ImageNotFound: if the image is not kept any more.
        ImageError: if another image is there by now, or it cannot be read.
        CacheError: if its directory cannot be used.
    """
    source = _source_at(address)
    if source.id != identifier:
        raise ImageError(f"the image {identifier[:16]} has become another one since this program began: start it again")
    return source


def _source_at(address: Sequence[str]) -> ImageSource:
    from wasm_sandbox.images.exported import ExportedSource  # lazy: only in worker processes
    from wasm_sandbox.images.other_python import OtherPythonSource  # lazy: as above
    from wasm_sandbox.images.store import ImageStore  # lazy: as above

    match address:
        case ["built-in", flavour]:
            return BuiltInImage(flavour)
        case ["kept", directory, identifier]:
            store = ImageStore(Path(directory))
            return BuiltSource(store.kept(identifier, identity).recipe, store)
        case ["exported", directory]:
            return ExportedSource(Path(directory))
        case ["command", wasm]:
            return OtherPythonSource(Path(wasm), None)
        case ["command", wasm, stdlib]:
            return OtherPythonSource(Path(wasm), Path(stdlib))
    raise ImageError(f"no image has the address {' '.join(address)}")
