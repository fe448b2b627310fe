"""Directories of the host in a guest: what can be done with them, and what cannot be reached by way of them."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import RunBody
from wasm_sandbox import ErrorKind, HostDir
from wasm_sandbox.engine.world import host_files
from wasm_sandbox.engine.world.host_files import IS_SUPPORTED, last_step
from wasm_sandbox.engine.world.mounts import Mount
from wasm_sandbox.engine.world.preview1 import Refusal

ValueWith = Callable[..., Any]

SAID = """
import os, shutil, pathlib
def said(action):
    try:
        return action()
    except OSError as error:
        return type(error).__name__
"""


@pytest.fixture(params=["ours", "wasmtime's"])
def each_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose file system is behind mounts."""
    if request.param == "ours" and not IS_SUPPORTED:
        pytest.skip("this system lacks what ours needs")
    monkeypatch.setattr(host_files, "IS_SUPPORTED", request.param == "ours")


with_both = pytest.mark.usefixtures("each_kind")
needs_links = pytest.mark.skipif(os.name != "posix", reason="makes symbolic links")


@pytest.fixture(scope="module", autouse=True)
def image_is_ready(run_with: RunBody) -> None:
    """The image is loaded: no test's time holds it."""
    run_with("return 1")


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


@with_both
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


@with_both
def test_files_in_memory_and_mounts_work_in_one_run(run_with: RunBody, shared: Path) -> None:
    body = """
    import os
    open("/out", "w").write(open("/in").read() + open("/deep/er/data/a.txt").read())
    return os.listdir("/"), os.listdir("/deep/er")
    """
    result = run_with(body, {"/in": b"1 "}, {"/deep/er/data": HostDir(shared)})
    assert result.func_return == (["deep", "in", "tmp", "out"], ["data"])
    assert result.files == {"/out": b"1 text of a"}  # nothing of the mount


@with_both
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


@with_both
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


@with_both
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


@with_both
@needs_links
def test_links_that_stay_inside_are_followed(value_with: ValueWith, shared: Path) -> None:
    (shared / "link").symlink_to("sub/../a.txt")
    body = "import os; return open('/d/link').read(), os.path.islink('/d/link'), os.readlink('/d/link')"
    assert value_with(body, mounts={"/d": HostDir(shared)}) == ("text of a", True, "sub/../a.txt")


@with_both
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


@with_both
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


@with_both
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


@with_both
@pytest.mark.parametrize("body", GROWING.values(), ids=GROWING.keys())
def test_what_a_run_makes_on_the_host_is_bounded(run_with: RunBody, tmp_path: Path, body: str) -> None:
    mounts = {"/d": HostDir(tmp_path, read_only=False)}
    result = run_with(body, mounts=mounts, files_bytes=1_000_000, file_count=20)
    assert result.error is not None
    assert result.error.kind is ErrorKind.TOOL_EXCEPTION
    assert "No space left" in result.error.message
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1_000_000
    assert len(list(tmp_path.iterdir())) <= 20


@with_both
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


