"""From a kept recipe to a loaded image: its identity, and its preparation when it is not in the cache."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from wasm_sandbox.images.recipe import Recipe

if TYPE_CHECKING:
    import wasmtime

    from wasm_sandbox.guest.artifact import Artifact
    from wasm_sandbox.guest.image import LoadedImage
    from wasm_sandbox.guest.settings import Progress


def identity(recipe: Recipe) -> str:
    """The id of a recipe's image with the guest of this installation: the same on every machine."""
    from wasm_sandbox.guest.artifact import find_artifact
    from wasm_sandbox.guest.image import image_id
    from wasm_sandbox.guest.packages import installer

    parts = [image_id(find_artifact()), installer(), recipe.digest]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True)
class BuiltSource:
    """An image whose recipe is kept in a directory of images."""

    recipe: Recipe
    directory: Path

    @cached_property
    def id(self) -> str:
        return identity(self.recipe)

    def load(self, guest_engine: wasmtime.Engine, progress: Progress) -> LoadedImage:
        """Load it from the cache, or prepare it from the kept files; raises as `ImageSource.load`."""
        from wasm_sandbox.guest.image import load_prepared
        from wasm_sandbox.images.store import ImageStore

        store = ImageStore(self.directory)

        def prepare(artifact: Artifact, progress: Progress) -> bytes:
            from wasm_sandbox.guest.packages import package_steps
            from wasm_sandbox.guest.preparation import prepare

            steps = package_steps(store.contents(self.recipe).packages, self.recipe.preload, self.recipe.warm_up)
            return prepare(guest_engine, artifact, progress, steps)

        return load_prepared(guest_engine, self.id, prepare, progress, files=store.files(self.recipe))
