"""Images compiled ahead for a machine: written to a directory, loaded from it with no compiler and no cache."""

from __future__ import annotations

import hashlib
import os
import platform
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field, ValidationError

from wasm_sandbox.directories import writable_by_others
from wasm_sandbox.engine import SNAPSHOT_FORMAT, StartKind, wasmtime_version
from wasm_sandbox.errors import CacheError, ImageError
from wasm_sandbox.images.archive import ArchiveError, read_archive
from wasm_sandbox.switches import IMAGE_VARIABLE

if TYPE_CHECKING:
    from wasm_sandbox.engine import ImageLoader, LoadedImage

FORMAT = 3
MANIFEST_NAME, CODE_NAME, FILES_NAME = "image.json", "image.cwasm", "files.zip"

TARGETS: Mapping[str, str] = {
    "x86_64-linux": "x86_64-unknown-linux-gnu",
    "aarch64-linux": "aarch64-unknown-linux-gnu",
    "x86_64-macos": "x86_64-apple-darwin",
    "aarch64-macos": "aarch64-apple-darwin",
    "x86_64-windows": "x86_64-pc-windows-msvc",
}
"""The machines that an image can be compiled for, and what the compiler calls them."""

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_SYSTEMS = {"darwin": "macos", "win32": "windows"}


class Manifest(BaseModel):
    """What is beside the compiled code."""

    format: int
    snapshot_format: int
    id: str
    target: str
    wasmtime: str
    code_bytes: int
    code_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    files_sha256: str | None = None
    distributions: dict[str, str] = Field(default_factory=dict)


def this_target() -> str:
    """The name of this machine, as `TARGETS` has it."""
    machine = platform.machine().lower()
    return f"{_MACHINES.get(machine, machine)}-{_SYSTEMS.get(sys.platform, sys.platform)}"


def exported_source() -> ExportedSource | None:
    """The exported image that stands in for the default one, if ``$WASM_SANDBOX_IMAGE`` names one."""
    configured = os.environ.get(IMAGE_VARIABLE)
    return _source_in(configured) if configured else None


# Guarantees: an export is read once in a process as a rule; threads that are the first together may each read it, and
# have sources that are equal. Locks: none.
@lru_cache(maxsize=8)
def _source_in(directory: str) -> ExportedSource:
    """Memoised source of a directory: its manifest is read once in a process, like its code."""
    return ExportedSource(Path(directory).expanduser())


@dataclass(frozen=True)
class ExportedSource:
    """An image that `export_image` wrote to a directory. Nothing is written, there or elsewhere.

    Its code is native code: the directory must be yours or root's, and nobody else may be able to write to it.
    """

    directory: Path

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest, after the directory has been checked.

        Raises:
            CacheError: if others can write to the directory.
            ImageError: if there is no export in it, or it is for another machine or version.
        """
        try:
            directory = self.directory.resolve(strict=True)
            why = writable_by_others(directory, of_root=True)
            if why is None:
                has_files = os.path.lexists(directory / FILES_NAME)
                for name in (MANIFEST_NAME, CODE_NAME, *([FILES_NAME] if has_files else [])):
                    why = why or _file_writable_by_others(directory / name)
            if why is not None:
                raise CacheError(
                    f"the exported image {directory} {why}: compiled code is only loaded from a directory that nobody "
                    "but you and root can write (chmod -R go-w)"
                )
            manifest = Manifest.model_validate_json((directory / MANIFEST_NAME).read_bytes())
        except OSError as error:
            raise ImageError(
                f"{self.directory} holds no exported image ({error.strerror or error}): write one with "
                "wasm-sandbox image export"
            ) from error
        except ValidationError as error:
            raise ImageError(f"{self.directory / MANIFEST_NAME} is damaged: export the image again") from error
        self._check_fit(manifest)
        return manifest

    def _check_fit(self, manifest: Manifest) -> None:
        if (manifest.format, manifest.snapshot_format) != (FORMAT, SNAPSHOT_FORMAT):
            raise ImageError(f"{self.directory} was exported by another version of wasm-sandbox: export it again")
        if manifest.target != this_target():
            raise ImageError(f"{self.directory} was exported for {manifest.target}, and this is {this_target()}")
        if _major(manifest.wasmtime) != _major(wasmtime_version()):
            raise ImageError(
                f"{self.directory} was exported for wasmtime {manifest.wasmtime}, and {wasmtime_version()} is "
                "installed: export it again, or install that version"
            )

    @property
    def id(self) -> str:
        return self.manifest.id

    @property
    def distributions(self) -> Mapping[str, str]:
        return self.manifest.distributions

    @property
    def start(self) -> StartKind:
        return StartKind.REACTOR

    @property
    def address(self) -> tuple[str, ...]:
        return "exported", str(self.directory.absolute())

    def load(self, loader: ImageLoader) -> LoadedImage:
        """Load it, always with code that counts fuel.

        Raises: as `manifest`, and ImageError if a file is not what was exported.
        """
        path = self.directory.resolve() / CODE_NAME
        self._check_contents(CODE_NAME, self.manifest.code_sha256)
        files: Mapping[str, bytes] = {}
        if self.manifest.files_sha256 is not None:
            self._check_contents(FILES_NAME, self.manifest.files_sha256)
            try:
                files = read_archive(self.directory / FILES_NAME).files
            except (OSError, ArchiveError) as error:
                raise ImageError(f"{self.directory / FILES_NAME} cannot be read: {error}; export it again") from error
        return loader.exported(self.id, path, files)

    def _check_contents(self, name: str, expected: str) -> None:
        try:
            found = file_sha256(self.directory / name)
        except OSError as error:
            raise ImageError(f"{self.directory / name} cannot be read: {error.strerror or error}") from error
        if found != expected:
            raise ImageError(f"{self.directory / name} is not what was exported: its SHA-256 is another one")


def _file_writable_by_others(path: Path) -> str | None:
    if os.name != "posix":
        return None
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        return f"has a {path.name} that is no regular file"
    if status.st_uid not in (os.geteuid(), 0):
        return f"has a {path.name} that belongs to user {status.st_uid}"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"has a {path.name} that others can write"
    return None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _major(version: str) -> str:
    return version.partition(".")[0]
