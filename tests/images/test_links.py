"""Links of a package, of its data and of an image's files: none of them brings in what lies outside."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.packages import make_package, make_wheel
from wasm_sandbox import Image
from wasm_sandbox.errors import PackageError
from wasm_sandbox.images import building, exporting, reading, wheels
from wasm_sandbox.images.exported import CODE_NAME, FILES_NAME, MANIFEST_NAME, this_target
from wasm_sandbox.images.exporting import export_image
from wasm_sandbox.images.wheels import Distribution, read_local

pytestmark = pytest.mark.long

SECRET = b"what nobody is to see"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory with a secret, beside the one with the package."""
    directory = tmp_path / "outside"
    make_package(directory / "private", {"secret.txt": SECRET.decode()})
    (directory / "secret.txt").write_bytes(SECRET)
    return directory


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return make_package(tmp_path / "project" / "mine", {"code.py": "X = 1\n", "data/words.txt": "one"})


def link(place: Path, target: Path | str, *, is_directory: bool = False) -> Path:
    """A link; skips where this user may make none."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        place.symlink_to(target, target_is_directory=is_directory)
    except (OSError, NotImplementedError) as error:
        pytest.skip(f"no link can be made here: {error}")
    return place


Make = Callable[[Path, Path], object]

LINKS_OUT: dict[str, Make] = {
    "a file": lambda package, outside: link(package / "data" / "x.txt", outside / "secret.txt"),
    "a file, relative": lambda package, outside: link(package / "x.txt", "../../outside/secret.txt"),
    "a module": lambda package, outside: link(package / "x.py", outside / "secret.txt"),
    "the package's own module": lambda package, outside: link(
        (package / "__init__.py").rename(package / "old.py").with_name("__init__.py"), outside / "secret.txt"
    ),
    "a directory": lambda package, outside: link(package / "x", outside / "private", is_directory=True),
    "the root": lambda package, outside: link(package / "x", "/", is_directory=True),
    "the directory above": lambda package, outside: link(package / "x", "../..", is_directory=True),
    "a chain of links": lambda package, outside: (
        link(package / "x.txt", "y.txt"),
        link(package / "y.txt", outside / "secret.txt"),
    ),
    "through a link to a directory": lambda package, outside: (
        link(package / "x", outside, is_directory=True),
        link(package / "y.txt", "x/secret.txt"),
    ),
    "a neighbour of a similar name": lambda package, outside: (
        make_package(package.parent / "mine2", {"x.txt": SECRET.decode()}),
        link(package / "x.txt", "../mine2/x.txt"),
    ),
}


@pytest.mark.parametrize("make", LINKS_OUT.values(), ids=LINKS_OUT)
def test_a_package_with_a_link_that_leads_out_of_it_is_refused(package: Path, outside: Path, make: Make) -> None:
    make(package, outside)
    with pytest.raises(PackageError, match=r"is a link to .*, outside of .*: put a copy in its place"):
        read_local(package)


def test_links_that_stay_inside_are_read(package: Path) -> None:
    link(package / "same.txt", "data/words.txt")
    link(package / "data" / "again.txt", "../same.txt")
    link(package / "gone.txt", "nowhere.txt")
    found = read_local(package)
    assert not isinstance(found, Distribution)
    assert (found["mine/same.txt"], found["mine/data/again.txt"]) == (b"one", b"one")
    assert "mine/gone.txt" not in found


def test_a_link_to_a_directory_inside_and_one_to_itself_are_refused(package: Path) -> None:
    place = link(package / "x", "data", is_directory=True)
    with pytest.raises(PackageError, match="is a link to a directory"):
        read_local(package)
    place.unlink()
    link(package / "round", "round")
    found = None
    with suppress(PackageError):  # before CPython 3.13
        found = read_local(package)
    assert isinstance(found, dict | None)
    assert "mine/round" not in (found or {})


@pytest.mark.parametrize("kind", ["package", "module", "wheel"])
def test_what_is_named_may_not_be_a_link_that_leads_out_of_its_directory(
    tmp_path: Path, outside: Path, kind: str
) -> None:
    made = {
        "package": outside / "private",
        "module": outside / "module.py",
        "wheel": make_wheel(outside, "made", "1.0"),
    }[kind]
    (outside / "module.py").write_bytes(SECRET)
    place = link(tmp_path / "project" / made.name, made, is_directory=kind == "package")
    with pytest.raises(PackageError, match=r"is a link to .*, outside of its own directory: name that one itself"):
        read_local(place)
    assert read_local(made)
    if kind == "module":  # one beside it is no way out
        assert read_local(link(outside / "other.py", "module.py")) == {"other.py": SECRET}


def test_a_directory_on_the_way_may_be_a_link(tmp_path: Path, package: Path) -> None:
    link(tmp_path / "shortcut", package.parent, is_directory=True)
    assert read_local(tmp_path / "shortcut" / "mine") == read_local(package)


def test_files_of_an_image_may_not_be_links_that_lead_out(
    tmp_path: Path, outside: Path, images_directory: Path
) -> None:
    place = link(tmp_path / "project" / "rates.csv", outside / "secret.txt")
    with pytest.raises(PackageError, match=r"rates\.csv: is a link to .*secret\.txt, outside of its own directory"):
        Image.build(files={"/rates.csv": place})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path, package: Path, images_directory: Path) -> None:
    os.mkfifo(package / "data" / "pipe")
    found = read_local(package)
    assert isinstance(found, dict)
    assert "mine/data/pipe" not in found
    with pytest.raises(PackageError, match="no regular file"):
        Image.build(files={"/x": package / "data" / "pipe"})
    with pytest.raises(OSError, match="no regular file"):
        reading.read_file(package / "data" / "pipe", 100)


@pytest.mark.skipif(os.open not in os.supports_dir_fd, reason="this system always follows links on the way")
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_becomes_a_link_while_the_package_is_read_is_not_followed(
    package: Path, outside: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each of the openings in turn a link is put in its place: what was looked at is no longer there."""
    (outside / "words.txt").write_bytes(SECRET)
    place = package / "data" / "words.txt" if kind == "file" else package / "data"
    target = outside / "words.txt" if kind == "file" else outside
    real, open_it = package.parent / "real", os.open
    left = 0

    def open_later(*args: Any, **more: Any) -> int:
        nonlocal left
        left -= 1
        if left == 0:
            place.rename(real)
            place.symlink_to(target)
        return open_it(*args, **more)

    monkeypatch.setattr(os, "open", open_later)
    monkeypatch.setattr(os, "supports_dir_fd", {*os.supports_dir_fd, open_later})
    refused = 0
    for number in range(1, 12):
        left = number
        try:
            found = read_local(package)
        except PackageError:
            refused += 1
        else:
            assert isinstance(found, dict)
            assert SECRET not in found.values()
        if left <= 0:
            place.unlink()
            real.rename(place)
    assert refused > 1


