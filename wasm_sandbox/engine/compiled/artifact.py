"""The built guest module that the package carries: where it is, what it must hash to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from wasm_sandbox.errors import ArtifactError

FILE_NAME = "guest.wasm.xz"
DESCRIPTION_NAME = "guest.json"


@dataclass(frozen=True)
class Artifact:
    """The compressed guest module and its recorded identity (written by ``runtime/``'s last stage)."""

    path: Path
    sha256: str
    """Of the module, not of the compressed file."""
    size_bytes: int
    versions: dict[str, str]
    """What is built in: name -> version."""
    is_compressed: bool = True
    """Whether the file holds it compressed, as the package's own does."""

    @property
    def compressed_bytes(self) -> int:
        """Size of the file that the package carries."""
        return self.path.stat().st_size

    def read(self) -> bytes:
        """The module, verified.

        Raises:
            ArtifactError: the file is missing, does not decompress, or has another hash.
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


def find_artifact() -> Artifact:
    """The artifact of this installation: beside this module, or in ``runtime/`` of a source checkout.

    Raises:
        ArtifactError: there is none.
    """
    here = Path(__file__).parent
    candidates = (here / "artifact", here.parents[2] / "runtime" / "artifact")
    for directory in candidates:
        if (directory / DESCRIPTION_NAME).is_file():
            description = json.loads((directory / DESCRIPTION_NAME).read_text())
            return Artifact(
                directory / FILE_NAME,
                description["sha256"],
                description["size_bytes"],
                description["versions"],
            )
    raise ArtifactError(f"no guest module in {' or '.join(map(str, candidates))}; reinstall wasm-sandbox")
