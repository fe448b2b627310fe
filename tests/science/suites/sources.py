"""Where the sources of numpy and pandas are: archives of PyPI's, or directories that those were unpacked to."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tarfile
import tempfile
from pathlib import Path

from wasm_sandbox.engine import find_artifact

ROOT = Path(__file__).parents[3]
KEPT = ROOT / "build" / "science"
"""Where an archive is unpacked, and results are kept."""

PACKAGES = ("numpy", "pandas")


class NoSources(Exception):
    """There is no source of a package, or what was named is none."""


def variable(package: str) -> str:
    """Environment variable that names the source of a package."""
    return f"{package.upper()}_SOURCE"


def directory_of(package: str) -> Path:
    """Directory of a package's source, of the version that the guest has. An archive is unpacked, once.

    Raises:
        NoSources: if there is none.
    """
    stem = f"{package}-{find_artifact('science').versions[package]}"
    named = os.environ.get(variable(package))
    if not named:
        raise NoSources(f"name {stem}.tar.gz of PyPI, or what it was unpacked to, in ${variable(package)}")
    place = _unpacked(Path(named), stem) if Path(named).is_file() else Path(named)
    if not (place / package / "conftest.py").is_file() or place.name != stem:
        raise NoSources(f"${variable(package)} is {named}, which is not {stem}: name {stem}.tar.gz")
    return place


def files(package: str, source: Path) -> list[str]:
    """Paths of the files of tests, in order."""
    found = (source / package).rglob("test_*.py")
    return sorted(str(path.relative_to(source)) for path in found if "tests" in path.parts)


def _unpacked(archive: Path, stem: str) -> Path:
    """The directory of an archive, in its place when it is whole."""
    target = KEPT / hashlib.sha256(archive.read_bytes()).hexdigest()[:16] / stem
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as made, tarfile.open(archive) as source:
        source.extractall(made, filter="data")
        if not (Path(made) / stem).is_dir():
            raise NoSources(f"{archive} has no {stem}")
        with contextlib.suppress(OSError):  # another process was quicker
            (Path(made) / stem).rename(target)
    return target
