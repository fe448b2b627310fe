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

_CERTIFI = b'''"""Certificates of authorities: in a guest those of its host count, which verifies them."""

from importlib.resources import files


def where():
    """Path of a file that is there, for libraries that look for one."""
    return "/etc/ssl/cert.pem"


def contents():
    """The certificates that this package was published with."""
    return files("certifi").joinpath("cacert.pem").read_text(encoding="ascii")
'''

_NO_CERTIFICATES = b"""# Certificates are verified by the host of this sandbox (Network.ca_file).
"""

_ADDED: Mapping[str, Mapping[str, bytes]] = {
    "certifi": {"certifi/core.py": _CERTIFI},
    "sympy": {"ctypes/__init__.py": _WIDTH_OF_LONG},
}

_PLACED: Mapping[str, Mapping[str, bytes]] = {"certifi": {"/etc/ssl/cert.pem": _NO_CERTIFICATES}}


def added_files(distribution: str) -> Mapping[str, bytes]:
    """Files that go into an image along with a distribution, or in the place of its own."""
    return _ADDED.get(distribution, {})


def placed_files(distribution: str) -> Mapping[str, bytes]:
    """Files that a run finds where a distribution is installed, by their absolute paths."""
    return _PLACED.get(distribution, {})
