"""Wheels and local packages: read, never executed; what is compiled, damaged or no package is refused by name."""

from __future__ import annotations

import bz2
import lzma
import os
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.archives import BZIP2, DEFLATED, LZMA, Member, archive, deflated, wheel
from tests.support.packages import make_package, make_wheel
from wasm_sandbox.errors import PackageError
from wasm_sandbox.images import wheels
from wasm_sandbox.images.wheels import Distribution, read_local, read_wheel, top_level_modules


def test_a_wheel_is_read_with_its_metadata(tmp_path: Path) -> None:
    one = read_wheel(make_wheel(tmp_path, "Some-Thing", "1.2", requires=["other>=1"]))
    assert (one.name, one.version, one.requires) == ("some-thing", "1.2", ("other>=1",))
    assert one.modules == ("Some_Thing",)
    assert any(name.endswith(".dist-info/RECORD") for name in one.files)


def test_a_compiled_wheel_is_refused_by_name(tmp_path: Path) -> None:
    path = make_wheel(tmp_path, "fast", "1.0", compiled=True)
    with pytest.raises(PackageError, match=r"fast-1.0-cp313.*is compiled \(it has fast/_native.*\.so\)"):
        read_wheel(path)


def test_compiled_modules_can_be_left_out(tmp_path: Path) -> None:
    one = read_wheel(make_wheel(tmp_path, "fast", "1.0", compiled=True), without_extensions=True)
    assert [name for name in one.files if name.endswith(".so")] == []
    assert "fast.py" in one.files


def test_what_installers_write_and_scripts_do_not_count(tmp_path: Path) -> None:
    extra = {
        "a-1.dist-info/INSTALLER": b"x",
        "a-1.data/scripts/run": b"#!",
        "a-1.data/purelib/more.py": b"",
        "__pycache__/a.pyc": b"",
    }
    plain = read_wheel(make_wheel(tmp_path / "1", "a", "1", files={"more.py": b""}))
    assert read_wheel(make_wheel(tmp_path / "2", "a", "1", files=extra)) == plain


@pytest.mark.parametrize("name", ["../evil.py", "/etc/evil.py", "a/../../evil.py", "a\\evil.py"])
def test_a_wheel_with_a_path_that_leads_out_of_it_is_refused(tmp_path: Path, name: str) -> None:
    path = make_wheel(tmp_path, "a", "1")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"")
    with pytest.raises(PackageError, match="damaged or means harm"):
        read_wheel(path)


def test_a_wheel_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "MAX_PACKAGE_BYTES", 1000)
    path = make_wheel(tmp_path, "a", "1", files={"zeros.bin": bytes(2000)})
    with pytest.raises(PackageError, match="takes more than"):
        read_wheel(path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path / "nothing", "there is no such package"),
        (lambda path: path, "is no package"),
        (lambda path: make_package(path / "not-a-name", {}), "cannot be imported by that name"),
        (lambda path: _written(path / "pyproject.toml").parent, "is a project, .*pip wheel"),
        (lambda path: _written(path / "native.so"), "is no package"),
        (lambda path: _written(path / "broken-1-py3-none-any.whl"), "cannot be read as a wheel"),
        (lambda path: _written(path / "unnamed.whl"), "not named as a wheel is"),
    ],
)
def test_what_is_no_local_package_is_refused(tmp_path: Path, make: object, reason: str) -> None:
    assert callable(make)
    with pytest.raises(PackageError, match=reason):
        read_local(make(tmp_path))


def test_a_local_package_with_a_compiled_module_is_refused(tmp_path: Path) -> None:
    package = make_package(tmp_path / "mine", {})
    _written(package / "_native.so")
    with pytest.raises(PackageError, match=r"_native\.so is compiled"):
        read_local(package)


def test_a_directory_and_a_module_are_read_as_files(tmp_path: Path) -> None:
    package = make_package(tmp_path / "mine", {"sub/__init__.py": "", "data.txt": "x"})
    _written(package / "__pycache__" / "x.pyc")
    found = read_local(package)
    assert not isinstance(found, Distribution)
    assert sorted(found) == ["mine/__init__.py", "mine/data.txt", "mine/sub/__init__.py"]
    assert read_local(_written(tmp_path / "single.py")) == {"single.py": b""}


def test_public_modules_at_the_top_are_found() -> None:
    files = ["a/__init__.py", "a/b.py", "_c/__init__.py", "d.py", "tests/__init__.py", "e/f.py", "x-1.dist-info/RECORD"]
    assert top_level_modules(files) == ("a", "d")


# -- wheels that nobody trusts ---------------------------------------------------------------------------------

MIB = 1 << 20
ZEROS = bytes(16 * MIB)
BOMB = deflated(ZEROS)
LIES = {
    "its true size": len(ZEROS),
    "a small size": 10,
    "no size": 0,
    "the largest size": 0xFFFFFFFE,
}


