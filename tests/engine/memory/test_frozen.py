"""Memories at rest that slots are given: copied, or mapped from a sealed file; to the byte, and shared by nobody."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.forks import forking, kinds_of_fork
from wasm_sandbox import Sandbox, Session
from wasm_sandbox.engine.memory import frozen
from wasm_sandbox.engine.memory.address_space import PAGE_BYTES, AddressSpace, PageScanner
from wasm_sandbox.engine.memory.frozen import RUN_BYTES, Frozen, FrozenMemories
from wasm_sandbox.engine.memory.kept import is_supported
from wasm_sandbox.engine.memory.slots import PIECE_BYTES, ImageMemory, Slot
from wasm_sandbox.engine.module.image_file import ImageParts
from wasm_sandbox.engine.run.point import GuestMemory
from wasm_sandbox.switches import engine_is_plain

pytestmark = pytest.mark.skipif(not is_supported() or engine_is_plain(), reason="linear memory is not ours here")

ROOT = Path(__file__).parents[3]
IMAGE_BYTES, MOST_BYTES = 1 << 20, 2 << 20
IMAGE = bytes(range(256)) * (IMAGE_BYTES // 256)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "memory"
    path.write_bytes(IMAGE)
    return path


@pytest.fixture(scope="module")
def scanning(path: Path) -> ImageMemory:
    """Image whose slots are restored page by page."""
    space = AddressSpace()
    try:
        scanner = PageScanner(space)
    except OSError as error:
        pytest.skip(f"this system cannot tell which pages were written to: {error}")
    return ImageMemory(space, path, ImageParts(b"", 0, 0, IMAGE_BYTES), scanner)


@pytest.fixture(scope="module", params=["page by page", "anew each time"])
def image(request: pytest.FixtureRequest, path: Path) -> ImageMemory:
    if request.param == "page by page":
        found = request.getfixturevalue("scanning")
        assert isinstance(found, ImageMemory)
        return found
    return ImageMemory(AddressSpace(), path, ImageParts(b"", 0, 0, IMAGE_BYTES), None)


def content(slot: Slot) -> bytes:
    return ctypes.string_at(slot.linear.address, slot.linear.size)


def laid_out(size: int, memory: GuestMemory | list[tuple[int, bytes]]) -> bytearray:
    """Memory that these pieces make of the image."""
    made = bytearray(IMAGE.ljust(size, b"\0"))
    for offset, data in memory.changed if isinstance(memory, GuestMemory) else memory:
        made[offset : offset + len(data)] = data
    return made


# Starts and numbers of pages, bytes that fill them; some are long enough to be mapped, some lie behind the image.
pages = st.tuples(
    st.integers(0, MOST_BYTES // PAGE_BYTES - 1), st.sampled_from([1, 2, 5, 80, 200]), st.integers(0, 255)
)


def memory_of(parts: list[tuple[int, int, int]], size: int) -> GuestMemory:
    changed: dict[int, bytes] = {}
    for start, count, byte in parts:
        for page in range(start, min(start + count, size // PAGE_BYTES)):
            changed[page * PAGE_BYTES] = bytes([byte, page % 256]) * (PAGE_BYTES // 2)
    return GuestMemory(size, tuple(sorted(changed.items())), {})


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_memory_is_put_into_any_slot_to_the_byte_and_found_again(image: ImageMemory, data: st.DataObject) -> None:
    sizes = st.sampled_from([IMAGE_BYTES, IMAGE_BYTES + (64 << 10), MOST_BYTES])
    memories = [memory_of(data.draw(st.lists(pages, max_size=5)), data.draw(sizes)) for _ in range(2)]
    slots = [image.new_slot() for _ in range(2)]
    for _ in range(data.draw(st.integers(1, 4))):
        chosen = [data.draw(st.sampled_from(memories)) for _ in slots]
        expected = []
        for slot, memory in zip(slots, chosen, strict=True):
            slot.linear.grow(memory.size)
            slot.put(memory)
            expected.append(laid_out(memory.size, memory))
        for at, byte in data.draw(st.lists(st.tuples(st.integers(0, MOST_BYTES - 1), st.integers(0, 255)), max_size=6)):
            if at < slots[0].linear.size:  # what one writes the other does not see
                ctypes.memset(slots[0].linear.address + at, byte, 1)
                expected[0][at] = byte
        for slot, memory, shown in zip(slots, chosen, expected, strict=True):
            assert content(slot) == shown
            found = slot.written(dict(memory.changed))
            assert [offset for offset, _ in found] == sorted({offset for offset, _ in found})
            assert laid_out(slot.linear.size, found) == shown
            memories.append(GuestMemory(slot.linear.size, tuple(found), {}))
        for slot in slots:
            slot.restore()
            assert content(slot) == IMAGE
    for slot in slots:
        slot.close()


def big(byte: int = 1) -> GuestMemory:
    return GuestMemory(MOST_BYTES, ((0, bytes([byte]) * RUN_BYTES), (RUN_BYTES, bytes([byte]) * PAGE_BYTES)), {})


def used(image: ImageMemory, memory: GuestMemory) -> Slot:
    slot = image.new_slot()
    slot.linear.grow(memory.size)
    slot.put(memory)
    return slot


def test_what_is_kept_of_an_earlier_guest_is_in_no_later_snapshot(scanning: ImageMemory) -> None:
    slot = used(scanning, GuestMemory(IMAGE_BYTES, ((5 * PAGE_BYTES, b"x" * PAGE_BYTES),), {}))
    slot.restore()
    slot.put(GuestMemory(IMAGE_BYTES, ((9 * PAGE_BYTES, b"y" * PAGE_BYTES),), {}))
    assert slot.written({}) == [(9 * PAGE_BYTES, b"y" * PAGE_BYTES)]
    slot.close()


def test_pages_that_nobody_wrote_to_are_shared_with_the_snapshot_and_not_read(
    scanning: ImageMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = tuple((n * PIECE_BYTES, bytes([n]) * PIECE_BYTES) for n in range(8))
    memory = GuestMemory(IMAGE_BYTES, pieces, {})
    used(scanning, memory).close()
    slot = used(scanning, memory)
    ctypes.memset(slot.linear.address + 3 * PIECE_BYTES, 77, 1)
    compared: list[int] = []

    def is_equal(_: AddressSpace, address: int, data: bytes) -> bool:
        compared.append(address - slot.linear.address)
        return ctypes.string_at(address, len(data)) == data

    monkeypatch.setattr(AddressSpace, "is_equal", is_equal)
    found = dict(slot.written(dict(pieces)))
    assert compared == [3 * PIECE_BYTES]
    assert [offset for offset, piece in pieces if found[offset] is not piece] == [3 * PIECE_BYTES]
    assert found[3 * PIECE_BYTES] == b"M" + b"\x03" * (PIECE_BYTES - 1)
    slot.close()


def test_a_piece_outside_of_the_memory_is_refused(image: ImageMemory) -> None:
    for offset in (-PAGE_BYTES, IMAGE_BYTES, IMAGE_BYTES - PAGE_BYTES + 1):
        slot = image.new_slot()
        with pytest.raises(ValueError, match="outside of the memory"):
            slot.put(GuestMemory(IMAGE_BYTES, ((offset, b"x" * PAGE_BYTES),), {}))
        assert content(slot) == IMAGE
        slot.close()


# --- Files ----------------------------------------------------------------------------------------------


def frozen_of(memory: GuestMemory, memories: FrozenMemories) -> Frozen:
    memories.of(memory)
    found = memories.of(memory)
    assert found is not None
    return found


def test_a_file_is_made_the_second_time_and_nobody_can_change_it() -> None:
    memories, memory = FrozenMemories(), big()
    assert memories.of(memory) is None
    made = memories.of(memory)
    assert made is not None
    assert memories.of(memory) is made
    assert [(run.start, run.end) for run in made.runs] == [(0, RUN_BYTES + PAGE_BYTES)]
    for change in (lambda fd: os.pwrite(fd, b"x", 0), lambda fd: os.truncate(fd, 0), lambda fd: mmap.mmap(fd, 1)):
        with pytest.raises(PermissionError):
            change(made.descriptor)
    assert os.get_inheritable(made.descriptor) is False


def test_small_memories_and_scattered_pages_are_copied() -> None:
    memories = FrozenMemories()
    scattered = tuple((2 * n * PAGE_BYTES, b"x" * PAGE_BYTES) for n in range(200))
    uneven = ((1, b"x" * RUN_BYTES), (RUN_BYTES + PAGE_BYTES, b"x" * (RUN_BYTES + 1)))
    for changed in ((), ((0, b"x" * PAGE_BYTES),), scattered, uneven):
        memory = GuestMemory(MOST_BYTES, changed, {})
        memories.of(memory)
        made = memories.of(memory)
        assert made is None or (made.runs, made.descriptor) == ((), -1)


def test_only_so_many_files_are_kept_and_they_go_with_their_memories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen, "MAX_FROZEN", 2)
    memories = FrozenMemories()
    points = [big(n) for n in range(4)]
    gc.collect()
    before = files()
    made = [frozen_of(point, memories).descriptor for point in points]
    assert files() - before == set(made[2:])
    assert frozen_of(points[0], memories).pieces == dict(points[0].changed)  # made once more
    monkeypatch.setattr(frozen, "MAX_FROZEN_BYTES", RUN_BYTES + PAGE_BYTES)
    frozen_of(points[1], memories)
    assert len(files() - before) == 1
    del points
    gc.collect()
    assert files() == before


def files() -> set[int]:
    """Descriptors of frozen memories."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            if "memfd:wasm-sandbox" in os.readlink(f"/proc/self/fd/{name}"):
                found.add(int(name))
        except OSError:
            continue
    return found


