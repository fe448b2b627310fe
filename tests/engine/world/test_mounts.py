"""Directories of the host in a guest: what can be done with them, and what cannot be reached by way of them."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RunBody
from wasm_sandbox import ErrorKind, HostDir

ValueWith = Callable[..., Any]

SAID = """
import os, shutil, pathlib
def said(action):
    try:
        return action()
    except OSError as error:
        return type(error).__name__
"""

needs_links = pytest.mark.skipif(os.name != "posix", reason="makes symbolic links")


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory with a file, another directory, and beside it a secret."""
    inside = tmp_path / "shared"
    (inside / "sub").mkdir(parents=True)
    (inside / "a.txt").write_text("text of a")
    (inside / "sub" / "b.bin").write_bytes(bytes(range(256)) * 20_000)
    (tmp_path / "secret").write_text("SECRET")
    return inside


def state(directory: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None for path in directory.rglob("*")
    }


def test_a_mounted_directory_can_be_read(value_with: ValueWith, shared: Path) -> None:
    body = """
    import hashlib, os, shutil
    with open("/data/sub/b.bin", "rb") as f:
        f.seek(256 * 1000)
        part, rest = f.read(3), f.read()
    whole = open("/data/sub/b.bin", "rb").read()
    shutil.copytree("/data", "/copy")
    walked = sorted((d, sorted(n), sorted(f)) for d, n, f in os.walk("/data"))
    size = os.path.getsize("/data/a.txt")
    return open("/data/a.txt").read(), part, len(rest), hashlib.sha256(whole).digest(), walked, size
    """
    content = (shared / "sub" / "b.bin").read_bytes()
    assert value_with(body, mounts={"/data": HostDir(shared)}) == (
        "text of a",
        b"\0\1\2",
        len(content) - 256_003,
        hashlib.sha256(content).digest(),
        [("/data", ["sub"], ["a.txt"]), ("/data/sub", [], ["b.bin"])],
        9,
    )


def test_files_in_memory_and_mounts_work_in_one_run(run_with: RunBody, shared: Path) -> None:
    body = """
    import os
    open("/out", "w").write(open("/in").read() + open("/deep/er/data/a.txt").read())
    return os.listdir("/"), os.listdir("/deep/er")
    """
    result = run_with(body, {"/in": b"1 "}, {"/deep/er/data": HostDir(shared)})
    assert result.func_return == (["deep", "in", "tmp", "out"], ["data"])
    assert result.files == {"/out": b"1 text of a"}  # nothing of the mount


def test_a_read_only_mount_cannot_be_changed(value_with: ValueWith, shared: Path) -> None:
    before = state(shared)
    body = (
        SAID
        + """
return [said(action) for action in (
    lambda: open("/data/a.txt", "w"), lambda: open("/data/a.txt", "a"), lambda: open("/data/a.txt", "r+"),
    lambda: open("/data/new", "x"), lambda: os.mkdir("/data/new"), lambda: os.unlink("/data/a.txt"),
    lambda: os.rmdir("/data/sub"), lambda: os.rename("/data/a.txt", "/data/b.txt"), lambda: shutil.rmtree("/data/sub"),
    lambda: os.utime("/data/a.txt", (1, 1)), lambda: os.truncate("/data/a.txt", 0),
    lambda: os.open("/data/a.txt", os.O_RDONLY | os.O_TRUNC), lambda: os.open("/data/n", os.O_RDONLY | os.O_CREAT),
    lambda: os.ftruncate(os.open("/data/a.txt", os.O_RDONLY), 0),
    lambda: os.write(os.open("/data/a.txt", os.O_RDONLY), b"x"),
    lambda: os.utime(os.open("/data/a.txt", os.O_RDONLY), (1, 1)),
)]
"""
    )
    found = value_with(body, mounts={"/data": HostDir(shared)})
    assert set(found) == {"OSError"}  # read-only file system
    assert state(shared) == before


def test_a_writable_mount_can_be_changed(value_with: ValueWith, shared: Path) -> None:
    body = """
    import os, pathlib, sqlite3
    with open("/data/a.txt", "a") as f:
        f.write("!")
    with open("/data/sub/b.bin", "r+b") as f:
        f.seek(10); f.write(b"changed"); f.truncate(30)
    os.rename("/data/sub/b.bin", "/data/c.bin")
    os.rmdir("/data/sub")
    pathlib.Path("/data/x/y").mkdir(parents=True)
    with sqlite3.connect("/data/x/t.db") as connection:
        connection.execute("create table t (n)")
    connection.close()
    os.pwrite(os.open("/data/p", os.O_CREAT | os.O_WRONLY), b"at", 3)
    open("/data/gone", "w").close(); os.unlink("/data/gone")
    """
    value_with(body, mounts={"/data": HostDir(shared, read_only=False)})
    found = state(shared)
    assert found.pop("x/t.db", b"").startswith(b"SQLite format 3")  # type: ignore[union-attr]  # a file
    assert found == {
        "a.txt": b"text of a!",
        "c.bin": bytes(range(10)) + b"changed" + bytes(range(17, 30)),
        "p": b"\0\0\0at",
        "x": None,
        "x/y": None,
    }


