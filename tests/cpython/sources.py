"""Where CPython's regression tests are: an archive of its source, or a directory that one was unpacked to."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tarfile
import tempfile
from pathlib import Path

VERSION = "3.13.15"
VARIABLE = "CPYTHON_TESTS"
ARCHIVE = f"python3.13_{VERSION}.orig.tar.xz"

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build" / "cpython"
"""Where an archive is unpacked, and results are kept."""

BESIDE = ROOT.parent / "shared" / "sources" / ARCHIVE

ABSENT = f"CPython's tests are neither in ${VARIABLE} nor in {BESIDE}: name the source archive {ARCHIVE}"

PACKAGES = {
    "test_asyncio",
    "test_concurrent_futures",
    "test_doctest",
    "test_future_stmt",
    "test_gdb",
    "test_inspect",
    "test_multiprocessing_fork",
    "test_multiprocessing_forkserver",
    "test_multiprocessing_spawn",
    "test_pydoc",
}
"""Packages whose modules are run one by one, as CPython's own runner does (`libregrtest.findtests`)."""


INSIDE_OF_ARCHIVE = f"Python-{VERSION}/Lib/test/"


class NoSources(Exception):
    """There are no tests of CPython, or what was named has none."""


def directory_of_tests(cache: Path) -> Path:
    """The directory of the package ``test``. That of an archive is unpacked below ``cache``, once.

    Raises:
        NoSources: if there is none.
    """
    named = os.environ.get(VARIABLE)
    place = Path(named) if named else BESIDE
    if place.is_file():
        return _unpacked(place, cache)
    if not named:
        raise NoSources(ABSENT)
    for directory in (place / "Lib" / "test", place / INSIDE_OF_ARCHIVE, place):
        if (directory / "regrtest.py").is_file():
            return directory
    raise NoSources(f"${VARIABLE} is {place}, which is neither an archive nor has Lib/test: name {ARCHIVE}")


def modules(tests: Path) -> list[str]:
    """Names of the test modules and packages, without ``test.``."""
    found: list[str] = []
    for entry in sorted(tests.iterdir()):
        if not entry.name.startswith("test_") or entry.suffix not in {"", ".py"}:
            continue
        if entry.name in PACKAGES:
            found += [f"{entry.name}.{part.stem}" for part in sorted(entry.glob("test_*.py"))]
        else:
            found.append(entry.stem)
    return found


def _unpacked(archive: Path, cache: Path) -> Path:
    """The package of an archive, in its place when it is whole."""
    mark = hashlib.sha256(archive.read_bytes()).hexdigest()[:16]
    target = cache / f"test-{mark}"
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as made, tarfile.open(archive) as source:
        for member in source:
            if member.name.startswith(INSIDE_OF_ARCHIVE):
                source.extract(member, made, filter="data")
        package = Path(made) / INSIDE_OF_ARCHIVE
        if not package.is_dir():
            raise NoSources(f"{archive} has no {INSIDE_OF_ARCHIVE}: name the source archive {ARCHIVE}")
        with contextlib.suppress(OSError):  # another process was quicker
            package.rename(target)
    return target
