"""What an image is made of: pure values, and the identity that follows from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from pydantic import BaseModel, ConfigDict, Field

from wasm_sandbox.engine import PLAIN

FORMAT = 1
"""Raised when the way packages are put into a guest changes: part of an image's identity."""


class Recipe(BaseModel):
    """All that an image is made of, without the contents of its files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requirements: tuple[str, ...] = ()
    """As they were asked for."""
    distributions: dict[str, str] = Field(default_factory=dict)
    """What they resolved to: name -> version."""
    preload: tuple[str, ...] = ()
    """Modules imported before the snapshot, in order."""
    base: str = PLAIN
    """Flavour of the guest."""
    warm_up: str = ""
    """Python run before the snapshot."""
    packages: dict[str, str] = Field(default_factory=dict)
    """Files that can be imported: path below the packages' root -> SHA-256."""
    files: dict[str, str] = Field(default_factory=dict)
    """Files that a run finds: absolute guest path -> SHA-256."""

    @cached_property
    def digest(self) -> str:
        """Identifies what goes into the guest; how it was asked for, and where it came from, do not count."""
        parts: list[object] = [FORMAT, self.preload, self.warm_up, sorted(self.packages.items())]
        parts += [sorted(self.files.items()), *([] if self.base == PLAIN else [self.base])]
        return sha256(json.dumps(parts).encode())


@dataclass(frozen=True)
class Contents:
    """The files of a recipe, by the same paths."""

    packages: Mapping[str, bytes]
    files: Mapping[str, bytes]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def hashes(files: Mapping[str, bytes]) -> dict[str, str]:
    """The SHA-256 of every file, by path, in the order of the paths."""
    return {path: sha256(data) for path, data in sorted(files.items())}


def inputs_digest(requirements: Iterable[str], local: Mapping[str, bytes], *settings: object) -> str:
    """Identifies what was asked for, before anything is resolved: the same question needs no network twice.

    Args:
        requirements: in any order.
        local: files that the caller gave, by path.
        settings: whatever else counts.
    """
    parts = [FORMAT, sorted(set(requirements)), sorted(hashes(local).items()), settings]
    return sha256(json.dumps(parts).encode())
