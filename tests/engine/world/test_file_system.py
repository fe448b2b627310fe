"""The file system in memory by itself: it is compared with a real one, and its bounds are tried."""

from __future__ import annotations

import os
import shutil
import tempfile
import textwrap
import tracemalloc
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wasm_sandbox.engine.world.file_system import Directory, File, FileSystem, MountPoint
from wasm_sandbox.engine.world.preview1 import (
    EEXIST,
    EILSEQ,
    EINVAL,
    ENAMETOOLONG,
    ENOENT,
    ENOSPC,
    ENOTCAPABLE,
    ENOTDIR,
    ENOTEMPTY,
    EPERM,
    EXDEV,
    Refusal,
)
from wasm_sandbox.files import MAX_PATH_BYTES


def file_system(files: dict[str, bytes] | None = None, *mounts: str, size: int = 1000, count: int = 100) -> FileSystem:
    return FileSystem(files or {}, mounts, size, count, now=1)


def create(system: FileSystem, path: str, content: bytes = b"") -> File:
    file = system.create_file(system.resolve(system.root, path.encode()), 2)
    for _ in system.resize(file, len(content)):
        pass
    file.writable()[:] = content
    return file


def make(system: FileSystem, path: str) -> Directory:
    return system.make_directory(system.resolve(system.root, path.encode()), 2)


def rename(system: FileSystem, old: str, new: str) -> None:
    system.rename(system.resolve(system.root, old.encode()), system.resolve(system.root, new.encode()), 3)


def remove(system: FileSystem, path: str) -> None:
    system.remove_file(system.resolve(system.root, path.encode()), 3)


def errno_of(action: Callable[[], object]) -> int:
    with pytest.raises(Refusal) as refusal:
        action()
    return refusal.value.errno


def tree(system: FileSystem) -> dict[str, bytes | None]:
    """Every path: the content of a file, None for a directory."""
    found: dict[str, bytes | None] = {}
    waiting = [("", system.root)]
    for path, directory in waiting:
        for name, node in directory.entries.items():
            inner = f"{path}/{name}".lstrip("/")
            if isinstance(node, Directory):
                waiting.append((inner, node))
                found[inner] = None
            elif isinstance(node, File):
                found[inner] = bytes(node.data)
    return found


PATHS = (
    st.lists(st.sampled_from(["a", "b", "c", ".", "..", ""]), min_size=1, max_size=4)
    .map("/".join)
    .filter(lambda path: path and not path.startswith("/"))
)
ACTIONS = st.lists(
    st.tuples(st.sampled_from(["write", "mkdir", "unlink", "rmdir", "rename"]), PATHS, PATHS), max_size=30
)


def on_disk(root: str, action: str, path: str, other: str) -> bool:
    """Do it below a real directory whose ``..`` stays inside; whether it could be done."""
    here, there = (os.path.join(root, p) for p in (path, other))
    try:
        if action == "write":
            with open(here, "wb") as file:  # not by pathlib, which drops a slash at the end
                file.write(path.encode())
        elif action == "rename":
            os.rename(here, there)
        else:
            {"mkdir": os.mkdir, "unlink": os.unlink, "rmdir": os.rmdir}[action](here)
    except OSError:
        return False
    return True


def in_memory(system: FileSystem, action: str, path: str, other: str) -> bool:
    try:
        place = system.resolve(system.root, path.encode())
        if action == "write":
            if place.node is None:
                create(system, path, path.encode())
            elif isinstance(place.node, File):
                list(system.resize(place.node, 0))
                list(system.resize(place.node, len(path)))
                place.node.writable()[:] = path.encode()
            else:
                return False
        elif action == "rename":
            rename(system, path, other)
        elif action == "mkdir":
            make(system, path)
        elif action == "unlink":
            system.remove_file(place, 3)
        else:
            system.remove_directory(place, 3)
    except Refusal:
        return False
    return True


def leaves_the_root(path: str) -> bool:
    depth = 0
    for name in path.split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(name, 1)
        if depth < 0:
            return True
    return False


@pytest.mark.skipif(os.name != "posix", reason="compared with a POSIX file system")
@settings(max_examples=150)
@given(ACTIONS)
def test_it_does_what_a_real_file_system_does(actions: list[tuple[str, str, str]]) -> None:
    system = file_system(size=100_000)
    top = tempfile.mkdtemp()
    try:
        os.mkdir(os.path.join(top, "tmp"))
        for action, path, other in actions:
            if leaves_the_root(path) or leaves_the_root(other):
                continue  # there it is the host's
            assert in_memory(system, action, path, other) == on_disk(top, action, path, other), (
                action,
                path,
                other,
            )
        real = {str(p.relative_to(top)): p.read_bytes() if p.is_file() else None for p in Path(top).rglob("*")}
        assert tree(system) == real
    finally:
        shutil.rmtree(top)


