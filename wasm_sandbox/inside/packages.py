"""Runs inside the guest while an image is prepared: packages kept in memory, found and imported from there.

The files are in one zip archive, an object of the guest's memory; ``/packages`` stands for its root. The code of
every module is compiled before the snapshot. Never imported by the host, which sends this text to the guest.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.metadata
import importlib.util
import io
import marshal
import os
import pkgutil
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from importlib.resources.abc import Traversable, TraversableResources
from types import CodeType, ModuleType
from typing import Any

ROOT = "/packages"
_DISTRIBUTION = ".dist-info"


class Packages:
    """The files by their paths below the root, and the code of the modules among them."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        archive.filename = ROOT  # what paths into it begin with
        self.root = zipfile.Path(archive)
        self.names = {info.filename: info for info in archive.infolist()}
        self.directories = {""}
        for name in self.names:
            while name := name.rpartition("/")[0]:
                self.directories.add(name)
        self._code: dict[str, bytes] = {}

    def compile(self) -> None:
        """Compile every module; one that does not compile says so when it is imported."""
        for name in self.names:
            if name.endswith(".py"):
                try:
                    code = compile(self.read(name), f"{ROOT}/{name}", "exec", dont_inherit=True)
                except (SyntaxError, ValueError, RecursionError, MemoryError):
                    continue
                self._code[name] = zlib.compress(marshal.dumps(code), 1)

    def read(self, name: str) -> bytes:
        return self.archive.read(self.names[name])

    def code(self, name: str) -> CodeType:
        compiled = self._code.get(name)
        if compiled is None:
            code: CodeType = compile(self.read(name), f"{ROOT}/{name}", "exec", dont_inherit=True)
        else:
            code = marshal.loads(zlib.decompress(compiled))
        return code

    def below_root(self, path: str) -> str:
        """The name of a file by its absolute path."""
        name = os.path.normpath(path).removeprefix(f"{ROOT}/")
        if name not in self.names:
            raise FileNotFoundError(2, "No such file or directory", path)
        return name

    def at(self, name: str) -> Traversable:
        """A file or directory, as `importlib.resources` wants it."""
        return self.root.joinpath(name) if name else self.root


class Finder(importlib.abc.PathEntryFinder):
    """Finds modules in one directory of the packages."""

    def __init__(self, packages: Packages, directory: str) -> None:
        self._packages, self._prefix = packages, f"{directory}/" if directory else ""

    def find_spec(self, fullname: str, target: ModuleType | None = None) -> ModuleSpec | None:
        place = self._prefix + fullname.rpartition(".")[2]
        for name, is_package in ((f"{place}/__init__.py", True), (f"{place}.py", False)):
            if name in self._packages.names:
                loader = Loader(self._packages, fullname, name, is_package)
                spec = importlib.util.spec_from_loader(fullname, loader, origin=f"{ROOT}/{name}", is_package=is_package)
                assert spec is not None
                spec.has_location = True
                if is_package:
                    spec.submodule_search_locations = [f"{ROOT}/{place}"]
                return spec
        if place in self._packages.directories:  # a part of a namespace package
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [f"{ROOT}/{place}"]
            return spec
        return None

    def iter_modules(self, prefix: str = "") -> Iterator[tuple[str, bool]]:
        """As `pkgutil` asks path entry finders."""
        found: dict[str, bool] = {}
        for name in self._packages.names:
            first, _, rest = name.removeprefix(self._prefix).partition("/")
            if not name.startswith(self._prefix):
                continue
            if rest == "__init__.py":
                found[first] = True
            elif not rest and first.endswith(".py") and first != "__init__.py":
                found.setdefault(first.removesuffix(".py"), False)
        for module, is_package in sorted(found.items()):
            yield prefix + module, is_package

    def invalidate_caches(self) -> None:
        """There are none."""


