"""The user's own installer, pip or uv, asked for one wheel of a name at a time. It resolves nothing and builds nothing.

What a wheel requires is text of its author. An installer that resolves it may be led to another address, or to build
what it finds there, which is to execute it. So no installer sees a requirement that it has not been given by us, as a
name and versions, and it is told to look at no other: `resolution` reads what wheels require.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from packaging.specifiers import SpecifierSet
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from wasm_sandbox.errors import PackageError
from wasm_sandbox.images.adaptations import PURE_WITHOUT_EXTENSIONS
from wasm_sandbox.images.commands import Said, pip_environment, pip_listing_environment, run, uv_environment
from wasm_sandbox.images.guest_python import GuestPython
from wasm_sandbox.images.reading import read_below, read_file
from wasm_sandbox.images.wheels import (
    MAX_PACKAGE_BYTES,
    MAX_PACKAGE_FILES,
    CompiledError,
    Distribution,
    of_tree,
    read_wheel,
)

INSTALL_SECONDS = 900.0
"""For all that is downloaded for one image."""

Wanted = Mapping[str, SpecifierSet]
"""Canonical name -> versions."""

_MAX_WHEEL_FILE_BYTES = 1 << 16
_LINUX = ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64")
_NO_NETWORK = re.compile(
    r"Failed to establish a new connection|name resolution|Network is unreachable|ConnectTimeout|Max retries exceeded"
    r"|Connection refused|ProxyError|error sending request|dns error|client error \(Connect\)|network was disabled",
    re.IGNORECASE,
)
_NO_SPACE = re.compile(r"No space left on device|os error 28|Disk quota exceeded", re.IGNORECASE)
_NOT_THERE = re.compile(r"No matching distribution found for ([A-Za-z0-9._-]+)|No solution found")
_INVALID = re.compile(r"has invalid metadata: (.{1,300})")
_NOT_QUOTED = re.compile(
    r"\s*$|WARNING|\[notice\]|To fix this|\d\. |\s*(Looking in|Processing|Collecting|Using"
    r"|Downloading|Saved|File was already|INFO:|Requirement already)"
)


@dataclass(frozen=True)
class Offer:
    """The newest version of a distribution that is for the guest and that fits."""

    distribution: Distribution
    """Without its files."""
    place: Path | None = None
    """Where it is: a wheel, or a tree that one was unpacked to."""
    unfit: str = ""
    """Why it is not for the guest after all."""


class Index:
    """What can be had for a guest from the package index that pip or uv is configured with.

    A context: what was downloaded is gone when it is left.

    Args:
        installer: ``"pip"`` or ``"uv"``, if it must be that one.
        python: the guest's.
    """

    def __init__(self, installer: str | None, python: GuestPython) -> None:
        self._name = installer
        self._python = python
        self._installer: Installer | None = None
        self._temporary = tempfile.TemporaryDirectory(prefix="wasm-sandbox-packages-", ignore_cleanup_errors=True)

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *exception: object) -> None:
        self._temporary.cleanup()

    def newest(self, wanted: Wanted) -> dict[str, Offer | None]:
        """For each name the newest version that fits, without a look at what it requires; ``None`` if none does.

        Raises:
            PackageError: if the index cannot be asked, or what it gave cannot be read.
        """
        lenient = {name: versions for name, versions in wanted.items() if name in PURE_WITHOUT_EXTENSIONS}
        pure = {name: versions for name, versions in wanted.items() if name not in lenient}
        return {
            **self._asked().newest(pure, without_extensions=False),
            **self._asked().newest(lenient, without_extensions=True),
        }

    def read(self, offer: Offer) -> Distribution:
        """An offered distribution with its files; raises as `read_wheel`."""
        return self._asked().read(offer)

    def explain(self, name: str, versions: SpecifierSet) -> str:
        """Why there is nothing, as a clause for the user."""
        return self._asked().explain(name, versions)

    def _asked(self) -> Installer:
        if self._installer is None:
            self._installer = find_installer(self._name)
            self._installer.use(self._python, Path(self._temporary.name))
        return self._installer


class Installer(ABC):
    """One way to get wheels."""

    name: str

    def __init__(self, command: Sequence[str]) -> None:
        self.command = tuple(command)

    def use(self, python: GuestPython, directory: Path) -> None:
        """Begin: from now on it is asked for this Python, and keeps its files in this directory."""
        self._python = python
        self._directory = directory
        self._deadline = time.monotonic() + INSTALL_SECONDS
        self._runs = 0
        self._said: dict[str, str] = {}
        self._environment = self._configured()

    @abstractmethod
    def _configured(self) -> dict[str, str]:
        """Environment variables that it runs with."""

    @abstractmethod
    def newest(self, wanted: Wanted, *, without_extensions: bool) -> dict[str, Offer | None]:
        """As `Index.newest`; ``without_extensions`` takes compiled wheels, too, for what does without."""

    @abstractmethod
    def read(self, offer: Offer) -> Distribution:
        """As `Index.read`."""

    @abstractmethod
    def _compiled_wheel(self, name: str, versions: SpecifierSet) -> str | None:
        """The name of a wheel that is for one platform only, if there is one."""

    def explain(self, name: str, versions: SpecifierSet) -> str:
        """As `Index.explain`."""
        said, compiled = self._said.get(name, ""), None
        with suppress(PackageError, OSError):  # too much of it, for one: then it is not named
            compiled = self._compiled_wheel(name, versions)
        if compiled:
            return (
                f"{compiled} is compiled, and a guest runs pure Python only. "
                f"Built into the guest are: {self._python.built_in_text}"
            )
        if invalid := _INVALID.search(said):
            return f"{name} has invalid metadata: {invalid[1]}"
        hint = ""
        if "Requires-Python" in said or "different python version" in said or "depends on Python" in said:
            hint = f" (the guest's Python is {self._python.full_version})"
        return (
            f"there is no wheel for {requirement_text(name, versions)} that is pure Python{hint}; check names and "
            f"versions. {self.name} said: {_last_lines(said, 3)}"
        )

    def _place(self) -> Path:
        """A directory of one run's own; not made."""
        self._runs += 1
        return self._directory / f"{self._runs}"

    def _run(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Said:
        return run(
            [*self.command, *arguments], self.name, environment or self._environment, self._directory, self._deadline
        )

    def _missing(self, said: str, asked: Wanted) -> set[str]:
        """Of the names that were asked for those that cannot be had, as the installer says.

        Raises:
            PackageError: if it failed for another reason.
        """
        texts = ", ".join(requirement_text(name, versions) for name, versions in asked.items())
        if _NO_SPACE.search(said):
            raise PackageError(f"there is no space left to download {texts}: free some, or set TMPDIR to another disk")
        if _NO_NETWORK.search(said):
            raise PackageError(
                f"{self.name} cannot reach the package index to download {texts}: check the network, or give wheel "
                f"files as local packages. It said: {_last_lines(said, 2)}"
            )
        named = {match[1] for match in _NOT_THERE.finditer(said) if match[1]}
        missing = named & asked.keys()
        if not missing and _NOT_THERE.search(said) and len(asked) == 1:
            missing = set(asked)
        if not missing:
            raise PackageError(f"{texts} cannot be had. {self.name} said: {_last_lines(said, 3)}")
        self._said.update(dict.fromkeys(missing, said))
        return missing


class Pip(Installer):
    """``pip``, of this Python or on the path."""

    name = "pip"
    _ALWAYS = ("--disable-pip-version-check", "--no-input", "--no-deps", "--only-binary=:all:")

    def _configured(self) -> dict[str, str]:
        listed = self._run("config", "list", environment=pip_listing_environment())
        if listed.code:
            raise PackageError(f"pip does not say how it is configured: {_last_lines(listed.text, 2)}")
        return pip_environment(listed.output)

    def _target(self, *, compiled: bool) -> list[str]:
        platforms = [f"--platform={name}" for name in (_LINUX if compiled else ("any",))]
        abi = [] if compiled else ["--implementation=py", "--abi=none"]
        return [*self._ALWAYS, f"--python-version={self._python.full_version}", *abi, *platforms]

    def newest(self, wanted: Wanted, *, without_extensions: bool) -> dict[str, Offer | None]:
        found: dict[str, Offer | None] = dict.fromkeys(wanted)
        left = dict(wanted)
        while left:
            place = self._place()
            texts = [requirement_text(name, versions) for name, versions in left.items()]
            said = self._run("download", *self._target(compiled=without_extensions), f"--dest={place}", "--", *texts)
            if said.code == 0:
                break
            for name in self._missing(said.text, left):
                del left[name]
        for path in sorted(place.glob("*.whl")) if left else ():
            offer = _offer(path, without_extensions=without_extensions)
            if offer.distribution.name not in left or found[offer.distribution.name] is not None:
                raise PackageError(f"pip downloaded {path.name}, which was not asked for")
            found[offer.distribution.name] = offer
        return found

    def read(self, offer: Offer) -> Distribution:
        assert offer.place is not None
        return read_wheel(offer.place, without_extensions=offer.distribution.name in PURE_WITHOUT_EXTENSIONS)

    def _compiled_wheel(self, name: str, versions: SpecifierSet) -> str | None:
        said = self._run(
            "install", "--quiet", "--dry-run", "--ignore-installed", "--report=-", "--target=unused",
            *self._target(compiled=True), "--", requirement_text(name, versions),
        )  # fmt: skip
        try:
            url = json.loads(said.output)["install"][0]["download_info"]["url"]
            wheel = PurePosixPath(url.partition("#")[0].partition("?")[0]).name
            tags = parse_wheel_filename(wheel)[3]
        except (InvalidWheelFilename, ValueError, LookupError, TypeError, AttributeError):
            return None
        return None if any(tag.platform == "any" and tag.abi == "none" for tag in tags) else wheel


class Uv(Installer):
    """``uv``, which downloads nothing without unpacking it: the tree that it unpacks is read."""

    name = "uv"
    _LINUX_TARGET = "x86_64-manylinux_2_28"
    _PURE_TARGET = "wasm32-pyodide2024"
    """Of the platforms that uv knows the one that the fewest compiled wheels are for; those are refused."""

    def _configured(self) -> dict[str, str]:
        return uv_environment()

    def _install(self, name: str, versions: SpecifierSet, platform: str) -> tuple[Path, Said]:
        """Each name in a tree of its own: two distributions may have files of the same name."""
        place = self._place()
        said = self._run(
            "pip", "install", "--quiet", "--no-progress", "--no-python-downloads", "--no-sources", "--link-mode=copy",
            "--no-deps", "--only-binary=:all:", f"--cache-dir={self._directory / 'cache'}",
            f"--python-version={self._python.full_version}", f"--python-platform={platform}",
            f"--python={sys.executable}", f"--target={place}", "--", requirement_text(name, versions),
        )  # fmt: skip
        return place, said

    def newest(self, wanted: Wanted, *, without_extensions: bool) -> dict[str, Offer | None]:
        found: dict[str, Offer | None] = {}
        for name, versions in wanted.items():
            place, said = self._install(name, versions, self._LINUX_TARGET if without_extensions else self._PURE_TARGET)
            if said.code:
                self._missing(said.text, {name: versions})
                found[name] = None
                continue
            found[name] = offer = _offer(place, without_extensions=without_extensions)
            if offer.distribution.name != name:
                raise PackageError(f"uv installed {offer.distribution.name}, which was not asked for")
        return found

    def read(self, offer: Offer) -> Distribution:
        assert offer.place is not None
        return _read_tree(offer.place, without_extensions=offer.distribution.name in PURE_WITHOUT_EXTENSIONS)

    def _compiled_wheel(self, name: str, versions: SpecifierSet) -> str | None:
        place, said = self._install(name, versions, self._LINUX_TARGET)
        if said.code:
            return None
        for wheel in place.glob("*.dist-info/WHEEL"):
            text = read_file(wheel, _MAX_WHEEL_FILE_BYTES).decode("utf-8", "replace")
            tags = re.findall(r"^Tag: (\S+)", text, re.MULTILINE)
            if tags and not any(tag.endswith("-none-any") for tag in tags):
                return f"{wheel.parent.name.removesuffix('.dist-info')}-{tags[0]}.whl"
        return None


def requirement_text(name: str, versions: SpecifierSet) -> str:
    """A requirement that neither pip nor uv takes for a path: pip looks whether a file of such a name is there.

    Canonical names have no dots, and what is in parentheses does not end as an archive's name does.
    """
    return f"{name} ({versions})" if str(versions) else name


def _offer(place: Path, *, without_extensions: bool) -> Offer:
    """What is in a wheel or a tree, without its files."""
    try:
        if place.is_dir():
            found = _read_tree(place, without_extensions=without_extensions)
        else:
            found = read_wheel(place, without_extensions=without_extensions)
    except CompiledError as error:
        return Offer(error.distribution, place, str(error))
    return Offer(found.without_files(), place)


def _read_tree(place: Path, *, without_extensions: bool) -> Distribution:
    try:
        files = read_below(place.resolve(), MAX_PACKAGE_BYTES, MAX_PACKAGE_FILES)
    except OSError as error:
        raise PackageError(f"what was unpacked cannot be read: {error.strerror or error}") from None
    (what, *_) = [name.partition("/")[0] for name in files if name.endswith(".dist-info/METADATA")] or ["the tree"]
    return of_tree(files, what.removesuffix(".dist-info"), without_extensions=without_extensions)


def find_installer(name: str | None = None) -> Installer:
    """The installer to use: pip of this Python, else uv, else a pip on the path.

    Args:
        name: ``"pip"`` or ``"uv"``, if it must be that one.

    Raises:
        PackageError: if there is none.
    """
    if name not in (None, "pip", "uv"):
        raise PackageError(f"{name!r} is no installer that is known here: use pip or uv")
    if name != "uv" and importlib.util.find_spec("pip") is not None:
        # -P: a module of the current directory is not taken for one of pip's.
        return Pip([sys.executable, "-P", "-m", "pip"])
    if name != "pip" and (uv := _on_path("uv")):
        return Uv([uv])
    if name != "uv" and (pip := _on_path("pip")):
        return Pip([pip])
    raise PackageError(f"there is no {name or 'pip and no uv'} to download packages with: install {name or 'one'}")


def _on_path(command: str) -> str | None:
    """A command of the path; none of the current directory, where Windows looks first."""
    found = shutil.which(command)
    return found if found is not None and os.path.isabs(found) else None


def _last_lines(said: str, count: int) -> str:
    """The end of what an installer said, without its advice and its progress."""
    kept = [line.rstrip()[:300] for line in said.splitlines() if not _NOT_QUOTED.match(line)]
    return "\n".join(kept[-count:])
