"""`Image`: what a guest has in it before a tool runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wasm_sandbox.guest.image import ImageSource


@dataclass(frozen=True)
class Image:
    """A guest to run tools in: the default one with your packages, or another one.

    Hand it to ``run_tool(..., image=...)``, `WasmToolSandbox` or `SandboxConfig`; a named one by its name, too.

    Attributes:
        id: its identity: what was made of the same inputs has the same one.
        name: the name under which it is kept on this machine, if it has one.
    """

    source: ImageSource = field(repr=False)
    """Where the engine loads it from."""
    name: str | None = None

    @property
    def id(self) -> str:
        return self.source.id

    @property
    def reference(self) -> str:
        """What finds it again on this machine: its name, else its id."""
        return self.name or self.id

    @classmethod
    def named(cls, name: str) -> Image:
        """The image that is kept on this machine under a name; or under an id, or the first 12 characters of one.

        Raises:
            ImageNotFound: there is none.
            CacheError: the directory of images cannot be used.
        """
        from wasm_sandbox.images.store import ImageStore

        return ImageStore().find(name)


def image_of(image: Image | str | None) -> Image | None:
    """An image given as one or by its name; ``None`` is the default image."""
    if image is None or isinstance(image, Image):
        return image
    if not isinstance(image, str):
        raise TypeError(f"image must be an Image or the name of one, not a {type(image).__name__}")
    return Image.named(image)