def mappings() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:wasm-sandbox")


@pytest.mark.parametrize("refused", ["memfd_create", "pwrite"])
def test_a_system_that_makes_no_such_file_copies(
    refused: str, image: ImageMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(28, "No space left on device")

    before = files()
    monkeypatch.setattr(os, refused, refuse)
    memory = big()
    for _ in range(3):
        slot = used(image, memory)
        assert content(slot) == laid_out(MOST_BYTES, memory)
        slot.close()
    assert files() == before


# --- Sessions -------------------------------------------------------------------------------------------

FILL = "import random\nrows = ['%032d' % n for n in range(50_000)]; raw = bytearray(bytes(range(256)) * 8192)"
CHECK = "(len(rows), rows[7], rows[-1][-5:], sum(raw[::4096]), raw[1 << 20], len(raw))"
WHOLE = (50_000, f"{7:032d}", "49999", 0, 0, 2 << 20)


@pytest.fixture
def session() -> Iterator[Session]:
    with Sandbox().session() as made:
        made.run_code(FILL)
        yield made


def test_forks_of_much_are_mapped_and_each_writes_its_own(session: Session) -> None:
    before = mappings()
    twins = [session.fork() for _ in range(4)]
    for number, twin in enumerate(twins):
        assert twin.run_code(CHECK).value == WHOLE
        twin.run_code(f"rows[7] = {number}; raw[1 << 20] = {number + 1}; more = bytes([{number}]) * (3 << 20)")
    assert mappings() > before
    deeper = [twin.fork() for twin in twins for _ in range(2)]
    for number, twin in enumerate([*twins, *(twin for twin in deeper)]):
        mine = number if number < 4 else (number - 4) // 2
        assert twin.run_code("(rows[7], raw[1 << 20], more[-1], rows[8])").value == (mine, mine + 1, mine, f"{8:032d}")
    assert session.run_code(CHECK).value == WHOLE
    for twin in twins:
        point = twin.checkpoint()
        twin.run_code("rows.clear(); raw[:] = bytes(1 << 20)")
        for _ in range(3):
            twin.rollback(point)
            assert twin.run_code("(len(rows), len(raw))").value == (50_000, 2 << 20)
    for twin in [*twins, *deeper]:
        twin.close()


def test_bytes_of_a_fork_that_is_mapped_are_whole(session: Session) -> None:
    for _ in range(3):
        with session.fork() as twin:
            twin.run_code("rows[7] = 'changed'")
            blob = twin.dump()
    with Sandbox().load_session(blob) as loaded:
        assert loaded.run_code(CHECK).value == (50_000, "changed", "49999", 0, 0, 2 << 20)


def test_threads_fork_one_session_and_go_apart(session: Session) -> None:
    wrong: list[object] = []

    def work(number: int) -> None:
        for turn in range(3):
            with session.fork() as twin:
                twin.run_code(f"rows[7] = ({number}, {turn}); raw[1 << 20] = {number}")
                with twin.fork() as deeper:
                    deeper.run_code("rows[8] = 0")
                found = twin.run_code("(rows[7], rows[8], raw[1 << 20])").value
                if found != ((number, turn), f"{8:032d}", number):
                    wrong.append(found)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert session.run_code(CHECK).value == WHOLE


@pytest.mark.long
def test_forks_leave_no_descriptor_no_mapping_and_no_memory(session: Session) -> None:
    def lines() -> int:
        return Path("/proc/self/maps").read_text().count("\n")

    def some() -> None:
        for _ in range(20):
            with session.fork() as twin:
                twin.run_code("rows[7] = 1")
                with twin.fork() as first, twin.fork() as second:
                    first.run_code("raw[5] = 1")
                    second.run_code("while True: pass", limits={"timeout_seconds": 0.01})
                    second.run_code("raw[6] = 1")

    some()
    before = len(os.listdir("/proc/self/fd")), lines()
    some()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before[0] + 1
    assert lines() <= before[1] + 40
    session.close()
    gc.collect()
    assert (files(), mappings()) == (set(), 0)


@pytest.mark.long
@pytest.mark.parametrize("kind", kinds_of_fork())
def test_a_child_of_the_process_leaves_the_sessions_of_its_parent_alone(kind: str) -> None:
    program = f"""
from wasm_sandbox import Sandbox
session = Sandbox().session()
session.run_code({FILL!r})
twins = [session.fork() for _ in range(3)]
for twin in twins:
    twin.run_code("rows[8] = 1")
blob = twins[0].dump()
if not (child := fork()):
    try:
        loaded = Sandbox().load_session(blob)
        loaded.run_code("rows[7] = 'of the child'; raw[:] = bytes(2 << 20)")
        further = [loaded.fork() for _ in range(3)]
        assert [one.run_code("rows[7]").value for one in further] == ["of the child"] * 3
        os._exit(7)
    finally:
        os._exit(1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print([twin.run_code({CHECK!r}).value for twin in [*twins, session.fork()]] == [{WHOLE!r}] * 4)
"""
    command = forking(program, kind, has_same_id=False)
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=120)
    assert (done.stdout, done.stderr) == ("7\nTrue\n", ""), sys.version
