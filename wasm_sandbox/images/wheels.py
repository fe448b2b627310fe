"""Distributions as files: wheels and local packages read, what is compiled refused. Nothing of them is executed."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath

from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from wasm_sandbox.errors import PackageError
from wasm_sandbox.images.archive import ArchiveError, check_names, read_members
from wasm_sandbox.images.reading import named, read_below, read_file

EXTENSION_SUFFIXES = (".so", ".pyd", ".dylib", ".dll")
MAX_PACKAGE_BYTES = 256 << 20
"""Of all files of one distribution together, unpacked."""
MAX_PACKAGE_FILES = 50_000
MAX_METADATA_BYTES = 4 << 20
MAX_REQUIRES_CHARS = 256 << 10
"""Of the requirements of one distribution: reading them takes up to three seconds for each million."""
_LONGEST_FIELD = 255
_LEFT_OUT = frozenset(
    {"RECORD", "RECORD.jws", "RECORD.p7s", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"}
)
"""Written by installers, different from one to the next."""
_NO_MODULES = frozenset({"bin", "share", "etc", "include", "man", "Scripts", "__pycache__"})


@dataclass(frozen=True)
class Distribution:
    """One distribution, ready to be put into a guest."""

    name: str
    """Canonical."""
    version: str
    requires: tuple[str, ...] = ()
    """Its requirements, as its metadata says them: what the author of the wheel wrote."""
    requires_python: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def modules(self) -> tuple[str, ...]:
        """The public modules and packages at its top level."""
        return top_level_modules(self.files)

    def without_files(self) -> Distribution:
        """The same, as its metadata says it."""
        return replace(self, files={})


def top_level_modules(files: Iterable[str]) -> tuple[str, ...]:
    """The public modules and packages at the top of a tree of files."""
    found = set()
    for path in map(PurePosixPath, files):
        if len(path.parts) == 1 and path.suffix == ".py":
            found.add(path.stem)
        elif len(path.parts) == 2 and path.name == "__init__.py":
            found.add(path.parts[0])
    return tuple(sorted(name for name in found if name.isidentifier() and not name.startswith("_") and name != "tests"))


class CompiledError(PackageError):
    """A distribution has compiled modules; which one, without its files, is said."""

    def __init__(self, message: str, distribution: Distribution) -> None:
        super().__init__(message)
        self.distribution = distribution


def read_wheel(path: Path, *, without_extensions: bool = False) -> Distribution:
    """Read a wheel that nobody trusts.

    Args:
        path: of the ``.whl`` file.
        without_extensions: whether to leave compiled modules out instead of refusing them: for packages
            that do without.

    Raises:
        CompiledError: if it is compiled.
        PackageError: if it is no wheel, is damaged, means harm, or is too large.
    """
    try:
        expected = parse_wheel_filename(path.name)[:2]
        files = _laid_out(read_members(path, max_bytes=MAX_PACKAGE_BYTES, max_members=MAX_PACKAGE_FILES), path.name)
    except ArchiveError as error:
        raise PackageError(f"{path} cannot be read as a wheel: {error}") from None
    except ValueError as error:  # a wrong name, or numbers in it that are too long
        raise PackageError(f"{path.name} is not named as a wheel is: {error}") from None
    except OSError as error:
        raise PackageError(f"{path} cannot be read: {error.strerror or error}") from None
    found = of_tree(files, path.name, without_extensions=without_extensions)
    if (found.name, Version(found.version)) != expected:
        raise PackageError(f"{path.name} is {found.name} {found.version}, by its metadata: it is damaged or means harm")
    return found


def of_tree(files: Mapping[str, bytes], what: str, *, without_extensions: bool = False) -> Distribution:
    """The one distribution in a tree of installed files; ``what`` names it in messages. Raises as `read_wheel`."""
    files = {name: data for name, data in files.items() if _is_wanted(name, what)}
    directories = {name.partition("/")[0] for name in files if name.partition("/")[0].endswith(".dist-info")}
    if len(directories) != 1 or f"{(directory := directories.pop())}/METADATA" not in files:
        raise PackageError(f"{what} has no metadata of one distribution: it is no wheel")
    found = _described(files[f"{directory}/METADATA"], what)
    if canonicalize_name(directory.removesuffix(".dist-info").rpartition("-")[0]) != found.name:
        raise PackageError(f"{what} has the metadata of {found.name} in {directory}: it is damaged or means harm")
    compiled = sorted(name for name in files if name.lower().endswith(EXTENSION_SUFFIXES))
    if compiled and not without_extensions:
        raise CompiledError(f"{what} is compiled (it has {compiled[0]}): a guest runs pure Python only", found)
    files = {name: data for name, data in files.items() if name not in compiled}
    files[f"{directory}/RECORD"] = record(files, f"{directory}/RECORD")
    return replace(found, files=files)


def _described(metadata: bytes, what: str) -> Distribution:
    """A distribution without its files, of its ``METADATA``."""
    if len(metadata) > MAX_METADATA_BYTES:
        raise PackageError(f"{what} has more than {MAX_METADATA_BYTES >> 20} MiB of metadata")
    # Its body, the description, is not looked at: it may pretend to be a message of many parts.
    fields = HeaderParser().parsestr(metadata.decode("utf-8", "replace"))
    try:
        name = canonicalize_name(_field(fields, "Name", what), validate=True)
        version = str(Version(_field(fields, "Version", what)))
    except ValueError as error:  # InvalidName, InvalidVersion, InvalidSpecifier, and numbers that are too long
        raise PackageError(f"{what} has metadata that are none: {error}") from None
    requires = tuple(map(str, fields.get_all("Requires-Dist") or ()))
    if sum(len(text) + len("Requires-Dist: ") for text in requires) > MAX_REQUIRES_CHARS:
        raise PackageError(f"{what} has more than {MAX_REQUIRES_CHARS >> 10} Ki characters of requirements")
    return Distribution(str(name), version, requires, str(fields.get("Requires-Python") or ""))


def _field(metadata: Message, name: str, what: str) -> str:
    value = str(metadata.get(name) or "").strip()
    if not value or len(value) > _LONGEST_FIELD:
        raise PackageError(f"{what} has no {name} in its metadata: it is no wheel")
    return value


def _laid_out(files: Mapping[str, bytes], what: str) -> dict[str, bytes]:
    """The files of a wheel where an installer puts them; scripts, headers and data for elsewhere are left out."""
    found = {}
    for name, data in files.items():
        _check_name(name, what)
        place = name
        first, _, rest = name.partition("/")
        if first.endswith(".data"):
            kind, _, place = rest.partition("/")
            if kind not in ("purelib", "platlib"):
                continue
        if place in found:
            raise ArchiveError(f"it holds two files for {place!r}")
        found[place] = data
    check_names(found)
    return found


def _check_name(name: str, what: str) -> None:
    """A path below the packages' root, written in one way only."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or str(path) != name or not name.isprintable() or "\\" in name:
        raise PackageError(f"{what} holds a file with the name {name!r}: it is damaged or means harm")