@pytest.mark.parametrize("size", LIES.values(), ids=LIES)
@pytest.mark.parametrize("method", [DEFLATED, BZIP2, LZMA], ids=["deflate", "bzip2", "lzma"])
def test_a_bomb_takes_no_more_than_the_bound_whatever_it_says_of_its_size(
    tmp_path: Path, method: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "MAX_PACKAGE_BYTES", MIB)
    packed = {DEFLATED: lambda: BOMB, BZIP2: lambda: bz2.compress(ZEROS), LZMA: lambda: _zip_lzma(ZEROS)}[method]()
    bomb = Member("zeros.bin", ZEROS, method, packed=packed, size=size)
    path = tmp_path / "a-1-py3-none-any.whl"
    path.write_bytes(wheel(bomb))
    assert path.stat().st_size < 200_000
    assert peak_of(lambda: _refused(path, "unpacked|damaged|other method than deflate")) < 3 * MIB


def test_many_members_that_are_small_take_no_more_than_the_bound_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "MAX_PACKAGE_BYTES", MIB)
    tenth = deflated(bytes(MIB // 10))
    path = tmp_path / "a-1-py3-none-any.whl"
    path.write_bytes(wheel(*(Member(f"{n}.bin", bytes(MIB // 10), DEFLATED, packed=tenth, size=1) for n in range(20))))
    assert peak_of(lambda: _refused(path, "unpacked|damaged")) < 3 * MIB


def test_a_directory_without_an_end_is_not_read(tmp_path: Path) -> None:
    """A million entries would take a gigabyte, and none of them is more than a name."""
    path = tmp_path / "a-1-py3-none-any.whl"
    entry = archive([Member("x", is_there=False)], entries=1)[:-22]
    directory = entry * 400_000
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(directory), 0, 0)
    path.write_bytes(directory + end)
    assert peak_of(lambda: _refused(path, "its directory is too long")) < 10 * MIB


def test_more_members_than_any_package_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "MAX_PACKAGE_FILES", 10)
    path = tmp_path / "a-1-py3-none-any.whl"
    path.write_bytes(wheel(*(Member(f"m{n}.py") for n in range(9))))
    _refused(path, "it holds more than 10 files")


TEXT = b"VALUE = 2\n"
FIRST = Member("first.py", TEXT, DEFLATED)
DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "damaged"),
    "no archive": (b"PK\3\4" + bytes(100), "damaged"),
    "an archive of nothing": (archive([]), "no metadata"),
    "a member twice": (wheel(FIRST, FIRST), "holds 'first.py' twice"),
    "a module twice, by way of its data": (wheel(FIRST, Member("a-1.data/purelib/first.py")), "two files for"),
    "a file that is a directory, too": (wheel(Member("b"), Member("b/c.py")), "as a file and as a directory"),
    "the same, by way of its data": (wheel(Member("a-1.data/purelib/a.py/c.py")), "as a file and as a directory"),
    "encrypted": (wheel(Member("b.py", TEXT, flags=1)), "which is encrypted"),
    "masked": (wheel(Member("b.py", TEXT, flags=0x2041)), "which is encrypted"),
    "strongly encrypted": (wheel(Member("b.py", TEXT, flags=0x40)), "damaged"),
    "patched": (wheel(Member("b.py", TEXT, flags=0x20)), "damaged"),
    "another method": (wheel(Member("b.py", TEXT, method=93)), "another method"),
    "a link": (wheel(Member("b.py", b"/etc/passwd", mode=0o120777)), "which is a link"),
    "a pipe": (wheel(Member("b.py", mode=0o010644)), "which is a link or a device"),
    "a device": (wheel(Member("b.py", mode=0o060644)), "which is a link or a device"),
    "a socket": (wheel(Member("b.py", mode=0o140644)), "which is a link or a device"),
    "a wrong checksum": (wheel(Member("b.py", TEXT, crc=1)), "damaged"),
    "too short": (wheel(Member("b.py", TEXT, size=100)), "damaged"),
    "too long": (wheel(Member("b.py", TEXT, DEFLATED, size=3)), "damaged"),
    "no deflate": (wheel(Member("b.py", TEXT, DEFLATED, packed=b"\xff" * 20)), "damaged"),
    "cut deflate": (wheel(Member("b.py", ZEROS[:99999], DEFLATED, packed=deflated(ZEROS[:99999])[:-4])), "damaged"),
    "past the end": (wheel(Member("b.py", TEXT, packed_size=10_000, size=10_000)), "overlap|damaged"),
    "a place past the end": (wheel(Member("b.py", TEXT, offset=10_000)), "damaged"),
    "the place of another one": (wheel(FIRST, Member("b.py", TEXT, DEFLATED, offset=39)), "overlap|damaged"),
    "no member of its own": (wheel(FIRST, Member("b.py", TEXT, offset=60, is_there=False)), "overlap|damaged"),
    "another name in the directory": (wheel(Member("b.py", TEXT, directory_name="c.py")), "damaged"),
    "text that is no UTF-8": (wheel(FIRST).replace(b"first.py", b"first\xff\xfey"), "damaged"),
    "fewer entries than it says": (wheel(entries=9)[:-60] + wheel(entries=9)[-22:], "damaged"),
    "a directory somewhere else": (wheel()[:-6] + b"\xff\xff\xff\x7f" + wheel()[-2:], "damaged|cannot be read"),
    "a name that is not there": (wheel(Member("")), "damaged or means harm|damaged"),
    "a name of dots": (wheel(Member("./b.py")), "means harm"),
    "a name of slashes": (wheel(Member("b//c.py")), "means harm"),
    "a name with a NUL": (wheel(Member("b.py\0c")), "means harm"),
    "a name with a control character": (wheel(Member("b\x1b[2J.py")), "means harm"),
    "a drive": (wheel(Member("C:\\b.py")), "means harm"),
    "no name": (wheel(metadata="Metadata-Version: 2.1\nVersion: 1\n"), "no Name"),
    "a wrong name": (wheel(metadata="Name: a b\nVersion: 1\n"), "metadata that are none"),
    "another name": (wheel(metadata="Name: b\nVersion: 1\n"), "has the metadata of b"),
    "another version": (wheel(metadata="Name: a\nVersion: 2\n"), "is a 2, by its metadata"),
    "a wrong version": (wheel(metadata="Name: a\nVersion: one\n"), "metadata that are none"),
    "a version without an end": (wheel(metadata=f"Name: a\nVersion: {'9' * 5000}\n"), "no Version"),
    "metadata of two": (wheel(Member("b-1.dist-info/METADATA", b"Name: b\nVersion: 1\n")), "of one distribution"),
    "requirements without an end": (
        wheel(metadata="Name: a\nVersion: 1\n" + "Requires-Dist: b\n" * 30_000),
        "Ki characters of requirements",
    ),
    "metadata without an end": (wheel(metadata="Name: a\nVersion: 1\nX: " + "x" * (5 * MIB)), "MiB of metadata"),
}


@pytest.mark.parametrize(("data", "reason"), DAMAGED.values(), ids=DAMAGED)
def test_every_damage_is_refused_in_words(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "a-1-py3-none-any.whl"
    path.write_bytes(data)
    _refused(path, reason)


def test_members_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """As in the bombs that need no recursion: a header that lies in the data of another member."""
    path = tmp_path / "a-1-py3-none-any.whl"
    shared = archive([Member("b.py", TEXT)])
    inner = Member("c.py", shared[:-22].partition(b"PK\1\2")[0])
    place = len(archive([Member("a.py", b"VALUE = 1\n")]).partition(b"PK\1\2")[0]) + 30 + len("c.py")
    path.write_bytes(wheel(inner, Member("b.py", TEXT, offset=place, is_there=False)))
    _refused(path, "it holds members that overlap")


def test_what_is_no_file_is_no_wheel(tmp_path: Path) -> None:
    path = tmp_path / "a-1-py3-none-any.whl"
    path.mkdir()
    _refused(path, "a-1-py3-none-any.whl")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "b-1-py3-none-any.whl")
        _refused(tmp_path / "b-1-py3-none-any.whl", "no regular file|is no package")


@pytest.mark.parametrize(
    "name",
    ["a-2-py3-none-any.whl", "b-1-py3-none-any.whl", "a-1-py3.whl", "a-x-py3-none-any.whl", "a-1-py3-none-any.zip"],
)
def test_a_wheel_with_a_name_that_is_not_its_own_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(wheel())
    with pytest.raises(PackageError, match=r"by its metadata|not named as a wheel is"):
        read_wheel(tmp_path / name)


def test_a_wheel_may_have_a_comment_and_something_before_it(tmp_path: Path) -> None:
    path = tmp_path / "a-1-py3-none-any.whl"
    path.write_bytes(wheel(comment=b"x" * 1000, before=b""))
    assert read_wheel(path).version == "1"


def _refused(path: Path, reason: str) -> None:
    with pytest.raises(PackageError, match=reason):
        read_local(path)


def _zip_lzma(data: bytes) -> bytes:
    """As zip has it: a version, the length of the properties, the properties, and a raw stream."""
    stream = lzma.compress(data, lzma.FORMAT_ALONE)
    return struct.pack("<2BH", 9, 4, 5) + stream[:5] + stream[13:]


def peak_of(work: Callable[[], object]) -> int:
    """The most memory that Python had allocated at once in the meantime, in bytes."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _written(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path
