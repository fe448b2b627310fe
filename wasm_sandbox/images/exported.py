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
from wasm_sandbox.engine.binding.configuration import Progress
from wasm_sandbox.engine.binding.version import wasmtime_version
from wasm_sandbox.engine.compiled.artifact import find_artifact
from wasm_sandbox.engine.compiled.identity import SNAPSHOT_FORMAT, image_id
from wasm_sandbox.engine.compiled.loaded import LoadedImage
from wasm_sandbox.engine.compiled.loading import link
from wasm_sandbox.errors import CacheError, ImageError
from wasm_sandbox.images.archive import read_archive, write_archive
from wasm_sandbox.images.image import EXPORTED_IMAGE_VARIABLE
from wasm_sandbox.images.loading import BuiltSource
from wasm_sandbox.images.recipe import Contents

if TYPE_CHECKING:
    import wasmtime

    from wasm_sandbox.images.image import Image

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


def export_image(
    image: Image | None, target: str, directory: Path, progress: Progress, compiler: str | None = None
) -> Manifest:
    """Compile an image for a machine, into a directory that needs nothing but this library to run there.

    It is compiled for what every processor of the kind has, so that any of them runs it.

    Args:
        image: which one; ``None`` for the default image.
        target: one of `TARGETS`.
        directory: is made; it must not exist yet, be empty, or hold an export, which is replaced.
        progress: told about every slow step.
        compiler: the ``wasmtime`` command for another kind of machine than this one; by default the one on the path.

    Raises:
        ValueError: the target is unknown, or something else is in the directory.
        ImageError: the image cannot be prepared, compiled for the target, or written.
    """
    from wasm_sandbox.engine.compiled.compiling import check_compiler, compile_for
    from wasm_sandbox.engine.compiled.preparation import prepare_snapshot

    if target not in TARGETS:
        raise ValueError(f"{target!r} is no target that is known here; use one of {', '.join(TARGETS)}")
    _check_unused(directory)
    is_native = target == this_target()
    found = None if is_native else check_compiler(compiler, target)
    if image is None:
        identity, snapshot, files = image_id(find_artifact()), prepare_snapshot(find_artifact(), progress), {}
        distributions: Mapping[str, str] = {}
    elif isinstance(image.source, BuiltSource):
        identity, distributions, files = image.id, image.distributions, dict(image.source.files())
        snapshot = prepare_snapshot(find_artifact(), progress, image.source.steps())
    else:
        raise ImageError(
            f"the image {image.reference[:64]} cannot be exported: only the default one and those of Image.build can"
        )
    progress(f"compiling for {target}")
    code = compile_for(snapshot, TARGETS[target], found)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        files_sha256 = None
        (directory / FILES_NAME).unlink(missing_ok=True)
        if files:
            write_archive(directory / FILES_NAME, Contents({}, files))
            files_sha256 = _sha256(directory / FILES_NAME)
        (directory / CODE_NAME).write_bytes(code)
        manifest = Manifest(
            format=FORMAT,
            snapshot_format=SNAPSHOT_FORMAT,
            id=identity,
            target=target,
            wasmtime=wasmtime_version(),
            code_bytes=len(code),
            code_sha256=hashlib.sha256(code).hexdigest(),
            files_sha256=files_sha256,
            distributions=dict(distributions),
        )
        (directory / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ImageError(f"cannot write to {directory}: {error.strerror or error}") from error
    return manifest


def _check_unused(directory: Path) -> None:
    try:
        there = {path.name for path in directory.iterdir()}
    except FileNotFoundError:
        return
    except OSError as error:
        raise ValueError(f"{directory} cannot be used: {error.strerror or error}") from None
    if there - {MANIFEST_NAME, CODE_NAME, FILES_NAME} or (there and MANIFEST_NAME not in there):
        raise ValueError(f"{directory} holds something else: name a directory that is empty or not there yet")


def exported_source() -> ExportedSource | None:
    """The exported image that stands in for the default one, if ``$WASM_SANDBOX_IMAGE`` names one."""
    configured = os.environ.get(EXPORTED_IMAGE_VARIABLE)
    return _source_in(configured) if configured else None


@lru_cache(maxsize=8)
def _source_in(directory: str) -> ExportedSource:
    """The same one every time: its manifest is read once in a process, like its code."""
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
            CacheError: others can write to the directory.
            ImageError: there is no export in it, or it is for another machine or version.
        """
        try:
            directory = self.directory.resolve(strict=True)
            why = writable_by_others(directory, of_root=True)
            if why is None:
                for name in (MANIFEST_NAME, CODE_NAME):
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

    def load(self, guest_engine: wasmtime.Engine, progress: Progress, counts_fuel: bool = True) -> LoadedImage:
        """Load it, always with code that counts fuel.

        Raises: as `manifest`, and ImageError if a file is not what was exported.
        """
        import wasmtime

        path = self.directory.resolve() / CODE_NAME
        self._check_contents(CODE_NAME, self.manifest.code_sha256)
        files: Mapping[str, bytes] = {}
        if self.manifest.files_sha256 is not None:
            self._check_contents(FILES_NAME, self.manifest.files_sha256)
            files = read_archive(self.directory / FILES_NAME).files
        try:
            module = wasmtime.Module.deserialize_file(guest_engine, str(path))
        except wasmtime.WasmtimeError as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise ImageError(f"{path} cannot be loaded on this machine: {reason}; export it again") from error
        return link(guest_engine, self.id, path, module, files)

    def _check_contents(self, name: str, expected: str) -> None:
        try:
            found = _sha256(self.directory / name)
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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _major(version: str) -> str:
    return version.partition(".")[0]
