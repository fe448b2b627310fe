"""The source of the default image; without wasmtime: a host whose guests are in worker processes needs none."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from wasm_sandbox.engine.compiled.artifact import find_artifact
from wasm_sandbox.engine.compiled.identity import image_id
from wasm_sandbox.engine.start.kind import StartKind

if TYPE_CHECKING:
    from wasm_sandbox.engine.compiled.loaded import ImageLoader, LoadedImage


class BuiltInImage:
    """The default image: our own guest as its start-up and warm-up leave it, without packages."""

    distributions: ClassVar[Mapping[str, str]] = {}
    start = StartKind.REACTOR

    @cached_property
    def id(self) -> str:
        return image_id(find_artifact())

    def load(self, loader: ImageLoader) -> LoadedImage:
        return loader.prepared(self.id, list, {})


BUILT_IN_IMAGE = BuiltInImage()
