"""From a kept recipe to a loaded image: its identity, and its preparation when it is not in the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from wasm_sandbox.images.recipe import Recipe

if TYPE_CHECKING:
    import wasmtime

    from wasm_sandbox.engine.binding.configuration import Progress
    from wasm_sandbox.engine.compiled.loaded import LoadedImage, Wanted
    from wasm_sandbox.engine.compiled.preparation import Step


@cache
def identity(digest: str) -> str:
    """The id of a recipe's image with the guest of this installation: the same on every machine."""
    from wasm_sandbox.engine.compiled.artifact import find_artifact
    from wasm_sandbox.engine.compiled.identity import image_id
    from wasm_sandbox.engine.compiled.packages import installer

    parts = [image_id(find_artifact()), installer(), digest]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True)
class BuiltSource:
    """An image whose recipe is kept in a directory of images."""

    recipe: Recipe
    directory: Path

    @cached_property
    def id(self) -> str:
        return identity(self.recipe.digest)

    @property
    def distributions(self) -> Mapping[str, str]:
        return self.recipe.distributions

    def load(self, guest_engine: wasmtime.Engine, progress: Progress, counts_fuel: bool = True) -> LoadedImage:
        """Load it from the cache, or prepare it from the kept files; raises as `ImageSource.load`."""
        from wasm_sandbox.engine.compiled.loading import load_prepared

        def prepare(wanted: Wanted) -> bytes:
            from wasm_sandbox.engine.compiled.preparation import prepare

            return prepare(guest_engine, wanted, self.steps())

        return load_prepared(guest_engine, self.id, prepare, progress, files=self.files(), counts_fuel=counts_fuel)

    def steps(self) -> list[Step]:
        """What its preparation does beyond that of the default image."""
        from wasm_sandbox.engine.compiled.packages import package_steps
        from wasm_sandbox.images.store import ImageStore

        packages = ImageStore(self.directory).contents(self.recipe).packages
        return package_steps(packages, self.recipe.preload, self.recipe.warm_up)

    def files(self) -> Mapping[str, bytes]:
        """The files that every run finds."""
        from wasm_sandbox.images.store import ImageStore

        return ImageStore(self.directory).files(self.recipe)
