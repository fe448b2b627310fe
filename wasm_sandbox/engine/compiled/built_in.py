"""Sources of the installation's images; without wasmtime: a host whose guests are in worker processes needs none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from wasm_sandbox.engine.compiled.artifact import PLAIN, find_artifact
from wasm_sandbox.engine.compiled.identity import image_id
from wasm_sandbox.engine.start.kind import StartKind

if TYPE_CHECKING:
    from wasm_sandbox.engine.compiled.loaded import ImageLoader, LoadedImage


@dataclass(frozen=True)
class BuiltInImage:
    """Image of our own guest as its start-up and warm-up leave it, without packages; the plain one is the default."""

    flavour: str = PLAIN
    start: ClassVar[StartKind] = StartKind.REACTOR

    @cached_property
    def id(self) -> str:
        return image_id(find_artifact(self.flavour))

    @cached_property
    def distributions(self) -> Mapping[str, str]:
        """What the flavour has beyond the plain guest."""
        plain = find_artifact().distributions
        own = find_artifact(self.flavour).distributions
        return {name: version for name, version in own.items() if name not in plain}

    @property
    def address(self) -> tuple[str, ...]:
        return "built-in", self.flavour

    def load(self, loader: ImageLoader) -> LoadedImage:
        return loader.prepared(self.id, list, {}, self.flavour)


BUILT_IN_IMAGE = BuiltInImage()

FLAVOUR_IMAGES: Mapping[str, BuiltInImage] = {name: BuiltInImage(name) for name in ("science",)}
"""Images of the other flavours, by their names: no image of a user's has one of these."""