def test_wasmtimes_own_wasi_is_asked_only_where_there_is_no_other_for_mounts(
    run_with: RunBody, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wasmtime

    def refuse(*_: object) -> None:
        raise AssertionError("wasmtime's WASI was asked for")

    monkeypatch.setattr(wasmtime.Store, "set_wasi", refuse)
    monkeypatch.setattr(wasmtime, "WasiConfig", refuse)
    assert run_with("return open('/x').read()", {"/x": b"x"}).func_return == "x"
    if IS_SUPPORTED:
        assert run_with("return open('/d/a.txt').read()", mounts={"/d": HostDir(shared)}).func_return == "text of a"
    monkeypatch.setattr(host_files, "IS_SUPPORTED", False)
    with pytest.raises(AssertionError, match="asked for"):
        run_with("return 1", mounts={"/d": HostDir(shared)})


# -- what could be waited for --------------------------------------------------------------------------------

at_once = pytest.mark.timeout(20, func_only=True)
needs_own_files = pytest.mark.skipif(not IS_SUPPORTED, reason="there is nothing to wait for")


def _bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as unbound:
        here = os.open(path.parent, os.O_RDONLY)
        try:
            unbound.bind(f"/proc/self/fd/{here}/{path.name}")  # a long path is none of a socket's
        except OSError as error:
            pytest.skip(f"a socket cannot be made there: {error}")
        finally:
            os.close(here)


def _link_to_a_fifo(path: Path) -> None:
    os.mkfifo(path.with_name("other"))
    path.symlink_to("other")


SPECIAL: dict[str, Callable[[Path], object]] = {
    "a FIFO": os.mkfifo,
    "a link to a FIFO": _link_to_a_fifo,
    "a socket": _bind,
    "a device": lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3)),
    "a device that gives for ever": lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5)),
    "a directory": lambda path: path.mkdir(),
    "a link that leads out": lambda path: path.symlink_to("../secret"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "nothing": lambda path: None,
}
BLOCKING = tuple(SPECIAL)[:5]
OPENING = {
    "reading": "open('/d/x').read(5)",
    "writing": "open('/d/x', 'w').write('x')",
    "appending": "open('/d/x', 'a').write('x')",
    "both": "open('/d/x', 'r+').read(5)",
    "making": "open('/d/x', 'x').close()",
    "as a directory": "os.open('/d/x', os.O_RDONLY | os.O_DIRECTORY)",
    "cutting": "os.truncate('/d/x', 0)",
    "setting times": "os.utime('/d/x', (1, 1))",
    "setting times of the link": "os.utime('/d/x', (1, 1), follow_symlinks=False)",
    "listing": "os.listdir('/d/x')",
    "looking": "os.stat('/d/x').st_size",
    "renaming": "os.rename('/d/x', '/d/y')",
    "removing": "os.unlink('/d/x')",
}


def made(kind: str, path: Path) -> None:
    try:
        SPECIAL[kind](path)
    except PermissionError:
        pytest.skip("only root makes devices")


@needs_own_files
@at_once
@pytest.mark.parametrize("kind", SPECIAL)
def test_nothing_of_what_is_no_file_is_waited_for(run_with: RunBody, shared: Path, kind: str) -> None:
    for name, action in OPENING.items():
        inside = shared / name.replace(" ", "-")
        inside.mkdir()
        (shared / "secret").write_text("SECRET")
        made(kind, inside / "x")
        body = f"{SAID}\nreturn said(lambda: {action})"
        result = run_with(body, mounts={"/d": HostDir(inside, read_only=False)}, timeout_seconds=5)
        assert result.error is None, (name, result.error)
        assert "SECRET" not in str(result.func_return)
        assert (shared / "secret").read_text() == "SECRET"
        if kind in BLOCKING and name in ("reading", "writing", "appending", "both"):
            assert result.func_return == "PermissionError", name


@needs_own_files
@at_once
@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("action", ["reading", "writing", "appending", "both", "setting times", "as a directory"])
def test_what_is_renamed_between_the_look_and_the_opening_is_not_waited_for(
    run_with: RunBody, shared: Path, monkeypatch: pytest.MonkeyPatch, kind: str, action: str
) -> None:
    """The race, made certain: right after each look the name is another thing's."""
    inside = shared / "sub"
    (shared / "secret").write_text("SECRET")
    (inside / "x").write_text("a file")
    look = Mount.path_filestat

    def look_and_lose(self: Mount, directory: int, lookup: int, path: str) -> tuple[int, bytes]:
        found = look(self, directory, lookup, path)
        if path == "x" and not os.path.lexists(inside / "was"):
            (inside / "x").rename(inside / "was")
            made(kind, inside / "x")
        return found

    monkeypatch.setattr(Mount, "path_filestat", look_and_lose)
    body = f"{SAID}\nreturn said(lambda: {OPENING[action]})"
    result = run_with(body, mounts={"/d": HostDir(inside, read_only=False)}, timeout_seconds=5)
    assert result.error is None, result.error
    assert "SECRET" not in str(result.func_return)
    assert (shared / "secret").read_text() == "SECRET"
    if kind in BLOCKING and action != "setting times":
        assert result.func_return == ("NotADirectoryError" if action == "as a directory" else "PermissionError")