class Loader(importlib.abc.ExecutionLoader):
    """Loads one module, and gives its source and the files beside it."""

    def __init__(self, packages: Packages, fullname: str, name: str, is_package: bool) -> None:
        self._packages, self._fullname, self._name, self._is_package = packages, fullname, name, is_package

    def get_filename(self, fullname: str | None = None) -> str:
        return f"{ROOT}/{self._name}"

    def is_package(self, fullname: str | None = None) -> bool:
        return self._is_package

    def get_code(self, fullname: str | None = None) -> CodeType:
        return self._packages.code(self._name)

    def get_source(self, fullname: str | None = None) -> str:
        return importlib.util.decode_source(self._packages.read(self._name))

    def get_data(self, path: str) -> bytes:
        return self._packages.read(self._packages.below_root(path))

    def get_resource_reader(self, fullname: str) -> Resources:
        return Resources(self._packages.at(self._name.rpartition("/")[0]))


class Resources(TraversableResources):
    """The files beside a module."""

    def __init__(self, directory: Traversable) -> None:
        self._directory = directory

    def files(self) -> Traversable:
        return self._directory


class Distributions(importlib.metadata.DistributionFinder):
    """Finds what `importlib.metadata` says of the packages; on the list of finders for that only."""

    def __init__(self, packages: Packages) -> None:
        self._packages = packages

    @staticmethod
    def find_spec(fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        return None

    def find_distributions(
        self,
        context: importlib.metadata.DistributionFinder.Context = importlib.metadata.DistributionFinder.Context(),  # noqa: B008
    ) -> Iterator[importlib.metadata.Distribution]:
        wanted = context.name and _normal(context.name)
        for directory in sorted(self._packages.directories):
            if not directory.endswith(_DISTRIBUTION) or "/" in directory:
                continue
            if not wanted or _normal(directory.partition("-")[0]) == wanted:
                yield importlib.metadata.PathDistribution(self._packages.at(directory))  # type: ignore[arg-type]


def _normal(name: str) -> str:
    return name.replace("-", "_").replace(".", "_").lower()


def install(size: int) -> None:
    """Read an archive of ``size`` bytes from standard input, and make its packages importable."""
    # In one read: what is read in parts and put together leaves its parts behind in the snapshot.
    data = os.read(0, size)
    if len(data) != size:
        raise EOFError(f"{size} bytes of packages were announced, {len(data)} came")
    packages = Packages(zipfile.ZipFile(io.BytesIO(data)))
    packages.compile()

    def hook(path: str) -> Finder:
        if path != ROOT and not path.startswith(f"{ROOT}/"):
            raise ImportError(f"not below {ROOT}", path=path)
        return Finder(packages, path[len(ROOT) + 1 :])

    sys.path_hooks.insert(0, hook)
    sys.path.append(ROOT)
    sys.meta_path.append(Distributions(packages))
    pkgutil.iter_importer_modules.register(Finder, Finder.iter_modules)  # type: ignore[attr-defined]
    importlib.invalidate_caches()
    if "tzdata/__init__.py" in packages.names:  # the guest's own is for zoneinfo only: its files cannot be read
        _load_instead(Finder(packages, ""), "tzdata")


def _load_instead(finder: Finder, name: str) -> None:
    """Import a package from here that the guest has frozen, too."""
    spec = finder.find_spec(name)
    if spec is not None and spec.loader is not None:
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)


def preload(name: str) -> Any:
    """Import a module before the snapshot."""
    try:
        return importlib.import_module(name)
    except SystemExit as error:
        raise ImportError(f"{name} ends the interpreter when it is imported") from error


def leave_the_client_to_runs() -> None:
    """Have each run execute the part of a script that makes its client, and what follows, itself.

    What scripts begin with is executed before the snapshot; where there was no ``letta_client`` yet, it made no client.
    """
    import _sandbox_guest  # type: ignore[import-not-found]

    templates = list(_sandbox_guest._templates)
    _sandbox_guest._templates.clear()
    for template in templates:
        opening = template.opening.partition("try:\n    from letta_client")[0]
        class_block = template.closing.partition("try:\n")[2].partition("    _wrapped")[0]
        _sandbox_guest.register_template(opening, template.closing, class_block)
