"""Packages that a guest runs only with a little help: which, and how. Each is proved by the compatibility table."""

from __future__ import annotations

from collections.abc import Mapping

PURE_WITHOUT_EXTENSIONS = ("markupsafe", "pyyaml")
"""Published in compiled wheels only, but complete without their compiled modules, which just make them quicker."""

_WIDTH_OF_LONG = b'''"""What sympy asks ctypes for: how wide a C long is. Nothing else of ctypes is here."""


class c_long:
    """A C long."""


def sizeof(kind):
    if kind is not c_long:
        raise TypeError("there is no ctypes in this guest")
    return 4
'''

_ADDED: Mapping[str, Mapping[str, bytes]] = {"sympy": {"ctypes/__init__.py": _WIDTH_OF_LONG}}


def added_files(distribution: str) -> Mapping[str, bytes]:
    """Files that go into an image along with a distribution."""
    return _ADDED.get(distribution, {})