@needs_own_files
@at_once
def test_a_name_that_is_now_a_file_and_now_a_fifo_is_opened_without_waiting(run_with: RunBody, shared: Path) -> None:
    """The race itself, many times."""
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for made_as in (os.mkfifo, Path.touch):
                made_as(shared / "next")
                os.rename(shared / "next", shared / "x")

    (shared / "x").touch()
    swapping = threading.Thread(target=swap)
    swapping.start()
    body = """
    import os
    opened = refused = 0
    for n in range(400):
        for mode in ("r", "r+"):
            try:
                open("/d/x", mode).close()
                opened += 1
            except PermissionError:
                refused += 1
        try:
            os.utime("/d/x", (1, 1))
        except OSError:
            pass
    return opened + refused
    """
    try:
        result = run_with(body, mounts={"/d": HostDir(shared, read_only=False)}, timeout_seconds=30)
    finally:
        stop.set()
        swapping.join()
    assert result.error is None, result.error
    assert result.func_return == 800


NAMES = st.sampled_from(["a", "b", "link", "d", "..", ".", "", "x"])
TARGETS = st.lists(NAMES, min_size=1, max_size=4).map("/".join).map(lambda path: path.lstrip("/") or ".")


@needs_own_files
@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(["d/a", "d/link", "b", "d/b"]), TARGETS), TARGETS, st.booleans())
def test_a_path_ends_where_the_system_says_or_is_refused(links: dict[str, str], path: str, follow: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        outside = Path(directory).resolve()
        top = outside / "top"
        (top / "d" / "a").mkdir(parents=True)
        (top / "x").write_text("x")
        (outside / "x").write_text("outside")
        for name, target in links.items():
            with suppress(OSError):
                os.symlink(target, top / name)
        base = os.open(top, os.O_RDONLY)
        try:
            with last_step(base, path, follow) as (here, name):
                found = os.stat(name, dir_fd=here, follow_symlinks=False)
                assert not (follow and stat.S_ISLNK(found.st_mode))
                inside = [top, *top.rglob("*")]
                assert any(os.path.samestat(os.stat(here), os.stat(each)) for each in inside if each.is_dir())
        except (Refusal, OSError):
            return  # `test_paths_that_stay_inside_are_followed_and_others_refused`
        finally:
            os.close(base)
        if follow:
            assert os.path.samestat(found, os.stat(os.path.join(top, path)))


@needs_own_files
def test_paths_that_stay_inside_are_followed_and_others_refused(shared: Path) -> None:
    (shared / "in").symlink_to("sub/../a.txt")
    (shared / "out").symlink_to("sub/../../secret")
    (shared / "absolute").symlink_to(shared / "a.txt")
    base = os.open(shared, os.O_RDONLY)
    try:
        for path in ("a.txt", "in", "sub/../in", "./sub/.././a.txt"):
            with last_step(base, path, follow=True) as (here, name):
                assert os.path.samestat(os.stat(name, dir_fd=here), os.stat(shared / "a.txt"))
        with last_step(base, "in", follow=False) as (here, name):
            assert os.readlink(name, dir_fd=here) == "sub/../a.txt"
        for path in ("out", "absolute", "../secret", "sub/../../secret", ".."):
            with pytest.raises(Refusal), last_step(base, path, follow=True):
                pass
    finally:
        os.close(base)


FILE_ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.binary(min_size=1, max_size=20)),
        st.tuples(st.just("read"), st.integers(1, 30)),
        st.tuples(st.just("seek"), st.integers(-30, 60), st.integers(0, 2)),
        st.tuples(st.just("truncate"), st.integers(0, 60)),
        st.tuples(st.just("pwrite"), st.binary(min_size=1, max_size=20), st.integers(0, 60)),
        st.tuples(st.just("pread"), st.integers(1, 30), st.integers(0, 60)),
        st.tuples(st.just("size")),
    ),
    max_size=25,
)
DO = """
import os
def do(path, flags, actions):
    seen = []
    f = os.open(path, flags, 0o666)
    for name, *rest in actions:
        try:
            if name == "write": seen.append(os.write(f, rest[0]))
            elif name == "read": seen.append(os.read(f, *rest))
            elif name == "seek": seen.append(os.lseek(f, *rest))
            elif name == "truncate": seen.append(os.ftruncate(f, *rest))
            elif name == "pwrite": seen.append(os.pwrite(f, *rest))
            elif name == "pread": seen.append(os.pread(f, *rest))
            else: seen.append(os.fstat(f).st_size)
        except OSError as error:
            seen.append(type(error).__name__)
    os.close(f)
    with open(path, "rb") as file:
        return seen, file.read()
"""


