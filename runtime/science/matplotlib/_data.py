"""The files of mpl-data, which are frozen with the package: texts in one module, each font in one of its own."""

import importlib
import io
import os
import zlib

from ._data_files import FONTS, TEXTS

ROOT = "/lib/matplotlib/mpl-data/"  # as get_data_path() says


def _name(path):
    try:
        name = os.fspath(path)
    except TypeError:
        return None
    return name.removeprefix(ROOT) if isinstance(name, str) and name.startswith(ROOT) else None


def has(path):
    """Whether a file is here."""
    name = _name(path)
    return name in TEXTS or name in FONTS


def read(path):
    """What is in a file that is here."""
    name = _name(path)
    if name in FONTS:
        return zlib.decompress(importlib.import_module(FONTS[name]).DATA)
    return TEXTS[name].encode()


def files_below(directory):
    """Paths of the files in a directory that are here, sorted."""
    start = f"{os.fspath(directory)}/"
    return sorted(path for path in (ROOT + name for name in [*TEXTS, *FONTS]) if path.startswith(start))


class _File(io.BytesIO):
    """A font file that says its path, which `FT2Font.fname` asks it for."""

    def __init__(self, path):
        super().__init__(read(path))
        self.path = path

    def __str__(self):
        return self.path


def opened(path):
    """A file to read from if it is here, and otherwise the path."""
    return _File(path) if has(path) else path
