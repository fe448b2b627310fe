"""Distributions as files: wheels and local packages read, what is compiled refused. Nothing of them is executed."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from email.parser import Parser
from pathlib import Path, PurePosixPath

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from wasm_sandbox.errors import PackageError

EXTENSION_SUFFIXES = (".so", ".pyd", ".dylib", ".dll")
MAX_PACKAGE_BYTES = 256 << 20
"""Of all files of one distribution together, unpacked."""
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
    """Its requirements, as its metadata says them."""
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def modules(self) -> tuple[str, ...]:
        """The public modules and packages at its top level."""
        return top_level_modules(self.files)


def top_level_modules(files: Iterable[str]) -> tuple[str, ...]:
    """The public modules and packages at the top of a tree of files."""
    found = set()
    for path in map(PurePosixPath, files):
        if len(path.parts) == 1 and path.suffix == ".py":
            found.add(path.stem)
        elif len(path.parts) == 2 and path.name == "__init__.py":
            found.add(path.parts[0])
    return tuple(sorted(name for name in found if name.isidentifier() and not name.startswith("_") and name != "tests"))


def read_wheel(path: Path, *, without_extensions: bool = False) -> Distribution:
    """Read a wheel.

    Args:
        path: of the ``.whl`` file.
        without_extensions: whether to leave compiled modules out instead of refusing them: for packages
            that do without.

    Raises:
        PackageError: if it is no wheel, it is compiled, or it is too large.
    """
    try:
        parse_wheel_filename(path.name)
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            if sum(info.file_size for info in infos) > MAX_PACKAGE_BYTES:
                raise PackageError(f"{path.name} takes more than {MAX_PACKAGE_BYTES >> 20} MiB unpacked")
            files = {info.filename: archive.read(info) for info in infos}
    except InvalidWheelFilename as error:
        raise PackageError(f"{path.name} is not named as a wheel is: {error}") from None
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise PackageError(f"{path} cannot be read as a wheel: {error}") from None
    return of_tree(_laid_out(files), path.name, without_extensions=without_extensions)


def of_tree(files: Mapping[str, bytes], what: str, *, without_extensions: bool = False) -> Distribution:
    """The one distribution in a tree of installed files; ``what`` names it in messages. Raises as `read_wheel`."""
    files = {name: data for name, data in files.items() if _is_wanted(name, what)}
    compiled = sorted(name for name in files if name.lower().endswith(EXTENSION_SUFFIXES))
    if compiled and without_extensions:
        files = {name: data for name, data in files.items() if name not in compiled}
    elif compiled:
        raise PackageError(f"{what} is compiled (it has {compiled[0]}): a guest runs pure Python only")
    directories = {name.partition("/")[0] for name in files if name.partition("/")[0].endswith(".dist-info")}
    if len(directories) != 1 or f"{(directory := directories.pop())}/METADATA" not in files:
        raise PackageError(f"{what} has no metadata of one distribution: it is no wheel")
    metadata = Parser().parsestr(files[f"{directory}/METADATA"].decode("utf-8", "replace"))
    name, version = _field(metadata, "Name", what), _field(metadata, "Version", what)
    files[f"{directory}/RECORD"] = _record(files, f"{directory}/RECORD")
    return Distribution(
        str(canonicalize_name(name)), version, tuple(map(str, metadata.get_all("Requires-Dist") or ())), files
    )


def _field(metadata: Message, name: str, what: str) -> str:
    value = metadata.get(name)
    if not value:
        raise PackageError(f"{what} has no {name} in its metadata: it is no wheel")
    return str(value).strip()


def _laid_out(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of a wheel where an installer puts them; scripts, headers and data for elsewhere are left out."""
    found = {}
    for name, data in files.items():
        first, _, rest = name.partition("/")
        if first.endswith(".data"):
            kind, _, rest = rest.partition("/")
            if kind not in ("purelib", "platlib"):
                continue
            found[rest] = data
        else:
            found[name] = data
    return found


def _is_wanted(name: str, what: str) -> bool:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise PackageError(f"{what} holds a file with the name {name!r}: it is damaged or means harm")
    if path.parts[0] in _NO_MODULES or "__pycache__" in path.parts or name == ".lock":
        return False
    return not (len(path.parts) == 2 and path.parts[0].endswith(".dist-info") and path.name in _LEFT_OUT)


def _record(files: Mapping[str, bytes], own_name: str) -> bytes:
    """The list of files that `importlib.metadata` reads."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    for name, data in sorted(files.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.writerow((name, f"sha256={digest}", len(data)))
    rows.writerow((own_name, "", ""))
    return text.getvalue().encode()


def write_wheel(directory: Path, distribution: Distribution) -> Path:
    """Write a distribution as a platform-independent wheel that an installer takes; where it is."""
    stem = f"{distribution.name.replace('-', '_')}-{distribution.version}"
    path = directory / f"{stem}-py3-none-any.whl"
    info = f"{stem}.dist-info"
    files = {name: data for name, data in distribution.files.items() if not name.endswith(".dist-info/RECORD")}
    if not files:  # a stand-in for what the guest has built in
        metadata = f"Metadata-Version: 2.1\nName: {distribution.name}\nVersion: {distribution.version}\n"
        files[f"{info}/METADATA"] = metadata.encode()
    else:
        (old,) = {name.partition("/")[0] for name in files if name.endswith(".dist-info/METADATA")}
        files = {f"{info}/{n.partition('/')[2]}" if n.startswith(f"{old}/") else n: data for n, data in files.items()}
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: wasm-sandbox\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def read_local(path: Path) -> Distribution | dict[str, bytes]:
    """A local package: a wheel, a package's directory, or a module; the latter two as files below the packages' root.

    Raises:
        PackageError: if it is none of these.
    """
    try:
        if path.suffix == ".whl":
            return read_wheel(path)
        if path.is_file() and path.suffix == ".py" and path.stem.isidentifier():
            return {path.name: path.read_bytes()}
        if path.is_dir() and (path / "__init__.py").is_file():
            return _read_package(path.resolve())
    except OSError as error:
        raise PackageError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not path.exists():
        raise PackageError(f"{path}: there is no such package")
    if path.is_dir() and any((path / name).exists() for name in ("pyproject.toml", "setup.py")):
        raise PackageError(
            f"{path}: is a project, which would have to be built: build its wheel (pip wheel --no-deps {path}) "
            "and give that, or give its package, the directory with the __init__.py"
        )
    raise PackageError(f"{path}: is no package: give a directory with an __init__.py, a .py file or a .whl file")


def _read_package(directory: Path) -> dict[str, bytes]:
    if not directory.name.isidentifier():
        raise PackageError(f"{directory}: cannot be imported by that name: rename the directory")
    files, size = {}, 0
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory.parent).as_posix()
        if not path.is_file() or "__pycache__" in path.parts or path.suffix == ".pyc":
            continue
        if path.suffix in EXTENSION_SUFFIXES:
            raise PackageError(f"{path} is compiled: a guest runs pure Python only")
        size += path.stat().st_size
        if size > MAX_PACKAGE_BYTES:
            raise PackageError(f"{directory} takes more than {MAX_PACKAGE_BYTES >> 20} MiB")
        files[name] = path.read_bytes()
    return files