@needs_links
@pytest.mark.parametrize("read_only", [True, False])
def test_nothing_outside_can_be_reached(value_with: ValueWith, shared: Path, read_only: bool) -> None:
    outside = shared.parent
    (shared / "absolute").symlink_to(outside / "secret")
    (shared / "relative").symlink_to("../secret")
    (shared / "up").symlink_to("..")
    (shared / "root").symlink_to("/")
    (shared / "sub" / "twice").symlink_to("../up/secret")
    (shared / "inner").symlink_to("sub/../a.txt")
    ways = [
        "../secret", "sub/../../secret", "absolute", "relative", "up/secret", "root/etc/passwd", "sub/twice",
        "../../../../../../etc/passwd", "sub/../../../etc/passwd", "./.././secret", "//../secret", "up/shared/a.txt",
        "inner/../secret", f"root{outside}/secret", "up/", "root/", "a.txt/../../secret",
    ]  # fmt: skip
    body = (
        SAID
        + f"""
found = []
for way in {ways!r}:
    path = "/data/" + way
    found += [said(lambda: open(path).read()), said(lambda: open(path, "r+").read())]
    found += [said(lambda: open(path, "w").write("owned"))]
    found += [said(lambda: os.unlink(path)), said(lambda: os.rename("/data/a.txt", path))]
    found += [said(lambda: os.rename(path, "/data/z"))]
    found += [said(lambda: os.mkdir(path + "x")), said(lambda: os.truncate(path, 0))]
    found += [said(lambda: os.utime(path, (1, 1)))]
    found += [said(lambda: [e for e in os.listdir(path) if e not in ("data", "tmp")])]
    found += [said(lambda: os.link(path, "/data/l"))]
here = os.open("/data/sub", os.O_RDONLY | os.O_DIRECTORY)
for way in ["../../secret", "../a.txt", "..", "/etc/passwd", "twice", "../../../etc/passwd"]:
    found += [said(lambda: os.open(way, os.O_RDONLY, dir_fd=here)), said(lambda: os.stat(way, dir_fd=here).st_size)]
    found += [said(lambda: os.unlink(way, dir_fd=here)), said(lambda: os.mkdir(way + "x", dir_fd=here))]
    found += [said(lambda: os.rename("b.bin", way, src_dir_fd=here, dst_dir_fd=here))]
found += [said(lambda: os.symlink("/etc", "/data/etc")), said(lambda: os.symlink("../secret", "/data/s"))]
found += [said(lambda: os.readlink("/data/absolute")), said(lambda: os.readlink("/data/root"))]
return found, [entry.name for entry in os.scandir("/")]
"""
    )
    before = {path: path.read_bytes() for path in [outside / "secret", shared / "a.txt"]}
    found, root = value_with(body, mounts={"/data": HostDir(shared, read_only=read_only)})
    text = repr(found)
    assert "SECRET" not in text
    assert "root:" not in text
    assert str(outside) not in text
    assert sorted(path.name for path in outside.iterdir()) == ["secret", "shared"]
    assert (outside / "secret").read_bytes() == before[outside / "secret"]
    if read_only:
        assert (shared / "a.txt").read_bytes() == before[shared / "a.txt"]
    assert root[0] == "data"


@needs_links
def test_links_that_stay_inside_are_followed(value_with: ValueWith, shared: Path) -> None:
    (shared / "link").symlink_to("sub/../a.txt")
    body = "import os; return open('/d/link').read(), os.path.islink('/d/link'), os.readlink('/d/link')"
    assert value_with(body, mounts={"/d": HostDir(shared)}) == ("text of a", True, "sub/../a.txt")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes a FIFO")
def test_what_could_block_is_not_opened(value_with: ValueWith, shared: Path) -> None:
    os.mkfifo(shared / "fifo")
    (shared / "zero").symlink_to("/dev/zero")
    (shared / "to_fifo").symlink_to("fifo")
    body = (
        SAID
        + "return [said(lambda: open('/d/' + n, m)) for n in ('fifo', 'zero', 'to_fifo') for m in ('r', 'w', 'r+')]"
    )
    mounts = {"/d": HostDir(shared, read_only=False)}
    assert value_with(body, mounts=mounts, timeout_seconds=5) == ["PermissionError"] * 9


