"""Writing an image to a directory, compiled for a machine."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

from wasm_sandbox.engine import (
    BUILT_IN_IMAGE,
    SNAPSHOT_FORMAT,
    BuiltInImage,
    Progress,
    check_compiler,
    compile_for,
    find_artifact,
    prepare_snapshot,
    wasmtime_version,
)
from wasm_sandbox.errors import ImageError
from wasm_sandbox.images.archive import write_archive
from wasm_sandbox.images.exported import (
    CODE_NAME,
    FILES_NAME,
    FORMAT,
    MANIFEST_NAME,
    TARGETS,
    Manifest,
    file_sha256,
    this_target,
)
from wasm_sandbox.images.image import Image
from wasm_sandbox.images.loading import BuiltSource
from wasm_sandbox.images.recipe import Contents


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
        ValueError: if the target is unknown, or something else is in the directory.
        ImageError: if the image cannot be prepared, compiled for the target, or written.
    """
    if target not in TARGETS:
        raise ValueError(f"{target!r} is no target that is known here; use one of {', '.join(TARGETS)}")
    _check_unused(directory)
    is_native = target == this_target()
    found = None if is_native else check_compiler(compiler, target)
    source = BUILT_IN_IMAGE if image is None else image.source
    files: dict[str, bytes] = {}
    if isinstance(source, BuiltInImage):
        snapshot = prepare_snapshot(find_artifact(source.flavour), progress)
    elif isinstance(source, BuiltSource):
        files = dict(source.files())
        snapshot = prepare_snapshot(find_artifact(source.recipe.base), progress, source.steps())
    else:
        name = image.reference if image is not None else source.id
        raise ImageError(f"the image {name[:64]} cannot be exported: only built-in ones and those of Image.build can")
    progress(f"compiling for {target}")
    code = compile_for(snapshot, TARGETS[target], found)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        files_sha256 = None
        (directory / FILES_NAME).unlink(missing_ok=True)
        if files:
            with _new(directory / FILES_NAME) as file:
                write_archive(file, Contents({}, files))
            files_sha256 = file_sha256(directory / FILES_NAME)
        with _new(directory / CODE_NAME) as file:
            file.write(code)
        manifest = Manifest(
            format=FORMAT,
            snapshot_format=SNAPSHOT_FORMAT,
            id=source.id,
            target=target,
            wasmtime=wasmtime_version(),
            code_bytes=len(code),
            code_sha256=hashlib.sha256(code).hexdigest(),
            files_sha256=files_sha256,
            distributions=dict(source.distributions),
        )
        with _new(directory / MANIFEST_NAME) as file:
            file.write(f"{manifest.model_dump_json(indent=2)}\n".encode())
    except OSError as error:
        raise ImageError(f"cannot write to {directory}: {error.strerror or error}") from error
    return manifest


def _new(path: Path) -> BinaryIO:
    """A new file in the place of any other; a link there is replaced, and what it leads to is left alone."""
    path.unlink(missing_ok=True)
    return path.open("xb")


def _check_unused(directory: Path) -> None:
    try:
        there = {path.name for path in directory.iterdir()}
    except FileNotFoundError:
        return
    except OSError as error:
        raise ValueError(f"{directory} cannot be used: {error.strerror or error}") from None
    if there - {MANIFEST_NAME, CODE_NAME, FILES_NAME} or (there and MANIFEST_NAME not in there):
        raise ValueError(f"{directory} holds something else: name a directory that is empty or not there yet")
