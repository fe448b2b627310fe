"""The images kept on this machine: their names, recipes and files, in a private directory."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel, ValidationError

from wasm_sandbox.directories import DATA_VARIABLE, FileIdentity, data_directory, private_directory
from wasm_sandbox.engine import FLAVOUR_IMAGES
from wasm_sandbox.errors import CacheError, ImageError, ImageNotFound
from wasm_sandbox.images.archive import ArchiveError, read_archive, write_archive
from wasm_sandbox.images.recipe import Contents, Recipe, hashes

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
SHORTEST_ID = 12


class Entry(BaseModel):
    """One kept recipe."""

    recipe: Recipe
    inputs: str
    """`inputs_digest` of the question that it answers."""
    made_at: datetime
    memory_bytes: int = 0
    """What an instance has from the start, once it is known."""


@dataclass(frozen=True)
class Kept:
    """A kept recipe with its names."""

    entry: Entry
    names: tuple[str, ...]
    archive: Path

    @property
    def recipe(self) -> Recipe:
        return self.entry.recipe


class ImageStore:
    """Recipes by digest, each with an archive of its files, and names for them.

    What is kept is enough to make the image again without any network, for example after an update of
    wasmtime, or when the cache was emptied.

    Args:
        directory: where; by default ``images`` in the user's data directory.

    Raises:
        CacheError: if the directory cannot be made, or others can write to it.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = private_directory(
            directory or data_directory() / "images", "the directory of images", DATA_VARIABLE
        )

    # -- recipes ------------------------------------------------------------------------------------------

    def keep(self, recipe: Recipe, contents: Contents, inputs: str, memory_bytes: int = 0) -> None:
        """Keep a recipe with its files; one that is kept already only learns of the new question.

        Raises:
            CacheError: if it cannot be written, for example for lack of space.
        """
        entry = Entry(recipe=recipe, inputs=inputs, made_at=datetime.now(UTC), memory_bytes=memory_bytes)
        try:
            if not self._archive(recipe.digest).exists():
                self._write(self._archive(recipe.digest), lambda file: write_archive(file, contents))
            text = entry.model_dump_json(indent=2).encode()
            self._write(self._entry(recipe.digest), lambda file: file.write(text))
        except OSError as error:
            raise CacheError(
                f"cannot write to the directory of images {self.directory}: {error.strerror or error}. "
                f"Free some space, or name another one in {DATA_VARIABLE}"
            ) from error

    def all(self) -> list[Kept]:
        """Every kept recipe, the oldest first."""
        names = self.names()
        kept = [
            Kept(entry, tuple(n for n, d in names.items() if d == entry.recipe.digest), archive)
            for entry, archive in self._entries()
        ]
        return sorted(kept, key=lambda one: one.entry.made_at)

    def answered(self, inputs: str) -> Kept | None:
        """The recipe that a question was resolved to before, if it is still kept."""
        return next((kept for kept in reversed(self.all()) if kept.entry.inputs == inputs), None)

    def contents(self, recipe: Recipe) -> Contents:
        """The files of a kept recipe, verified.

        Raises:
            ImageError: if they are missing or damaged.
        """
        path = self._archive(recipe.digest)
        try:
            contents = read_archive(path)
        except (OSError, ArchiveError) as error:
            raise ImageError(f"cannot read the image's files in {path}: {error}; build the image again") from error
        if hashes(contents.packages) != recipe.packages or hashes(contents.files) != recipe.files:
            raise ImageError(f"{path} is not what was written there: remove the image and build it again")
        return contents

    def files(self, recipe: Recipe) -> Mapping[str, bytes]:
        """The files that a run finds; raises as `contents`."""
        return self.contents(recipe).files if recipe.files else {}

    def remove(self, digest: str) -> None:
        """Forget a recipe, its files and its names."""
        for name, named in self.names().items():
            if named == digest:
                self.unname(name)
        self._entry(digest).unlink(missing_ok=True)
        self._archive(digest).unlink(missing_ok=True)

    # -- names --------------------------------------------------------------------------------------------

    def names(self) -> dict[str, str]:
        """Name -> digest, in the order of the names."""
        found = {}
        for path in sorted(self._names.glob("*")):
            if NAME.fullmatch(path.name):
                with suppress(OSError, UnicodeDecodeError):
                    found[path.name] = path.read_text("ascii").strip()
        return found

    def name(self, name: str, digest: str) -> None:
        """Give a kept recipe a name; one of the same name loses it."""
        check_name(name)
        self._names.mkdir(mode=0o700, exist_ok=True)
        self._write(self._names / name, lambda file: file.write(digest.encode("ascii")))

    def unname(self, name: str) -> None:
        """Forget a name."""
        (self._names / name).unlink(missing_ok=True)

    def kept(self, reference: str, identity: Callable[[Recipe], str]) -> Kept:
        """What is kept under a name, an id, or at least the first 12 characters of one.

        Args:
            reference: the name or the id.
            identity: gives the id of a recipe's image.

        Raises:
            ImageNotFound: if nothing is.
        """
        names = self.names()
        if digest := names.get(reference):  # at every run with this image: no other recipe is read
            entry = _read_entry(self._entry(digest))
            if entry is not None:
                return Kept(entry, tuple(n for n, d in names.items() if d == digest), self._archive(digest))
        everything = self.all()
        if len(reference) >= SHORTEST_ID:
            found = [kept for kept in everything if identity(kept.recipe).startswith(reference)]
            if len(found) == 1:
                return found[0]
        known = ", ".join(name for kept in everything for name in kept.names) or "none"
        raise ImageNotFound(
            f"there is no image {reference!r} on this machine (images: {known}); "
            f"make it with: wasm-sandbox image build {reference} REQUIREMENT..."
        )

    # -- files --------------------------------------------------------------------------------------------

    @property
    def _names(self) -> Path:
        return self.directory / "names"

    def _entry(self, digest: str) -> Path:
        return self.directory / f"{digest}.json"

    def _archive(self, digest: str) -> Path:
        return self.directory / f"{digest}.zip"

    def _entries(self) -> Iterator[tuple[Entry, Path]]:
        for path in sorted(self.directory.glob("*.json")):
            entry = _read_entry(path)
            if entry is not None:
                yield entry, self._archive(path.stem)

    def _write(self, path: Path, write: Callable[[BinaryIO], object]) -> None:
        """Write a file so that a reader sees all of it or nothing."""
        handle, temporary = tempfile.mkstemp(dir=self.directory, prefix=".writing-")
        try:
            with os.fdopen(handle, "wb") as file:
                write(file)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def _read_entry(path: Path) -> Entry | None:
    try:
        return _parse_entry(path, FileIdentity.of(path))
    except OSError:
        return None


@lru_cache(maxsize=64)
def _parse_entry(path: Path, identity: FileIdentity) -> Entry | None:
    """An entry, if it is whole; read again only after it has changed."""
    try:
        entry = Entry.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return entry if entry.recipe.digest == path.stem else None


def check_name(name: str) -> None:
    """Refuse what cannot name an image.

    Raises:
        ValueError: if it is not 1 to 64 letters, digits, dots, hyphens and underscores, a letter or digit first; or it
            is the name of a flavour.
    """
    if name in FLAVOUR_IMAGES:
        raise ValueError(f"{name!r} is the name of an image that every installation has: take another one")
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot name an image: use 1 to 64 letters, digits, '.', '-' and '_', a letter or digit first"
        )
