"""Which image a call runs in: the one it names, and one that has what its tool requires."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from wasm_sandbox.engine import FLAVOUR_IMAGES, find_artifact
from wasm_sandbox.errors import ImageError, PackageError
from wasm_sandbox.images.default import default_source
from wasm_sandbox.images.guest_python import GuestPython, tool_requirements
from wasm_sandbox.images.image import Image, image_of


def choose_image(
    image: object,
    pip_requirements: object,
    *,
    may_build: bool,
    progress: Callable[[str], None] | None = None,
) -> Image | None:
    """The image for a call.

    Args:
        image: the one that was chosen, or its name; ``None`` for the default image.
        pip_requirements: of the tool.
        may_build: whether an image that meets them may be built now, which downloads packages. One that was
            built before for just these is always taken, and so is that of a flavour that has them.
        progress: told about every slow step.

    Raises:
        ImageNotFound: if there is no image of the name.
        PackageError: if the requirements are malformed or not met; the message says how to meet them.
        HostError: as `Image.build`.
    """
    chosen = image_of(image)
    if not pip_requirements:
        return chosen
    python = GuestPython(find_artifact())
    wanted = [Requirement(text) for text in tool_requirements(pip_requirements)]
    there = chosen.distributions if chosen is not None else default_source().distributions
    unmet = [r for r in wanted if python.wants(r) and not _is_met(r, there) and not python.has(r)]
    if not unmet:
        return chosen
    texts = sorted({str(requirement) for requirement in unmet})
    if chosen is not None:
        raise PackageError(f"the image {chosen.reference[:64]} lacks what the tool requires: {', '.join(texts)}")
    base = None
    for name, source in FLAVOUR_IMAGES.items():
        met = [_is_met(requirement, source.distributions) for requirement in unmet]
        if all(met):
            return Image(source, name)
        if any(met):
            base = name
    if may_build:
        try:
            return Image.build(texts, base=base, progress=progress)
        except ImageError as error:
            raise PackageError(str(error)) from error
    from wasm_sandbox.images.building import built_before  # lazy: resolving packages loads much else

    before = built_before(texts, base)
    if before is None:
        on = ["--base", base] if base else []
        command = shlex.join(["wasm-sandbox", "image", "build", suggested_name(texts), *texts, *on])
        raise PackageError(
            f"the tool requires {', '.join(texts)}, which the guest does not have. Make an image with it once: "
            f"{command} (or allow it: build_images=True, run --build-images)"
        )
    return Image(*before)


def suggested_name(requirements: list[str]) -> str:
    """A name for an image, from what is in it."""
    names = [str(canonicalize_name(Requirement(text).name)) for text in requirements]
    return "-".join(names)[:64].rstrip("-")


def _is_met(requirement: Requirement, distributions: Mapping[str, str]) -> bool:
    version = distributions.get(str(canonicalize_name(requirement.name)))
    return version is not None and requirement.specifier.contains(version, prereleases=True)
