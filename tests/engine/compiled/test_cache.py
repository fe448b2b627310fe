"""The cache of compiled images: only undamaged entries, only from a private directory."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wasm_sandbox.directories import CACHE_SIZE_VARIABLE, CACHE_VARIABLE, cache_ceiling, cache_directory
from wasm_sandbox.engine.compiled.cache import Hold, ImageCache
from wasm_sandbox.engine.engine import process_engine
from wasm_sandbox.errors import CacheError

posix_only = pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
not_as_root = pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write anywhere")

COMPILED = bytes(range(256)) * 100


@pytest.fixture
def cache(tmp_path: Path) -> ImageCache:
    return ImageCache(tmp_path / "cache")


def test_an_entry_is_found_again(cache: ImageCache) -> None:
    assert cache.find("key") is None
    path = cache.add("key", COMPILED)
    assert cache.find("key") == path
    assert path.read_bytes() == COMPILED
    assert cache.find("other") is None


def damage_truncate(path: Path) -> None:
    path.write_bytes(COMPILED[:-1])


def damage_flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)


def damage_swap(path: Path) -> None:
    (path.parent / "new").write_bytes(bytes(len(COMPILED)))
    os.replace(path.parent / "new", path)


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_link(path: Path) -> None:
    path.rename(path.parent / "elsewhere")
    path.symlink_to(path.parent / "elsewhere")


def damage_remove(path: Path) -> None:
    path.unlink()


def damage_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def damage_record(path: Path) -> None:
    path.with_suffix(".json").write_text("{")


@pytest.mark.parametrize(
    "damage",
    [
        damage_truncate,
        damage_flip,
        damage_swap,
        damage_empty,
        damage_link,
        damage_remove,
        damage_directory,
        damage_record,
    ],
)
def test_a_damaged_entry_is_not_found(cache: ImageCache, damage: object) -> None:
    assert callable(damage)
    damage(cache.add("key", COMPILED))
    assert cache.find("key") is None


def test_a_bit_that_flips_behind_the_files_times_is_found_by_the_full_check(cache: ImageCache) -> None:
    path = cache.add("key", COMPILED)
    record = path.with_suffix(".json").read_text()
    path.with_suffix(".json").write_text(record.replace('"sha256":"', '"sha256":"0'))
    assert cache.find("key") is not None
    assert cache.find("key", full_check=True) is None


def test_a_copied_cache_is_checked_once_and_then_trusted(cache: ImageCache, tmp_path: Path) -> None:
    cache.add("key", COMPILED)
    shutil.copytree(cache.directory, tmp_path / "copy", copy_function=shutil.copyfile)
    (tmp_path / "copy").chmod(0o700)
    copied = ImageCache(tmp_path / "copy")
    before = (tmp_path / "copy" / "key.json").read_text()
    assert copied.find("key") is not None
    assert (tmp_path / "copy" / "key.json").read_text() != before


def test_an_unfinished_write_leaves_no_entry(cache: ImageCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(CacheError, match=f"No space left .*{CACHE_VARIABLE}"):
        cache.add("key", COMPILED)
    assert cache.find("key") is None
    assert [p.name for p in cache.directory.iterdir()] == []


def test_what_a_killed_process_left_is_swept_up_and_what_is_being_written_is_not(cache: ImageCache) -> None:
    for name, age in (("old", 3600), ("new", 0)):
        path = cache.directory / f".writing-{name}"
        path.write_bytes(COMPILED)
        os.utime(path, (time.time() - age, time.time() - age))
    cache.sweep()
    assert [p.name for p in cache.directory.iterdir()] == [".writing-new"]


def test_a_lock_that_is_held_is_waited_for_and_said(cache: ImageCache) -> None:
    said: list[str] = []
    with ThreadPoolExecutor() as pool:
        with cache.lock("key", lambda: said.append("first")):

            def second() -> None:
                with cache.lock("key", lambda: said.append("waiting")):
                    said.append("got it")

            waiting = pool.submit(second)
            while not said:
                time.sleep(0.01)
            assert said == ["waiting"]
        waiting.result()
    assert said == ["waiting", "got it"]


@posix_only
def test_the_directory_is_made_private(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path / "a" / "b")
    assert stat.S_IMODE(cache.directory.stat().st_mode) == 0o700


@posix_only
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_directory_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(mode)
    with pytest.raises(CacheError, match=f"cache can be written by others .*{mode:o}"):
        ImageCache(tmp_path / "cache")


@posix_only
def test_a_directory_below_one_that_everybody_can_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(CacheError, match="open, which everybody can write"):
        ImageCache(tmp_path / "open" / "cache")


@posix_only
@pytest.mark.skipif(os.name == "posix" and os.geteuid() != 0, reason="only root can give files away")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o700)
    os.chown(tmp_path / "cache", 12345, 12345)
    with pytest.raises(CacheError, match="belongs to user 12345"):
        ImageCache(tmp_path / "cache")


@posix_only
def test_an_entry_that_others_can_write_is_not_found(cache: ImageCache) -> None:
    cache.add("key", COMPILED).chmod(0o666)
    assert cache.find("key") is None


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match=f"file/cache.*{CACHE_VARIABLE}"):
        ImageCache(tmp_path / "file" / "cache")


@posix_only
@not_as_root
def test_a_read_only_directory_is_named(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path / "cache")
    cache.directory.chmod(0o500)
    with pytest.raises(CacheError, match="Permission denied"):
        cache.add("key", COMPILED)


@pytest.mark.skipif(shutil.which("mount") is None or os.name != "posix" or os.geteuid() != 0, reason="needs a tmpfs")
def test_a_full_disk_is_a_clear_error_and_no_entry(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(small)], check=False)
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        cache = ImageCache(small)
        with pytest.raises(CacheError, match="No space left"):
            cache.add("key", COMPILED * 10)
        assert cache.find("key") is None
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_the_variable_names_another_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "mine"))
    assert cache_directory() == tmp_path / "mine"
    monkeypatch.delenv(CACHE_VARIABLE)
    assert cache_directory().name == "wasm-sandbox"


def _filled(cache: ImageCache, *keys: str) -> None:
    """Entries of 1,000 bytes, the first one unused for the longest time."""
    for age, key in enumerate(reversed(keys)):
        cache.add(key, bytes(1000))
        used = time.time() - 3600 * (age + 1)
        os.utime(cache.directory / f"{key}.json", (used, used))


def _keys(cache: ImageCache) -> list[str]:
    return [entry.key for entry in cache.entries()]


def test_the_entries_that_were_not_used_the_longest_are_pruned_first(cache: ImageCache) -> None:
    _filled(cache, "a", "b", "c")
    cache.note_use("a")
    assert [entry.key for entry in cache.prune(2000)] == ["b"]
    assert _keys(cache) == ["c", "a"]
    assert cache.find("a") is not None
    assert sorted(path.name for path in cache.directory.iterdir()) == ["a.cwasm", "a.json", "c.cwasm", "c.json"]


def test_what_was_not_used_for_long_is_pruned_whatever_it_takes(cache: ImageCache) -> None:
    _filled(cache, "a", "b", "c")
    assert [entry.key for entry in cache.prune(1 << 30, unused_seconds=1.5 * 3600)] == ["a", "b"]


def test_the_entry_to_keep_is_kept_and_counts(cache: ImageCache) -> None:
    _filled(cache, "a", "b", "c")
    assert [entry.key for entry in cache.prune(1000, keep="a")] == ["b", "c"]


@posix_only
def test_what_is_in_use_or_being_prepared_is_not_pruned(cache: ImageCache) -> None:
    _filled(cache, "a", "b", "c")
    with Hold(cache.path("a")), cache.lock("b", lambda: None):
        assert [entry.key for entry in cache.prune(-1)] == ["c"]
    assert [entry.key for entry in cache.prune(-1)] == ["a", "b"]


@posix_only
def test_an_image_that_this_process_runs_is_in_use() -> None:
    image = process_engine().image()
    cache = ImageCache(image.path.parent)
    assert not cache.remove(image.path.stem)
    assert image.path.exists()


def test_the_ceiling_is_in_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CACHE_SIZE_VARIABLE, raising=False)
    assert cache_ceiling() == 2 << 30
    monkeypatch.setenv(CACHE_SIZE_VARIABLE, "500M")
    assert cache_ceiling() == 500 << 20
    monkeypatch.setenv(CACHE_SIZE_VARIABLE, "much")
    with pytest.raises(CacheError, match=f"{CACHE_SIZE_VARIABLE}: 'much' is no size"):
        cache_ceiling()
