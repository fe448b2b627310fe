"""The user's own installer, pip or uv, asked to resolve and download wheels for the guest. It builds nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from wasm_sandbox.errors import PackageError
from wasm_sandbox.images.adaptations import PURE_WITHOUT_EXTENSIONS
from wasm_sandbox.images.guest_python import GuestPython
from wasm_sandbox.images.wheels import Distribution, of_tree, read_wheel, write_wheel

INSTALL_SECONDS = 900.0
BUILT_IN_LABEL = "+built.in"
"""Of the stand-ins for what the guest has built in: no index has a version with it, so no other one is chosen."""

_LINUX = ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64")
_MAX_QUOTED_LINES = 12

_NO_NETWORK = re.compile(
    r"Failed to establish a new connection|name resolution|Network is unreachable|ConnectTimeout|Max retries exceeded"
    r"|Connection refused|ProxyError|error sending request|dns error|client error \(Connect\)|network was disabled",
    re.IGNORECASE,
)
_NO_SPACE = re.compile(r"No space left on device|os error 28|Disk quota exceeded", re.IGNORECASE)
_CONFLICT = re.compile(r"ResolutionImpossible|requirements are unsatisfiable|conflicting dependencies", re.IGNORECASE)
_MISSING = re.compile(
    r"No matching distribution found for ([A-Za-z0-9._-]+)|depends on ([A-Za-z0-9._-]+)"
    r"|Wheels are required for `([A-Za-z0-9._-]+)`|Because ([A-Za-z0-9._-]+) (?:was not found|has no )"
)
_NOT_THERE = re.compile(r"No matching distribution found|was not found in the|Because (?:only )?\S+ is available")
_NOT_QUOTED = re.compile(
    r"\s*$|WARNING|\[notice\]|To fix this|\d\. |ERROR: ResolutionImpossible|\s*(Looking in|Processing|Collecting|Using"
    r"|Downloading|Saved|File was already|INFO:|Requirement already)"
)


class Installer(ABC):
    """One way to get wheels."""

    name: str

    def __init__(self, command: Sequence[str]) -> None:
        self.command = tuple(command)

    def fetch(self, requirements: Iterable[str], python: GuestPython) -> list[Distribution]:
        """Resolve requirements for the guest and download what they resolve to; what is built in is left out.

        Raises:
            PackageError: if they cannot be had; the message names the reason and what to do.
        """
        wanted = sorted(set(requirements))
        with tempfile.TemporaryDirectory(prefix="wasm-sandbox-packages-") as temporary:
            links = Path(temporary) / "links"
            links.mkdir()
            constraints = Path(temporary) / "constraints.txt"
            built_in = [Distribution(name, version + BUILT_IN_LABEL) for name, version in python.built_in.items()]
            constraints.write_text("".join(f"{one.name}=={one.version}\n" for one in built_in), encoding="utf-8")
            for one in built_in:
                write_wheel(links, one)
            try:
                found = self._download(wanted, python, Path(temporary) / "first", links, constraints)
            except _Refused as refusal:
                # Only now: most requirements need none of these, and each costs a download.
                if not self._add_pure_wheels(wanted, python, Path(temporary), links):
                    raise self._explained(refusal.said, wanted, python) from None
                try:
                    found = self._download(wanted, python, Path(temporary) / "second", links, constraints)
                except _Refused as again:
                    raise self._explained(again.said, wanted, python) from None
        return [one for one in found if not one.version.endswith(BUILT_IN_LABEL)]

    def _add_pure_wheels(self, wanted: Sequence[str], python: GuestPython, temporary: Path, links: Path) -> bool:
        """Wheels, without compiled modules, of the packages that do without; whether there are any."""
        added = False
        for name in PURE_WITHOUT_EXTENSIONS:
            asked = [text for text in wanted if canonicalize_name(re.split(r"[^A-Za-z0-9._-]", text)[0]) == name]
            try:
                one = self._download_compiled(asked or [name], python, temporary / name)
            except _Refused:
                continue
            write_wheel(links, one)
            added = True
        return added

    @abstractmethod
    def _download(
        self, wanted: Sequence[str], python: GuestPython, into: Path, links: Path, constraints: Path
    ) -> list[Distribution]:
        """Resolve and download platform-independent wheels, also from ``links``."""

    @abstractmethod
    def _download_compiled(self, wanted: Sequence[str], python: GuestPython, into: Path) -> Distribution:
        """One distribution, without what it requires, from a wheel for any common platform."""

    @abstractmethod
    def _compiled_wheel(self, name: str, python: GuestPython) -> str | None:
        """The name of a wheel of this distribution that is for one platform only, if there is one."""

    def _run(self, *arguments: str) -> str:
        """Run the installer; its standard output."""
        try:
            done = subprocess.run(
                [*self.command, *arguments],
                capture_output=True,
                stdin=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                errors="replace",
                timeout=INSTALL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise PackageError(f"{self.name} did not end within {INSTALL_SECONDS:g} s") from None
        except OSError as error:
            raise PackageError(f"{self.name} cannot be started: {error.strerror or error}") from None
        if done.returncode:
            raise _Refused(f"{done.stdout}\n{done.stderr}")
        return done.stdout

    def _explained(self, said: str, wanted: Sequence[str], python: GuestPython) -> PackageError:
        """Why the installer refused, for the user."""
        asked = ", ".join(wanted)
        if _NO_SPACE.search(said):
            return PackageError(f"there is no space left to download {asked}: free some, or set TMPDIR to another disk")
        if _NO_NETWORK.search(said):
            return PackageError(
                f"{self.name} cannot reach the package index to download {asked}: check the network, or give wheel "
                f"files as local packages. It said: {_last_lines(said, 2)}"
            )
        names = dict.fromkeys(canonicalize_name(next(filter(None, match))) for match in _MISSING.findall(said))
        compiled = [wheel for name in list(names)[:4] if (wheel := self._compiled_wheel(str(name), python))]
        if compiled:
            return PackageError(
                f"{asked} cannot be had: {', '.join(compiled)} is compiled, and a guest runs pure Python only. "
                f"Built into the guest are: {python.built_in_text}"
            )
        if _CONFLICT.search(said) and not _NOT_THERE.search(said):
            return PackageError(f"the requirements {asked} conflict:\n{_last_lines(said, _MAX_QUOTED_LINES)}")
        hint = ""
        if "Requires-Python" in said or "different python version" in said:
            hint = f" (the guest's Python is {python.full_version})"
        return PackageError(
            f"there is no wheel for {asked} that is pure Python{hint}; check names and versions. {self.name} said: "
            f"{_last_lines(said, 3)}"
        )


class _Refused(Exception):
    """The installer ended with an error."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said


