"""The image that a run gets which names none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from wasm_sandbox.engine import BUILT_IN_IMAGE
from wasm_sandbox.switches import IMAGE_VARIABLE

if TYPE_CHECKING:
    from wasm_sandbox.engine import ImageSource


def default_source() -> ImageSource:
    """Our guest without packages; or the exported image that ``$WASM_SANDBOX_IMAGE`` names.

    Raises:
        CacheError: if others can write to the directory of the exported image.
        ImageError: if there is no export in it, or it is for another machine or version.
    """
    if not os.environ.get(IMAGE_VARIABLE):
        return BUILT_IN_IMAGE
    from wasm_sandbox.images.exported import exported_source  # lazy: only where the variable is set

    return exported_source() or BUILT_IN_IMAGE
