"""Images of the user's: what is in them, where they are kept, how they are built and exported.

May import: values, engine.
Imported by: sandbox, workers, cli, serve, bench, faces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasm_sandbox.doors import door

if TYPE_CHECKING:
    from wasm_sandbox.images.catalogue import CompiledImage as CompiledImage
    from wasm_sandbox.images.catalogue import Kept as Kept
    from wasm_sandbox.images.catalogue import built_in_images as built_in_images
    from wasm_sandbox.images.catalogue import compiled_default as compiled_default
    from wasm_sandbox.images.catalogue import describe as describe
    from wasm_sandbox.images.catalogue import kept_image as kept_image
    from wasm_sandbox.images.catalogue import kept_images as kept_images
    from wasm_sandbox.images.catalogue import prune_cache as prune_cache
    from wasm_sandbox.images.catalogue import remove_image as remove_image
    from wasm_sandbox.images.default import default_source as default_source
    from wasm_sandbox.images.exported import exported_source as exported_source
    from wasm_sandbox.images.exported import this_target as this_target
    from wasm_sandbox.images.exporting import export_image as export_image
    from wasm_sandbox.images.guest_python import tool_requirements as tool_requirements
    from wasm_sandbox.images.image import Image as Image
    from wasm_sandbox.images.image import image_of as image_of
    from wasm_sandbox.images.loading import source_at as source_at
    from wasm_sandbox.images.preparing import Prepared as Prepared
    from wasm_sandbox.images.preparing import interruptibly as interruptibly
    from wasm_sandbox.images.preparing import prepare as prepare
    from wasm_sandbox.images.selection import choose_image as choose_image

_HOMES = {
    "CompiledImage": "catalogue",
    "Image": "image",
    "Kept": "catalogue",
    "Prepared": "preparing",
    "built_in_images": "catalogue",
    "choose_image": "selection",
    "compiled_default": "catalogue",
    "default_source": "default",
    "describe": "catalogue",
    "export_image": "exporting",
    "exported_source": "exported",
    "image_of": "image",
    "interruptibly": "preparing",
    "kept_image": "catalogue",
    "kept_images": "catalogue",
    "prepare": "preparing",
    "prune_cache": "catalogue",
    "remove_image": "catalogue",
    "source_at": "loading",
    "this_target": "exported",
    "tool_requirements": "guest_python",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - a face lists itself once


__getattr__ = door(__name__, _HOMES)