class Pip(Installer):
    """``pip``, of this Python or on the path."""

    name = "pip"

    def _target(self, python: GuestPython, *, compiled: bool) -> list[str]:
        platforms = [f"--platform={name}" for name in (_LINUX if compiled else ("any",))]
        abi = [] if compiled else ["--implementation=py", "--abi=none"]
        return ["--only-binary=:all:", f"--python-version={python.version}", *abi, *platforms]

    def _download(
        self, wanted: Sequence[str], python: GuestPython, into: Path, links: Path, constraints: Path
    ) -> list[Distribution]:
        self._run(
            "download", "--disable-pip-version-check", "--no-input", "--retries=2", f"--dest={into}",
            *self._target(python, compiled=False), f"--find-links={links}", f"--constraint={constraints}", *wanted,
        )  # fmt: skip
        return [read_wheel(path) for path in sorted(into.glob("*.whl"))]

    def _download_compiled(self, wanted: Sequence[str], python: GuestPython, into: Path) -> Distribution:
        self._run(
            "download", "--disable-pip-version-check", "--no-input", "--retries=2", "--no-deps", f"--dest={into}",
            *self._target(python, compiled=True), *wanted,
        )  # fmt: skip
        (wheel,) = into.glob("*.whl")
        return read_wheel(wheel, without_extensions=True)

    def _compiled_wheel(self, name: str, python: GuestPython) -> str | None:
        try:
            report = self._run(
                "install", "--quiet", "--disable-pip-version-check", "--no-input", "--retries=2", "--dry-run",
                "--ignore-installed", "--no-deps", "--report=-", "--target=unused",
                *self._target(python, compiled=True), name,
            )  # fmt: skip
            url = json.loads(report)["install"][0]["download_info"]["url"]
        except (_Refused, ValueError, LookupError):
            return None
        wheel = PurePosixPath(url.partition("#")[0].partition("?")[0]).name
        try:
            tags = parse_wheel_filename(wheel)[3]
        except InvalidWheelFilename:
            return None
        return None if any(tag.platform == "any" and tag.abi == "none" for tag in tags) else wheel