@needs_own_files
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FILE_ACTIONS, st.sampled_from(["O_RDONLY", "O_WRONLY", "O_RDWR"]), st.sampled_from(["", "O_TRUNC", "O_APPEND"]))
def test_an_open_file_does_what_it_does_on_the_host(
    value_with: ValueWith, actions: list[Any], access: str, more: str
) -> None:
    if more == "O_APPEND":  # what a positioned write to the end means is each system's own
        actions = [action for action in actions if action[0] != "pwrite"]
    if more == "O_TRUNC" and access == "O_RDONLY":
        more = ""
    flags = " | ".join(f"os.{name}" for name in (access, "O_CREAT", more) if name)
    with tempfile.TemporaryDirectory() as directory:
        for side in ("here", "there"):
            (Path(directory) / side).mkdir()
            (Path(directory) / side / "x").write_bytes(b"0123456789")
        scope: dict[str, Any] = {}
        exec(DO, scope)
        expected = scope["do"](f"{directory}/here/x", eval(flags), actions)
        body = f"{DO}\nreturn do('/d/x', {flags}, {actions!r})"
        found = value_with(body, mounts={"/d": HostDir(f"{directory}/there", read_only=False)})
        assert found == expected
        assert (Path(directory) / "there" / "x").read_bytes() == expected[1]


@needs_own_files
def test_a_file_is_the_same_by_its_name_and_by_its_descriptor(value_with: ValueWith, shared: Path) -> None:
    body = """
    import os
    here = os.open("/d/sub", os.O_RDONLY | os.O_DIRECTORY)
    f = os.open("b.bin", os.O_RDWR, dir_fd=here)
    os.utime("b.bin", ns=(5, 7), dir_fd=here)
    before = os.fstat(f)
    os.utime(f, ns=(1_000, 2_000))
    after, named = os.fstat(f), os.stat("/d/sub/b.bin")
    return (
        os.path.samestat(before, named), before.st_mtime_ns, after.st_mtime_ns, named.st_mtime_ns, named.st_size,
        after.st_size, os.path.samefile("/d/sub/b.bin", "/d/sub/../sub/b.bin"),
    )
    """
    size = (shared / "sub" / "b.bin").stat().st_size
    found = value_with(body, mounts={"/d": HostDir(shared, read_only=False)})
    assert found == (True, 7, 2_000, 2_000, size, size, True)


@needs_own_files
def test_a_large_listing_is_read_in_parts_and_from_any_place(value_with: ValueWith, tmp_path: Path) -> None:
    names = sorted(f"{n:0150}" for n in range(1000))
    for name in names:
        (tmp_path / name).touch()
    body = """
    import os
    first = os.listdir("/d")
    entries = os.scandir("/d")
    head = [next(entries).name for _ in range(3)]
    again = [entry.name for entry in os.scandir("/d")]
    rest = [entry.name for entry in entries]
    kinds = {entry.is_file() for entry in os.scandir("/d")}
    for name in os.listdir("/d"):
        os.unlink("/d/" + name)
    return first == again == head + rest, sorted(first), kinds, os.listdir("/d")
    """
    found = value_with(body, mounts={"/d": HostDir(tmp_path, read_only=False)}, timeout_seconds=60)
    assert found == (True, names, {True}, [])


