"""Packages that a guest runs only with a little help: which, and how. Each is proved by the compatibility table."""

from __future__ import annotations

from collections.abc import Mapping

PURE_WITHOUT_EXTENSIONS = ("jiter", "markupsafe", "pyyaml")
"""Published in compiled wheels only, but complete without their compiled modules, which just make them quicker, or with
what is added below.
"""

_WIDTH_OF_LONG = b'''"""What sympy asks ctypes for: how wide a C long is. Nothing else of ctypes is here."""


class c_long:
    """A C long."""


def sizeof(kind):
    if kind is not c_long:
        raise TypeError("there is no ctypes in this guest")
    return 4
'''

_JITER = b'''"""The parser of JSON that openai and anthropic use: pydantic has the same one, compiled into the guest."""

from pydantic_core import from_json as _from_json


def from_json(
    json_data,
    /,
    *,
    allow_inf_nan=True,
    cache_mode="all",
    partial_mode=False,
    catch_duplicate_keys=False,
    float_mode="float",
):
    """The value of a JSON text, which may be incomplete if partial_mode says so."""
    if catch_duplicate_keys or float_mode != "float":
        raise NotImplementedError("in this guest jiter has neither catch_duplicate_keys nor another float_mode")
    return _from_json(json_data, allow_inf_nan=allow_inf_nan, cache_strings=cache_mode, allow_partial=partial_mode)


def cache_clear():
    """Do nothing: what is cached is pydantic's."""


def cache_usage():
    """Nothing of this module's."""
    return 0
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
    "jiter": {"jiter/jiter.py": _JITER},
    "sympy": {"ctypes/__init__.py": _WIDTH_OF_LONG},
}

_PLACED: Mapping[str, Mapping[str, bytes]] = {"certifi": {"/etc/ssl/cert.pem": _NO_CERTIFICATES}}


def added_files(distribution: str) -> Mapping[str, bytes]:
    """Files that go into an image along with a distribution, or in the place of its own."""
    return _ADDED.get(distribution, {})


_OPENS_ITS_DATA = ("boto3", "botocore")
"""Distributions that open data by paths beside their modules, where packages are no files."""


def placed_files(distribution: str, files: Mapping[str, bytes]) -> Mapping[str, bytes]:
    """Files that a run finds where a distribution is installed, by their absolute paths.

    Args:
        distribution: its name.
        files: its files, by their paths.
    """
    if distribution in _OPENS_ITS_DATA:
        return {f"/packages/{path}": data for path, data in files.items() if "/data/" in path}
    return _PLACED.get(distribution, {})
