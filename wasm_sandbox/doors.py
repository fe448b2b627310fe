"""Doors of folders: their names, each loaded on first use, so that importing a folder loads nothing behind it."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

_ROOM_BYTES = 16 << 20
"""What has to be there before a module is loaded. Models are made then by pydantic's compiled code, and that ends the
process where it gets no memory; so a process that has little hears of it before, as a `MemoryError`."""


def door(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a folder's ``__init__``.

    Args:
        package: the folder's name, its ``__name__``.
        homes: name -> the module below the folder that has it.
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = f"{package}.{homes[name]}"
        if home not in sys.modules:
            _see_that_there_is_room()
        value = getattr(import_module(home), name)
        setattr(sys.modules[package], name, value)  # the next look-up finds it there
        return value

    return load


def _see_that_there_is_room() -> None:
    # A mapping of its own: what malloc has given back once, it takes of its heap from then on, and clears.
    try:
        mmap.mmap(-1, _ROOM_BYTES, access=mmap.ACCESS_COPY).close()
    except OSError as error:
        raise MemoryError(str(error)) from None


def above(module: str, name: str) -> Callable[..., Any]:
    """Function of a room above the caller's, loaded when it is called.

    For what a lower room has to ask a higher one, which it must not import.
    """

    def call(*args: Any) -> Any:
        return getattr(import_module(f"{__package__}.{module}"), name)(*args)

    return call
