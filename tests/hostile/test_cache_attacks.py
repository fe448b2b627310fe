"""The cache in hostile hands and hard times: a correct image is used, or a clear error is raised.

Processes of their own load the image as the library does. Only its slow preparation is replaced, by the compiled
image that is already there (`tests/engine/compiled/test_image.py` prepares a real one).
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import textwrap
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.processes import python
from wasm_sandbox.directories import CACHE_VARIABLE
from wasm_sandbox.engine.compiled.cache import WRITING_PREFIX, ImageCache
from wasm_sandbox.engine.engine import process_engine
from wasm_sandbox.errors import CacheError

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(os.name != "posix", reason="permissions, signals and mounts of POSIX"),
]
as_root = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root")

RUN = """
import os, sys, tempfile, time
import wasm_sandbox.engine.compiled.preparation as preparation
from wasm_sandbox import run_tool, Tool
from wasm_sandbox.errors import HostError
from wasm_sandbox.engine.compiled.cache import ImageCache
prepared = []
def prepare(*args):
    prepared.append(args)
    with open({compiled!r}, "rb") as file:
        return file.read()
preparation.prepare = prepare
def stand_still(*args, **named):
    print("here", flush=True)
    time.sleep(600)
{change}
try:
    print(len(prepared), run_tool(Tool(name="f", source_code="def f(): return 'ran'")).func_return, len(prepared))
except HostError as error:
    print(type(error).__name__, error)