def _is_wanted(name: str, what: str) -> bool:
    _check_name(name, what)
    path = PurePosixPath(name)
    if path.parts[0] in _NO_MODULES or "__pycache__" in path.parts or name == ".lock":
        return False
    return not (len(path.parts) == 2 and path.parts[0].endswith(".dist-info") and path.name in _LEFT_OUT)


def record(files: Mapping[str, bytes], own_name: str) -> bytes:
    """The list of files that `importlib.metadata` reads."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    for name, data in sorted(files.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.writerow((name, f"sha256={digest}", len(data)))
    rows.writerow((own_name, "", ""))
    return text.getvalue().encode()


def read_local(path: Path) -> Distribution | dict[str, bytes]:
    """A local package: a wheel, a package's directory, or a module; the latter two as files below the packages' root.

    Raises:
        PackageError: if it is none of these, or it has a link that leads out of it.
    """
    try:
        real = named(path)
        if path.suffix == ".whl":
            return read_wheel(real)
        if real.is_file() and path.suffix == ".py" and path.stem.isidentifier():
            return {path.name: read_file(real, MAX_PACKAGE_BYTES)}
        if real.is_dir() and (real / "__init__.py").is_file():
            return _read_package(real)
    except FileNotFoundError:
        raise PackageError(f"{path}: there is no such package") from None
    except OSError as error:
        raise PackageError(f"{path}: cannot be read: {error.strerror or error}") from None
    if real.is_dir() and any((real / name).exists() for name in ("pyproject.toml", "setup.py")):
        raise PackageError(
            f"{path}: is a project, which would have to be built: build its wheel (pip wheel --no-deps {path}) "
            "and give that, or give its package, the directory with the __init__.py"
        )
    raise PackageError(f"{path}: is no package: give a directory with an __init__.py, a .py file or a .whl file")


def _read_package(directory: Path) -> dict[str, bytes]:
    if not directory.name.isidentifier():
        raise PackageError(f"{directory}: cannot be imported by that name: rename the directory")
    files = read_below(directory, MAX_PACKAGE_BYTES, MAX_PACKAGE_FILES)
    for name in files:
        if name.lower().endswith(EXTENSION_SUFFIXES):
            raise PackageError(f"{directory / name} is compiled: a guest runs pure Python only")
    return {f"{directory.name}/{name}": data for name, data in files.items()}