def test_what_was_given_is_shared_and_is_no_change() -> None:
    content = b"x" * 100
    system = file_system({"/in/x": content, "/in/y": b"y"})
    assert system.resolve(system.root, b"in/x").node.data is content  # type: ignore[union-attr]  # a file
    assert system.changed_files() == {}
    file = system.resolve(system.root, b"in/x").node
    assert isinstance(file, File)
    file.writable()[0:1] = b"x"  # written, with the same
    assert system.changed_files() == {}
    file.writable()[0:1] = b"z"
    rename(system, "in/y", "y")
    assert system.changed_files() == {"/in/x": b"z" + content[1:], "/y": b"y"}


def test_all_bytes_together_are_bounded() -> None:
    system = file_system(size=10)
    file = create(system, "a", b"123456")
    assert errno_of(lambda: create(system, "b", b"12345")) == ENOSPC
    assert errno_of(lambda: list(system.resize(file, 1 << 60))) == ENOSPC
    remove(system, "a")
    assert bytes(create(system, "c", b"1234567890").data) == b"1234567890"


def test_a_removed_file_counts_until_nobody_has_it_open() -> None:
    system = file_system(size=10)
    file = create(system, "a", b"1234567890")
    system.opened(file)
    remove(system, "a")
    assert errno_of(lambda: create(system, "b", b"1")) == ENOSPC
    system.closed(file)
    create(system, "c", b"1234567890")


def test_how_many_there_are_is_bounded() -> None:
    system = file_system(count=3)  # one is /tmp
    create(system, "a")
    make(system, "b")
    assert errno_of(lambda: create(system, "c")) == ENOSPC
    assert errno_of(lambda: make(system, "c")) == ENOSPC
    remove(system, "a")
    create(system, "c")


def test_names_and_paths_are_bounded_also_by_way_of_a_rename() -> None:
    system = file_system()
    assert errno_of(lambda: create(system, "x" * 256)) == ENAMETOOLONG
    assert errno_of(lambda: system.resolve(system.root, b"x/" * 3000)) == ENAMETOOLONG
    deep = ""
    for _ in range(5):
        deep += "d" * 200 + "/"
        make(system, deep.rstrip("/"))
    assert errno_of(lambda: create(system, deep + "f" * 20)) == ENAMETOOLONG
    make(system, "s")
    make(system, "s/" + "t" * 30)
    assert errno_of(lambda: rename(system, "s", deep + "s")) == ENAMETOOLONG
    assert max(len(path) for path in tree(system)) < MAX_PATH_BYTES


def test_a_directory_does_not_move_into_itself() -> None:
    system = file_system()
    make(system, "a")
    make(system, "a/b")
    assert errno_of(lambda: rename(system, "a", "a/b/c")) == EINVAL
    assert errno_of(lambda: rename(system, "a", "a/b")) == EINVAL
    assert errno_of(lambda: rename(system, ".", "x")) == EINVAL


def test_a_removed_directory_takes_nothing_more() -> None:
    system = file_system()
    gone = make(system, "a")
    system.remove_directory(system.resolve(system.root, b"a"), 3)
    assert errno_of(lambda: system.create_file(system.resolve(gone, b"f"), 3)) == ENOENT


@pytest.mark.parametrize(
    ("path", "errno"),
    [
        (b"", ENOENT),
        (b"/absolute", ENOTCAPABLE),
        (b"a\0b", EINVAL),
        (b"\xff", EILSEQ),
        (b"\xed\xa0\x80", EILSEQ),  # half a surrogate pair
        (b"none/x", ENOENT),
        (b"file/x", ENOTDIR),
        (b"file/", ENOTDIR),
        (b"file/..", ENOTDIR),
    ],
)
def test_paths_that_lead_nowhere(path: bytes, errno: int) -> None:
    system = file_system({"/file": b""})
    assert errno_of(lambda: system.resolve(system.root, path)) == errno


def test_nothing_is_above_the_root() -> None:
    system = file_system({"/file": b""})
    assert system.resolve(system.root, b"../../tmp/../../file").node is not None


def test_a_path_below_a_mount_point_is_handed_on() -> None:
    system = file_system({"/f": b""}, "/a/m")

    def below(path: bytes) -> tuple[bool, str]:
        place = system.resolve(system.root, path)
        return isinstance(place.node, MountPoint), place.below

    assert below(b"a/m") == (True, "")
    assert below(b"a/m/x/./y") == (True, "x/y")
    assert below(b"a/m/x/../y/") == (True, "x/../y")
    assert below(b"a/m/x/../..") == (False, "")
    assert system.resolve(system.root, b"a/m/../../f").node is not None
    assert system.resolve(system.root, b"a/m/x/../../../f").node is not None
    assert errno_of(lambda: remove(system, "a/m")) == EPERM
    assert errno_of(lambda: system.remove_directory(system.resolve(system.root, b"a/m"), 3)) == EPERM
    assert errno_of(lambda: rename(system, "a/m", "x")) == EXDEV
    assert errno_of(lambda: rename(system, "f", "a/m")) == EXDEV
    assert errno_of(lambda: make(system, "a/m")) == EEXIST
    assert errno_of(lambda: system.remove_directory(system.resolve(system.root, b"a"), 3)) == ENOTEMPTY