@needs_own_files
def test_a_listing_goes_on_from_every_cookie_in_parts_of_every_size(tmp_path: Path) -> None:
    for n in range(20):
        (tmp_path / f"{n}").touch()
    files = host_files.HostFiles([str(tmp_path)], 65536)
    try:

        def part(cookie: int, size: int) -> list[tuple[int, bytes]]:
            """The whole entries of an answer: next cookie and name of each."""
            assert files.call("fd_readdir", 3, 1024, size, cookie, 0) == 0
            data, found = files.read(1024, struct.unpack("<I", files.read(0, 4))[0]), []
            while len(data) >= 24:
                following, _, length, _ = struct.unpack_from("<QQIB", data)
                if len(data) < 24 + length:
                    break
                found.append((following, data[24 : 24 + length]))
                data = data[24 + length :]
            return found

        whole = part(0, 10_000)
        assert len(whole) == 22
        assert [following for following, _ in whole] == list(range(1, 23))
        for cookie in [*range(23), 5, 22, 0, 7, 1]:
            assert part(cookie, 10_000) == whole[cookie:]
        for size in (24 + 2, 60, 100, 333):
            found: list[tuple[int, bytes]] = []
            while new := part(found[-1][0] if found else 0, size):
                found += new
            assert found == whole
        assert part(1 << 60, 1000) == []
    finally:
        files.close()


OPEN_ALL = """
def opened(base):
    import os, shutil
    seen = {}
    for path in ("a", "a/", "a/.", "d", "d/", "d/.", "no", "no/", "no/.", "no/x"):
        for access in ("O_RDONLY", "O_WRONLY", "O_RDWR"):
            for more in ("", "O_CREAT", "O_CREAT O_EXCL", "O_CREAT O_TRUNC", "O_TRUNC"):
                if access == "O_RDONLY" and "O_TRUNC" in more or path[-1] in "/." and "O_CREAT" in more:
                    continue  # each system's own
                os.makedirs(base + "/d", exist_ok=True)
                with open(base + "/a", "w"):
                    pass
                flags = 0
                for name in [access, *more.split()]:
                    flags |= getattr(os, name)
                try:
                    os.close(os.open(base + "/" + path, flags, 0o666))
                    seen[path, access, more] = "opened"
                except OSError as error:
                    seen[path, access, more] = type(error).__name__
                shutil.rmtree(base + "/d")
                for name in os.listdir(base):
                    os.unlink(base + "/" + name)
    return seen
"""


@needs_own_files
def test_what_is_opened_in_memory_and_in_a_mount_is_what_the_host_opens(value_with: ValueWith, tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    scope: dict[str, Any] = {}
    exec(OPEN_ALL, scope)
    expected = scope["opened"](str(tmp_path / "here"))
    body = f"{OPEN_ALL}\nimport os\nos.mkdir('/m')\nreturn opened('/m'), opened('/d')"
    in_memory, in_mount = value_with(body, mounts={"/d": HostDir(tmp_path / "there", read_only=False)})
    assert in_memory == expected
    assert in_mount == expected


@with_both
def test_what_would_create_a_file_by_a_directorys_name_says_so(value_with: ValueWith, shared: Path) -> None:
    body = """
    import shutil
    def said(path):
        try:
            shutil.copyfile("/d/a.txt", path)
        except OSError as error:
            return type(error).__name__
    return said("/d/no/"), said("/d/sub/"), said("/d/a.txt/")
    """
    found = value_with(body, mounts={"/d": HostDir(shared, read_only=False)})
    assert found == ("FileNotFoundError", "IsADirectoryError", "FileNotFoundError")


@with_both
def test_whether_a_file_blocks_is_told_as_it_was_set(value_with: ValueWith, shared: Path) -> None:
    body = """
    import os
    seen = []
    for path in ("/d/a.txt", "/m.txt"):
        f = os.open(path, os.O_RDWR | os.O_APPEND)
        for blocking in (True, False, True, False):
            os.set_blocking(f, blocking)
            seen.append(os.get_blocking(f))
        os.write(f, b"!")
        os.lseek(f, 0, 0)
        seen.append(os.read(f, 100))
        os.close(f)
        f = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        seen.append(os.get_blocking(f))
        os.close(f)
    return seen
    """
    found = value_with(body, files={"/m.txt": b"text of a"}, mounts={"/d": HostDir(shared, read_only=False)})
    assert found == [True, False, True, False, b"text of a!", False] * 2