class Uv(Installer):
    """``uv``, which downloads nothing without unpacking it: the tree that it unpacks is read."""

    name = "uv"
    _LINUX_TARGET = "x86_64-manylinux_2_28"
    _PURE_TARGET = "wasm32-pyodide2024"
    """Of the platforms that uv knows the one that the fewest compiled wheels are for; those are refused."""

    def _install(self, python: GuestPython, platform: str, into: Path, *arguments: str) -> list[Distribution]:
        into.mkdir(parents=True)
        self._run(
            "pip", "install", "--quiet", "--no-progress", "--link-mode=copy",
            "--only-binary=:all:", f"--python-version={python.version}", f"--python-platform={platform}",
            f"--python={sys.executable}", f"--target={into}", *arguments,
        )  # fmt: skip
        return _unpacked(into, without_extensions=platform == self._LINUX_TARGET)

    def _download(
        self, wanted: Sequence[str], python: GuestPython, into: Path, links: Path, constraints: Path
    ) -> list[Distribution]:
        # Given on the command line they replace those of the environment, which therefore go along.
        places = [str(links), *filter(None, re.split(r"[\s,]+", os.environ.get("UV_FIND_LINKS", "")))]
        options = [*(f"--find-links={place}" for place in places), f"--constraint={constraints}"]
        return self._install(python, self._PURE_TARGET, into, *options, *wanted)

    def _download_compiled(self, wanted: Sequence[str], python: GuestPython, into: Path) -> Distribution:
        (one,) = self._install(python, self._LINUX_TARGET, into, "--no-deps", *wanted)
        return one

    def _compiled_wheel(self, name: str, python: GuestPython) -> str | None:
        with tempfile.TemporaryDirectory(prefix="wasm-sandbox-packages-") as temporary:
            try:
                self._install(python, self._LINUX_TARGET, Path(temporary) / "tree", "--no-deps", name)
                (wheel,) = (Path(temporary) / "tree").glob("*.dist-info/WHEEL")
            except (_Refused, PackageError, ValueError):
                return None
            tags = re.findall(r"^Tag: (\S+)", wheel.read_text(encoding="utf-8"), re.MULTILINE)
            stem = wheel.parent.name.removesuffix(".dist-info")
            return None if any(tag.endswith("-none-any") for tag in tags) else f"{stem}-{tags[0]}.whl"


def _unpacked(tree: Path, *, without_extensions: bool) -> list[Distribution]:
    """The distributions that were installed into one directory, told apart by their records."""
    found = []
    for record in sorted(tree.glob("*.dist-info/RECORD")):
        files = {}
        for line in record.read_text(encoding="utf-8").splitlines():
            name = line.rpartition(",")[0].rpartition(",")[0].strip('"')
            path = tree / name
            if not name.startswith("..") and path.is_file() and tree.resolve() in path.resolve().parents:
                files[name] = path.read_bytes()
        found.append(of_tree(files, record.parent.name, without_extensions=without_extensions))
    return found


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
        return Pip([sys.executable, "-m", "pip"])
    if name != "pip" and (uv := shutil.which("uv")):
        return Uv([uv])
    if name != "uv" and (pip := shutil.which("pip")):
        return Pip([pip])
    raise PackageError(f"there is no {name or 'pip and no uv'} to download packages with: install {name or 'one'}")


def _last_lines(said: str, count: int) -> str:
    """The end of what an installer said, without its advice and its progress."""
    kept = [line.rstrip()[:300] for line in said.splitlines() if not _NOT_QUOTED.match(line)]
    return "\n".join(kept[-count:])
