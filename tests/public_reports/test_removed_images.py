"""`image remove` leaves code in the cache, and `image show` overlooks it.

The kind: all that is compiled of an image, for every way to run it and on every base.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from wasm_sandbox.directories import CACHE_VARIABLE
from wasm_sandbox.engine.compiled.cache import ImageCache
from wasm_sandbox.images import describe, kept_image, remove_image

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("images_directory"), pytest.mark.timeout(300)]


def kept() -> set[Path]:
    return {path for path in ImageCache().directory.iterdir() if path.suffix == ".cwasm"}


RUN = """
for fuel in (10**9, None):
    result = run_code("1 + 1", image=image, limits={"fuel": fuel})
    assert result.value == 2, result
"""
BUILD = "import os\nimage = Image.build([], files={'/x': os.urandom(9)}, name='passing', base=image)"


def elsewhere(image: str | None, code: str) -> None:
    """Run code in another process: one that has loaded an image holds what was compiled of it."""
    whole = f"from wasm_sandbox import Image, run_code\nimage = {image!r}\n{code}"
    subprocess.run([sys.executable, "-c", whole], check=True, timeout=280)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own, since others compile meanwhile: with what is compiled, as far as it can be linked."""
    shared, directory = ImageCache().directory, tmp_path / "cache"
    directory.mkdir(mode=0o700)
    for path in shared.iterdir():
        if path.suffix in (".cwasm", ".json"):
            with suppress(OSError):
                os.link(path, directory / path.name)
    monkeypatch.setenv(CACHE_VARIABLE, str(directory))


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("base", [None, "science"])
def test_what_was_compiled_of_an_image_is_shown_and_goes_with_it(base: str | None) -> None:
    elsewhere(base, RUN)
    before = kept()
    elsewhere(base, BUILD + RUN)
    made = kept() - before
    assert len(made) == 2
    assert describe(kept_image("passing"))["compiled_bytes"] == sum(path.stat().st_size for path in made)
    assert remove_image("passing") == []
    assert not kept() & made  # others may have gone for want of room
