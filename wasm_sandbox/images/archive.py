"""The files of an image as one archive: the same files make the same bytes."""

from __future__ import annotations

import zipfile
from pathlib import Path

from wasm_sandbox.images.recipe import Contents

_PACKAGES, _FILES = "packages/", "files/"
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)


def write_archive(path: Path, contents: Contents) -> None:
    """Write an archive."""
    with zipfile.ZipFile(path, "w") as archive:
        for prefix, files in ((_PACKAGES, contents.packages), (_FILES, contents.files)):
            for name, data in sorted(files.items()):
                info = zipfile.ZipInfo(prefix + name.removeprefix("/"), _TIMESTAMP)
                archive.writestr(info, data, zipfile.ZIP_DEFLATED)


def read_archive(path: Path) -> Contents:
    """Read an archive; raises what `zipfile` raises."""
    packages, files = {}, {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename.startswith(_PACKAGES):
                packages[info.filename.removeprefix(_PACKAGES)] = archive.read(info)
            elif info.filename.startswith(_FILES):
                files["/" + info.filename.removeprefix(_FILES)] = archive.read(info)
    return Contents(packages, files)