def test_moving_to_or_from_a_mount_is_a_copy(value_with: ValueWith, shared: Path) -> None:
    body = """
    import os, shutil
    try:
        os.rename("/data/a.txt", "/a.txt")
    except OSError as error:
        first = error.strerror
    shutil.move("/data/a.txt", "/a.txt")
    shutil.move("/new", "/data/new")
    return first, open("/a.txt").read()
    """
    found = value_with(body, {"/new": b"new"}, {"/data": HostDir(shared, read_only=False)})
    assert found == ("Cross-device link", "text of a")
    assert (shared / "new").read_bytes() == b"new"
    assert not (shared / "a.txt").exists()


def test_two_mounts_keep_their_own_rules(value_with: ValueWith, tmp_path: Path) -> None:
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "in" / "f").write_text("f")
    body = (
        SAID
        + """
shutil.copy("/in/f", "/out/f")
return said(lambda: os.rename("/out/f", "/in/g")), said(lambda: open("/in/h", "w")), os.listdir("/out")
"""
    )
    mounts = {"/in": HostDir(tmp_path / "in"), "/out": HostDir(tmp_path / "out", read_only=False)}
    assert value_with(body, mounts=mounts) == ("OSError", "OSError", ["f"])


GROWING = {
    "writing": "f = open('/d/x', 'wb')\nfor _ in range(50): f.write(bytes(100_000))\nf.flush()",
    "overwriting": "import os\nf = os.open('/d/x', os.O_RDWR | os.O_CREAT)\n"
    "for _ in range(50): os.pwrite(f, bytes(100_000), 0)",
    "appending": "f = open('/d/x', 'ab')\nfor _ in range(50): f.write(bytes(100_000))\nf.flush()",
    "a hole": "f = open('/d/x', 'wb'); f.seek(10**15); f.write(b'x'); f.flush()",
    "a hole by position": "import os; os.pwrite(os.open('/d/x', os.O_CREAT | os.O_WRONLY), b'x', 10**15)",
    "a size": "import os; open('/d/x', 'w'); os.truncate('/d/x', 10**15)",
    "files": "for n in range(100): open(f'/d/{n}', 'w').close()",
    "directories": "import os\nfor n in range(100): os.mkdir(f'/d/{n}')",
    "files again and again": "import os\nwhile True: open('/d/x', 'x').close(); os.unlink('/d/x')",
}


@pytest.mark.parametrize("body", GROWING.values(), ids=GROWING.keys())
def test_what_a_run_makes_on_the_host_is_bounded(run_with: RunBody, tmp_path: Path, body: str) -> None:
    mounts = {"/d": HostDir(tmp_path, read_only=False)}
    result = run_with(body, mounts=mounts, files_bytes=1_000_000, file_count=20)
    assert result.error is not None
    assert result.error.kind is ErrorKind.TOOL_EXCEPTION
    assert "No space left" in result.error.message
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1_000_000
    assert len(list(tmp_path.iterdir())) <= 20


def test_the_deadline_holds_while_a_mount_is_read(run_with: RunBody, shared: Path) -> None:
    body = "while True: open('/data/sub/b.bin', 'rb').read()"
    result = run_with(body, mounts={"/data": HostDir(shared)}, timeout_seconds=0.3)
    assert result.error is not None
    assert result.error.kind is ErrorKind.TIMEOUT
    assert result.usage is not None
    assert result.usage.wall_seconds < 2


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks at descriptors in /proc")
def test_no_descriptor_of_the_host_outlives_a_run(run_with: RunBody, shared: Path) -> None:
    body = "held = [open('/data/a.txt') for _ in range(200)]\nraise ValueError(len(held))"
    for _ in range(3):
        result = run_with(body, mounts={"/data": HostDir(shared)})
        assert result.error is not None
        assert result.error.message == "200"
    end = time.monotonic() + 20
    while left := _opened_below(shared):  # what the guest's thread clears away while it delivers the result
        assert time.monotonic() < end, left
        time.sleep(0.01)


def _opened_below(directory: Path) -> list[str]:
    places = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            places.append(os.readlink(descriptor))
    return [place for place in places if place.startswith(str(directory))]


def test_wasmtimes_own_wasi_is_linked_only_for_a_run_with_mounts(
    run_with: RunBody, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wasmtime

    def refuse(*_: object) -> None:
        raise AssertionError("wasmtime's WASI was asked for")

    monkeypatch.setattr(wasmtime.Store, "set_wasi", refuse)
    monkeypatch.setattr(wasmtime, "WasiConfig", refuse)
    assert run_with("return open('/x').read()", {"/x": b"x"}).func_return == "x"
    with pytest.raises(AssertionError, match="asked for"):
        run_with("return 1", mounts={"/d": HostDir(shared)})
