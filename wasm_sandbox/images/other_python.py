"""Images from another CPython for WASI: a command that somebody else built, started anew each time."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from wasm_sandbox.engine import Command, StartKind
from wasm_sandbox.errors import ImageError, UnsupportedIsolation
from wasm_sandbox.files import HostDir

if TYPE_CHECKING:
    from wasm_sandbox.engine import ImageLoader, LoadedImage


MODULE_HEADER = b"\0asm\x01\0\0\0"
COMPONENT_HEADER = b"\0asm\x0d\0\x01\0"
LIBRARY_DIRECTORY = "/stdlib"
LIBRARY_ARCHIVE = "/stdlib.zip"


@dataclass(frozen=True)
class OtherPythonSource:
    """A ``python.wasm`` of this host, and its standard library if that is not inside."""

    wasm: Path
    stdlib: Path | None

    @cached_property
    def module_id(self) -> str:
        """Identifies what is compiled."""
        return hashlib.sha256(json.dumps(["foreign", _sha256(self.wasm)]).encode()).hexdigest()

    @cached_property
    def id(self) -> str:
        parts = [self.module_id]
        if self.stdlib is not None:
            parts += [str(self.stdlib)] if self.stdlib.is_dir() else ["zip", _sha256(self.stdlib)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def distributions(self) -> Mapping[str, str]:
        return {}

    def check(self) -> None:
        """Look at the files, as far as that is quick.

        Raises:
            ImageError: if one cannot be read, or is not what it should be.
        """
        try:
            with self.wasm.open("rb") as file:
                header = file.read(len(MODULE_HEADER))
        except OSError as error:
            raise ImageError(f"{self.wasm}: cannot be read: {error.strerror or error}") from None
        if header == COMPONENT_HEADER:
            raise ImageError(f"{self.wasm}: is a WebAssembly component; a module for WASI preview 1 is needed")
        if header != MODULE_HEADER:
            raise ImageError(f"{self.wasm}: is no WebAssembly module")
        if self.stdlib is None:
            return
        if self.stdlib.is_dir():
            if not any((self.stdlib / name).is_file() for name in ("os.py", "os.pyc")):
                raise ImageError(f"{self.stdlib}: holds no os module: is it the library itself?")
        elif not self.stdlib.is_file():
            raise ImageError(f"{self.stdlib}: there is no such file or directory")
        elif not zipfile.is_zipfile(self.stdlib):
            raise ImageError(f"{self.stdlib}: is neither a directory nor a zip archive")

    @property
    def start(self) -> StartKind:
        return StartKind.COMMAND

    @property
    def address(self) -> tuple[str, ...]:
        if self.stdlib is None:
            return "command", str(self.wasm)
        if self.stdlib.is_dir():
            raise UnsupportedIsolation(
                f'isolation="process" runs no image whose library is a directory ({self.stdlib}), for its workers can '
                'open nothing: give the library as a zip archive, or take "thread"'
            )
        return "command", str(self.wasm), str(self.stdlib)

    def load(self, loader: ImageLoader) -> LoadedImage:
        """Load it from the cache, or compile it; raises as `ImageSource.load`."""
        self.check()
        files: dict[str, bytes] = {}
        command = Command()
        if self.stdlib is not None and self.stdlib.is_dir():
            command = Command(LIBRARY_DIRECTORY, {LIBRARY_DIRECTORY: HostDir(self.stdlib)})
        elif self.stdlib is not None:
            command = Command(LIBRARY_ARCHIVE)
            files[LIBRARY_ARCHIVE] = _read(self.stdlib)
        return loader.command(self.id, self.module_id, command, self.wasm, files)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from None


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from None