def test_a_package_is_bounded(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (package / "zeros.bin").write_bytes(bytes(2 << 20))
    monkeypatch.setattr(wheels, "MAX_PACKAGE_BYTES", 1 << 20)
    with pytest.raises(PackageError, match="takes more than 1 MiB"):
        read_local(package)
    monkeypatch.undo()
    monkeypatch.setattr(wheels, "MAX_PACKAGE_FILES", 2)
    with pytest.raises(PackageError, match="holds more than 2 files"):
        read_local(package)


@pytest.mark.parametrize("bound", ["MAX_IMAGE_BYTES", "MAX_IMAGE_FILES"])
def test_all_packages_of_an_image_are_bounded_together(
    package: Path, images_directory: Path, bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, bound, 1)
    with pytest.raises(PackageError, match="the packages of an image may take"):
        Image.build(packages=[package])


@pytest.mark.skipif(os.name != "posix", reason="names of files are text on this system")
def test_a_name_that_is_no_text_is_refused(package: Path, images_directory: Path) -> None:
    try:
        (package / os.fsdecode(b"\xff.txt")).write_bytes(b"")
    except OSError as error:
        pytest.skip(f"no such name can be had here: {error}")
    with pytest.raises(PackageError, match="whose name is no UTF-8"):
        read_local(package)
    with pytest.raises(ValueError, match="no absolute path"):
        Image.build(files={"/\udcff": b""})


def test_an_export_replaces_links_and_leaves_alone_what_they_lead_to(
    tmp_path: Path, images_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "compile_for", lambda *args: b"code")  # a minute of computing
    directory = tmp_path / "export"
    steps: list[str] = []
    image = Image.build(files={"/data.txt": b"x"})
    export_image(image, this_target(), directory, steps.append)
    contents = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert sorted(contents) == sorted([MANIFEST_NAME, CODE_NAME, FILES_NAME])
    for name in (CODE_NAME, FILES_NAME):
        (tmp_path / name).write_bytes(SECRET)
        (directory / name).unlink()
        link(directory / name, tmp_path / name)
    manifest = (directory / MANIFEST_NAME).rename(tmp_path / MANIFEST_NAME)
    link(directory / MANIFEST_NAME, manifest)
    export_image(image, this_target(), directory, steps.append)
    for name, data in contents.items():
        assert not (directory / name).is_symlink()
        assert (directory / name).read_bytes() == data
    assert (tmp_path / CODE_NAME).read_bytes() == (tmp_path / FILES_NAME).read_bytes() == SECRET
    assert manifest.read_bytes() == contents[MANIFEST_NAME]
