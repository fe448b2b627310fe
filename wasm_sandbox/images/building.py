"""Making an image: its packages resolved, its files read, its recipe kept, its guest prepared."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement

from wasm_sandbox.engine import FLAVOUR_IMAGES, PLAIN, Progress, find_artifact, process_engine
from wasm_sandbox.errors import PackageError
from wasm_sandbox.images.adaptations import added_files, placed_files
from wasm_sandbox.images.archive import MAX_IMAGE_BYTES, MAX_IMAGE_FILES
from wasm_sandbox.images.guest_python import GuestPython, parse_requirement
from wasm_sandbox.images.installer import Index
from wasm_sandbox.images.loading import BuiltSource
from wasm_sandbox.images.reading import is_text, named, read_file
from wasm_sandbox.images.recipe import Contents, Recipe, hashes, inputs_digest
from wasm_sandbox.images.resolution import resolve
from wasm_sandbox.images.store import ImageStore, check_name
from wasm_sandbox.images.wheels import Distribution, read_local, top_level_modules

MAX_FILES_BYTES = 64 << 20
"""Of all ``files`` of an image together: they are in the host's memory while a guest runs."""

_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")

_log = logging.getLogger(__name__)


def build(
    *,
    requirements: Sequence[str],
    base: str | None,
    packages: Sequence[str | Path],
    preload: Sequence[str] | None,
    files: Mapping[str, str | Path | bytes],
    warm_up: str,
    name: str | None,
    installer: str | None,
    upgrade: bool,
    progress: Progress | None,
) -> BuiltSource:
    """As `Image.build`: the source of the image."""
    progress = progress or _log.info
    if name is not None:
        check_name(name)
    flavour = PLAIN if base is None else base
    if flavour not in (PLAIN, *FLAVOUR_IMAGES):
        raise ValueError(f"base: there is no guest {flavour!r}; use one of {', '.join((PLAIN, *FLAVOUR_IMAGES))}")
    python = GuestPython(find_artifact(flavour))
    wanted = [parse_requirement(text) for text in requirements]
    for module in preload or ():
        if not _MODULE.fullmatch(module):
            raise ValueError(f"preload: {module!r} is no name of a module")
    if "\0" in warm_up:
        raise ValueError("warm_up holds a NUL character, so it is no Python text")
    own, local = _read_all_local(packages)
    placed = _read_files(files)
    store = ImageStore()
    wheels = {f"{one.name}.whl/{path}": data for one in local for path, data in one.files.items()}
    inputs = _inputs(python, wanted, {**own, **wheels, **placed}, preload, warm_up)
    kept = None if upgrade else store.answered(inputs)
    if kept is not None:
        recipe = kept.recipe
    else:
        if wanted or any(one.requires for one in local):
            progress("resolving and downloading packages")
        with Index(installer, python) as index:
            found = resolve(wanted, local, python, index)
        recipe, contents = _recipe(flavour, found, own, placed, [str(r) for r in wanted], local, preload, warm_up)
        store.keep(recipe, contents, inputs)
    source = BuiltSource(recipe, store)
    try:
        loaded = process_engine().image(source, progress=progress)
    except BaseException:
        if kept is None:
            store.remove(recipe.digest)  # an image that does not come up is not kept
        raise
    if kept is None:
        store.keep(recipe, contents, inputs, loaded.memory_bytes)
    if name is not None:
        store.name(name, recipe.digest)
    return source


def built_before(requirements: Sequence[str], base: str | None = None) -> tuple[BuiltSource, str | None] | None:
    """The image of just these requirements on a base and its name, if it was built on this machine."""
    wanted = [parse_requirement(text) for text in requirements]
    store = ImageStore()
    kept = store.answered(_inputs(GuestPython(find_artifact(base or PLAIN)), wanted, {}, None, ""))
    return None if kept is None else (BuiltSource(kept.recipe, store), next(iter(kept.names), None))


def _inputs(
    python: GuestPython,
    wanted: Sequence[Requirement],
    local: Mapping[str, bytes],
    preload: Sequence[str] | None,
    warm_up: str,
) -> str:
    modules = None if preload is None else list(preload)
    return inputs_digest(
        map(str, wanted), local, modules, warm_up, sorted(python.built_in.items()), python.full_version
    )


def _read_all_local(paths: Sequence[str | Path]) -> tuple[dict[str, bytes], list[Distribution]]:
    files: dict[str, bytes] = {}
    distributions = []
    for path in map(Path, paths):
        found = read_local(path)
        if isinstance(found, Distribution):
            distributions.append(found)
            continue
        if both := sorted(files.keys() & found.keys()):
            raise PackageError(f"{path}: another package has a file {both[0]}, too")
        files |= found
    return files, distributions


def _read_files(files: Mapping[str, str | Path | bytes]) -> dict[str, bytes]:
    """The files of an image by their guest paths: contents as bytes, or a path on this host."""
    found = {}
    for place, source in files.items():
        path = PurePosixPath(place)
        if not path.is_absolute() or ".." in path.parts or path.name == "" or "\0" in place or not is_text(place):
            raise ValueError(f"files: {place!r} is no absolute path of a file in the guest, such as /data/rates.csv")
        if isinstance(source, bytes):
            found[str(path)] = source
        else:
            try:
                found[str(path)] = read_file(named(Path(source)), MAX_FILES_BYTES)
            except OSError as error:
                raise PackageError(f"{source}: cannot be read: {error.strerror or error}") from None
        if sum(map(len, found.values())) > MAX_FILES_BYTES:
            raise PackageError(f"the files of an image may take {MAX_FILES_BYTES >> 20} MiB together")
    return found


def _recipe(
    base: str,
    found: Mapping[str, Distribution],
    own: Mapping[str, bytes],
    placed: Mapping[str, bytes],
    requirements: Sequence[str],
    local: Sequence[Distribution],
    preload: Sequence[str] | None,
    warm_up: str,
) -> tuple[Recipe, Contents]:
    packages: dict[str, bytes] = {}
    for name, one in sorted(found.items()):
        placed = {**placed_files(name, one.files), **placed}
        for path, data in {**one.files, **added_files(name)}.items():
            if packages.setdefault(path, data) != data:
                raise PackageError(f"{name} {one.version} and another distribution both have a file {path}")
    if both := sorted(packages.keys() & own.keys()):
        raise PackageError(f"a local package and a distribution both have a file {both[0]}")
    packages |= own
    if len(packages) > MAX_IMAGE_FILES or sum(map(len, packages.values())) > MAX_IMAGE_BYTES:
        raise PackageError(
            f"the packages of an image may take {MAX_IMAGE_BYTES >> 20} MiB in {MAX_IMAGE_FILES} files together"
        )
    if preload is None:
        asked = {str(parse_requirement(text).name).lower().replace("_", "-").replace(".", "-") for text in requirements}
        chosen = [one for name, one in sorted(found.items()) if name in asked or one in local]
        preload = [*(module for one in chosen for module in one.modules), *top_level_modules(own)]
    recipe = Recipe(
        base=base,
        requirements=tuple(requirements),
        distributions={name: one.version for name, one in sorted(found.items())},
        preload=tuple(dict.fromkeys(preload)),
        warm_up=warm_up,
        packages=hashes(packages),
        files=hashes(placed),
    )
    return recipe, Contents(packages, placed)