"""


def start(directory: Path, change: str = "") -> AbstractContextManager[subprocess.Popen[str]]:
    """A process that runs a tool with this cache directory; ``change`` is executed before."""
    script = RUN.format(compiled=str(process_engine().image().path), change=textwrap.dedent(change))
    environ = {**os.environ, CACHE_VARIABLE: str(directory)}
    return python("-c", script, env=environ)


def run(directory: Path) -> str:
    """What such a process says: how often the image was prepared, and what the tool returned."""
    with start(directory) as process:
        shown, complaints = process.communicate(timeout=100)
    assert (process.returncode, complaints) == (0, "")
    return shown.strip()


PREPARED, FOUND = "0 ran 1", "0 ran 0"


@pytest.fixture
def cache(tmp_path: Path) -> ImageCache:
    """A cache of its own with a correct entry."""
    cache, image = ImageCache(tmp_path / "cache"), process_engine().image()
    cache.add(image.path.stem, image.path.read_bytes())
    return cache


def image_of(cache: ImageCache) -> Path:
    (path,) = cache.directory.glob("*.cwasm")
    return path


# -- damage ------------------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        octet = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([octet ^ 1]))


def swap(path: Path) -> None:
    """With the complete entry of another image."""
    other = ImageCache(path.parent)
    other.add("other", b"another image, complete and recorded")
    for suffix in (".cwasm", ".json"):
        os.replace(path.parent / f"other{suffix}", path.with_suffix(suffix))


def link(path: Path) -> None:
    path.rename(path.parent / "elsewhere")
    path.symlink_to(path.parent / "elsewhere")


def let_others_write(path: Path) -> None:
    path.chmod(0o666)


def give_away(path: Path) -> None:
    os.chown(path, 12345, 12345)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def spoil_the_record(path: Path) -> None:
    path.with_suffix(".json").write_bytes(b"\0" * 500)


def remove_the_record(path: Path) -> None:
    path.with_suffix(".json").unlink()


@pytest.mark.parametrize(
    "damage",
    [
        truncate, empty, flip_a_bit, swap, link, let_others_write, pytest.param(give_away, marks=as_root),
        spoil_the_record, remove_the_record,
    ],
)  # fmt: skip
def test_a_damaged_or_foreign_image_is_never_loaded(cache: ImageCache, damage: object) -> None:
    assert callable(damage)
    damage(image_of(cache))
    assert run(cache.directory) == PREPARED
    assert run(cache.directory) == FOUND
    status = image_of(cache).lstat()
    assert stat.S_ISREG(status.st_mode)
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, os.geteuid())


def test_the_image_of_another_key_is_not_taken_for_this_one(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path / "cache")
    cache.add("one", b"one")
    for suffix in (".cwasm", ".json"):
        shutil.copy2(cache.directory / f"one{suffix}", cache.directory / f"two{suffix}")
    assert cache.find("one") is not None
    assert cache.find("two") is None


# -- places that others can write --------------------------------------------------------------------------


def test_a_directory_that_others_can_write_is_refused_with_the_image_in_it(cache: ImageCache) -> None:
    cache.directory.chmod(0o777)
    said = run(cache.directory)
    assert said.startswith(f"CacheError the cache directory {cache.directory} can be written by others (mode 777)")


def test_a_link_to_a_directory_that_others_can_write_is_refused(cache: ImageCache, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(cache.directory)
    assert run(tmp_path / "link") == FOUND  # the link itself is not what matters
    cache.directory.chmod(0o777)
    assert run(tmp_path / "link").startswith("CacheError")


@as_root
def test_a_directory_of_another_user_is_refused_with_the_image_in_it(cache: ImageCache) -> None:
    os.chown(cache.directory, 12345, 12345)
    assert run(cache.directory).startswith(f"CacheError the cache directory {cache.directory} belongs to user 12345")


@as_root
def test_a_link_through_a_directory_of_another_user_is_refused(cache: ImageCache, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    shutil.move(cache.directory, theirs / "cache")
    os.chown(theirs, 12345, 12345)
    (tmp_path / "link").symlink_to(theirs / "cache")
    assert f"lies in {theirs}, which belongs to user 12345" in run(tmp_path / "link")


@as_root
@pytest.mark.parametrize(("group", "refused"), [(12345, True), (os.getegid() if os.name == "posix" else 0, False)])
def test_a_directory_below_one_that_a_group_can_write_is_refused(tmp_path: Path, group: int, refused: bool) -> None:
    (tmp_path / "shared").mkdir()
    os.chown(tmp_path / "shared", os.geteuid(), group)
    (tmp_path / "shared").chmod(0o775)
    if refused:
        with pytest.raises(CacheError, match="shared, which its group can write"):
            ImageCache(tmp_path / "shared" / "cache")
    else:  # the user's own group, with nobody else in it
        ImageCache(tmp_path / "shared" / "cache")


# -- disks -------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    path.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("there is no mount command here")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(path)], check=False)
    if done.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


@as_root
def test_on_a_full_disk_a_clear_error_is_raised_and_nothing_is_left(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "8m") as disk:
        said = run(disk)
        assert said.startswith("CacheError cannot write ")
        assert f"No space left on device. Free some space, or name another one in {CACHE_VARIABLE}" in said
        assert [path.suffix for path in disk.iterdir()] in ([], [".lock"])


@as_root
def test_a_read_only_cache_is_used_and_an_empty_one_is_a_clear_error(cache: ImageCache, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "200m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert "Read-only file system" in run(disk)
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        for path in (image_of(cache), image_of(cache).with_suffix(".json")):
            shutil.copy(path, disk)  # with other times than recorded
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert run(disk) == FOUND
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        flip_a_bit(disk / image_of(cache).name)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert "Read-only file system" in run(disk)


# -- several processes -------------------------------------------------------------------------------------


KILLED = {
    "while it prepares": "preparation.prepare = stand_still",
    "while it writes": "os.fsync = stand_still",
    "before the image has its name": "os.replace = stand_still",
    "between image and record": """
        files = iter([tempfile.mkstemp])  # the image's; the next one is the record's
        tempfile.mkstemp = lambda **named: next(files, stand_still)(**named)
    """,
}


@pytest.mark.parametrize("change", KILLED.values(), ids=KILLED.keys())
def test_after_a_process_was_killed_in_the_middle_the_next_one_prepares_the_image(tmp_path: Path, change: str) -> None:
    with start(tmp_path / "cache", change) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "here\n"
        killed.send_signal(signal.SIGKILL)
        killed.communicate(timeout=30)
    assert run(tmp_path / "cache") == PREPARED
    for left in (tmp_path / "cache").glob(f"{WRITING_PREFIX}*"):
        os.utime(left, (0, 0))  # long ago
    image_of(ImageCache(tmp_path / "cache")).unlink()
    assert run(tmp_path / "cache") == PREPARED
    assert not list((tmp_path / "cache").glob(f"{WRITING_PREFIX}*"))


def test_of_two_processes_that_race_one_prepares_the_image_and_both_run(tmp_path: Path) -> None:
    slow = """
        fast = prepare
        preparation.prepare = lambda *given: (print("begun", flush=True), time.sleep(1), fast(*given))[-1]
    """
    with start(tmp_path / "cache", slow) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "begun\n"
        assert run(tmp_path / "cache") == FOUND  # it has waited
        assert first.communicate(timeout=30)[0].strip() == PREPARED


def test_of_processes_that_race_one_prepares_the_image_and_all_run(tmp_path: Path) -> None:
    with ExitStack() as stack:
        racers = [stack.enter_context(start(tmp_path / "cache")) for _ in range(4)]
        said = sorted(racer.communicate(timeout=110)[0].strip() for racer in racers)
    assert said == [FOUND] * 3 + [PREPARED]