# -- listings --------------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.sampled_from(["add", "drop", "rename", "read"]), st.integers(0, 11)), max_size=200),
    st.integers(1, 5),
)
def test_a_listing_that_is_read_in_parts_has_what_stays_once_and_nothing_twice(
    actions: list[tuple[str, int]], step: int
) -> None:
    system = file_system(size=100, count=1000)
    top = make(system, "d")
    touched: set[str] = set()
    seen: list[str] = []
    stays = {f"s{n}" for n in range(7)}
    for name in sorted(stays):
        create(system, f"d/{name}")
    cookie = 0

    def read(most: int) -> bool:
        nonlocal cookie
        part = list(islice(top.listed(cookie), most))
        seen.extend(name for _, name, _ in part)
        cookie = part[-1][0] if part else cookie
        return bool(part)

    for action, number in actions:
        name = f"n{number}"
        if action == "read":
            read(step)
        elif (action == "add") is (name not in top.entries):
            touched.add(name)
            if action == "add":
                create(system, f"d/{name}")
            elif action == "drop":
                remove(system, f"d/{name}")
            else:
                rename(system, f"d/{name}", f"d/{name}")
                rename(system, f"d/{name}", "d/other")
                remove(system, "d/other")
        assert len(top.order) <= 2 * len(top.entries) + 65
        assert [name for _, name, _ in top.listed(2)] == list(top.entries)
    while read(step):
        pass
    assert seen[:2] == [".", ".."]
    assert [name for name in seen if name in stays] == sorted(stays)
    assert set(seen) - stays - {".", ".."} <= touched
    assert list(top.listed(cookie)) == []


def test_a_listing_of_a_new_directory_counts_on_from_its_start() -> None:
    system = file_system({"/d/b": b"", "/d/a": b""})
    top = system.resolve(system.root, b"d").node
    assert isinstance(top, Directory)
    assert [(cookie, name) for cookie, name, _ in top.listed(0)] == [(1, "."), (2, ".."), (3, "b"), (4, "a")]
    assert [name for _, name, _ in top.listed(3)] == ["a"]
    assert list(top.listed(1 << 63)) == []


def test_of_names_that_come_and_go_nothing_is_left() -> None:
    system = file_system(count=20)
    for n in range(10_000):
        create(system, f"file {n}")
        remove(system, f"file {n}")
    assert len(system.root.order) < 100


def test_what_is_open_of_a_removed_directory_keeps_nothing_above_it() -> None:
    system = file_system()
    deepest = [make(system, "/".join("a" * n)) for n in range(1, 60)][-1]
    for n in range(59, 0, -1):
        system.remove_directory(system.resolve(system.root, "/".join("a" * n).encode()), 3)
    assert deepest.parent is None
    assert errno_of(lambda: system.resolve(deepest, b"..")) == ENOENT
    assert errno_of(lambda: system.resolve(deepest, b"../a")) == ENOENT
    assert [name for _, name, _ in deepest.listed(0)] == [".", ".."]


MANY = 200
LISTINGS = {
    "many descriptors of one directory": """
        for n in range(4000): open(f"/d/{n:0200}", "w").close()
        for n in range(MANY): next(keep(os.scandir("/d")))
    """,
    "names that are gone": """
        for n in range(MANY):
            for m in range(40): open(f"/d/{n:0100}{m:0100}", "w").close()
            next(keep(os.scandir("/d")))
            for name in os.listdir("/d"): os.remove(f"/d/{name}")
    """,
    "files that are gone": """
        for n in range(MANY):
            keep(open(f"/d/{n:0200}", "wb")).write(bytes(1000))
            os.remove(f"/d/{n:0200}")
    """,
}


@pytest.mark.parametrize("body", LISTINGS.values(), ids=LISTINGS.keys())
def test_what_a_guest_lists_takes_no_memory_of_the_host_beyond_its_files(
    run_with: Callable[..., Any], body: str
) -> None:
    top = f"import os\nMANY = {MANY}\nheld = []\ndef keep(x):\n    held.append(x)\n    return x\nos.mkdir('/d')\n"
    run_with("return 1", {})
    tracemalloc.start()
    try:
        result = run_with(top + textwrap.dedent(body), {}, file_count=5000, files_bytes=1 << 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result.error is None, result.error
    assert peak < 12 << 20
