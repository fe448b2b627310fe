"""Guest modules that the package carries, one of each flavour: their places and hashes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from wasm_sandbox.errors import ArtifactError

FILE_NAME = "guest.wasm.xz"
DESCRIPTION_NAME = "guest.json"
PLAIN = "plain"
"""Flavour of the default image."""

_NO_DISTRIBUTIONS = {
    "cpython", "zlib", "bzip2", "liblzma", "sqlite", "libjpeg-turbo", "libwebp", "freetype", "qhull",
    "pybind11", "cppy", "libxml2", "libxslt",
}  # fmt: skip
"""Built-in software that no Python program can import."""


@dataclass(frozen=True)
class Artifact:
    """Guest module in a file, and its recorded identity (written by ``runtime/``'s last stage)."""

    path: Path
    sha256: str
    """SHA-256 of the module, not of the compressed file."""
    size_bytes: int
    versions: dict[str, str]
    """Built-in software: name -> version."""
    preload: tuple[str, ...] = ()
    """Modules of the flavour to import before any run."""
    is_compressed: bool = True
    """Whether the file is compressed (xz), as the package's own is."""

    @property
    def distributions(self) -> dict[str, str]:
        """The Python distributions among the built-in software: name -> version."""
        return {name: version for name, version in self.versions.items() if name not in _NO_DISTRIBUTIONS}

    @property
    def compressed_bytes(self) -> int:
        """Size of the file."""
        return self.path.stat().st_size

    def read(self) -> bytes:
        """Read and verify the module.

        Raises:
            ArtifactError: if the file is missing, does not decompress, or has another hash.
        """
        import lzma  # lazy: only where an image is prepared

        try:
            content = self.path.read_bytes()
            module = lzma.decompress(content) if self.is_compressed else content
        except (OSError, lzma.LZMAError) as error:
            raise ArtifactError(f"cannot read the guest module {self.path}: {error}; reinstall wasm-sandbox") from error
        found = hashlib.sha256(module).hexdigest()
        if found != self.sha256:
            raise ArtifactError(f"{self.path} has sha256 {found}, expected {self.sha256}; reinstall wasm-sandbox")
        return module


def find_artifact(flavour: str = PLAIN) -> Artifact:
    """Artifact of this installation: beside this module, or in ``runtime/`` of a source checkout.

    Raises:
        ArtifactError: if there is none.
    """
    here = Path(__file__).parent
    candidates = (here / "artifact" / flavour, here.parents[2] / "runtime" / flavour / "artifact")
    for directory in candidates:
        if (directory / DESCRIPTION_NAME).is_file():
            description = json.loads((directory / DESCRIPTION_NAME).read_text())
            return Artifact(
                directory / FILE_NAME,
                description["sha256"],
                description["size_bytes"],
                description["versions"],
                tuple(description["preload"]),
            )
    archive = next((parent for parent in here.parents if parent.is_file()), None)
    if archive is not None:
        raise ArtifactError(
            f"wasm-sandbox was imported from inside the archive {archive}, where the guest module is no file: "
            "unpack the archive, or install wasm-sandbox with pip, and import it from there"
        )
    raise ArtifactError(f"no {flavour} guest module in {' or '.join(map(str, candidates))}; reinstall wasm-sandbox")
