"""Nothing that a run spoils is spoilt in the next one (`poison.py` does the same for a thousand runs)."""

from __future__ import annotations

import ctypes
import re
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.hostile.conftest import RunBody
from tests.hostile.poison import POISONS, clean, poisoned
from wasm_sandbox.engine.binding import capi
from wasm_sandbox.engine.engine import process_engine
from wasm_sandbox.engine.memory.kept import is_supported
from wasm_sandbox.engine.memory.layout import ADDRESSABLE_BYTES, GUARD_BYTES
from wasm_sandbox.engine.memory.slots import MOST_KEPT_BYTES, Slot
from wasm_sandbox.engine.module.metering import FUEL_EXPORT
from wasm_sandbox.engine.world.clocks import Clocks
from wasm_sandbox.engine.world.pipe import OutputPipe
from wasm_sandbox.engine.world.process import Process
from wasm_sandbox.engine.world.streams import Streams
from wasm_sandbox.engine.world.surroundings import LiveSurroundings
from wasm_sandbox.engine.world.world import World
from wasm_sandbox.limits import MIB
from wasm_sandbox.switches import engine_is_plain

own_memory = pytest.mark.skipif(engine_is_plain() or not is_supported(), reason="linear memory is wasmtime's here")


@pytest.fixture(scope="module")
def first() -> object:
    return clean()


@pytest.mark.parametrize("name", POISONS)
def test_a_clean_run_after_a_poisoned_one_is_like_the_first(name: str, first: object) -> None:
    for _ in range(3):
        poisoned(name)
        assert clean() == first


def test_clean_runs_beside_poisoned_ones_are_like_the_first(first: object) -> None:
    with ThreadPoolExecutor(8) as pool:
        poison = [pool.submit(poisoned, name) for name in POISONS]
        for found in [pool.submit(clean) for _ in range(30)]:
            assert found.result() == first
        for done in poison:
            done.result()


@pytest.fixture
def fresh_instance() -> Iterator[capi.Instance]:
    """An instance as the next run gets it, before anything has run in it."""
    image = process_engine().image()
    fresh = image.instances.take()
    world = World(LiveSurroundings(), deadline=float("inf"))
    streams = Streams(world, OutputPipe(0), OutputPipe(0))
    world.offer(streams, Clocks(world, streams.is_open), Process(world))
    image.host_functions.enter(world)
    try:
        world.instance = fresh.instance
        fresh.instance.limit(1 << 30)
        fresh.instance.set_global(FUEL_EXPORT, 10**9)
        yield fresh.instance
    finally:
        image.host_functions.leave()
        image.instances.replace(fresh)


def whole_memory(instance: capi.Instance) -> bytes:
    return instance.read(0, instance.memory()[1])


@pytest.fixture(scope="module")
def memory_before() -> bytes:
    """The linear memory of an instance before any of this module's runs."""
    fresh = process_engine().image().instances.take()
    memory = whole_memory(fresh.instance)
    fresh.store.close()  # not used again: what the others have been used for is what is looked at
    return memory


@pytest.fixture
def secret(memory_before: bytes, run_body: RunBody) -> bytes:
    """What many runs, one after the other and at once, have just filled their memory with, by every way to end."""
    secret = secrets.token_bytes(32)
    ends = ["return 1", "import os; os._exit(3)", "raise ValueError", "while True: held.append(bytes(secret) * 40_000)"]

    def fill(end: str) -> None:
        body = f"held = [bytes(secret) * 40_000 for _ in range(80)]\n{end}"  # 100 MB
        run_body(body, args={"secret": list(secret)})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(fill, ends * 5))
    return secret


def test_no_byte_of_an_earlier_run_is_in_the_memory_of_the_next(
    secret: bytes, memory_before: bytes, fresh_instance: capi.Instance
) -> None:
    assert whole_memory(fresh_instance) == memory_before
    assert secret not in memory_before


def test_memory_that_a_run_grows_by_is_clear(
    secret: bytes, memory_before: bytes, fresh_instance: capi.Instance
) -> None:
    assert fresh_instance.call("sandbox_alloc", 300 * MIB)  # it writes a few words of its own beside it
    memory = whole_memory(fresh_instance)
    grown = memory[len(memory_before) :]
    assert len(grown) > 250 * MIB
    assert len(grown) - grown.count(0) < 4096
    assert secret not in memory
    assert secret[:8] not in memory


# -- where it lies -------------------------------------------------------------------------------------------


def mappings() -> Iterator[tuple[int, int, str, int]]:
    """Start, end, rights and private dirty bytes of this process's mappings."""
    start, end, rights = 0, 0, ""
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+)", line):
            start, end, rights = int(found[1], 16), int(found[2], 16), found[3]
        elif line.startswith("Private_Dirty:"):
            yield start, end, rights, int(line.split()[1]) << 10


def idle_slots() -> list[Slot]:
    until = time.monotonic() + 20
    while process_engine().running_guests and time.monotonic() < until:
        time.sleep(0.01)
    return [fresh.slot for fresh in process_engine().image().instances.idle if fresh.slot is not None]


@own_memory
def test_nothing_can_be_reached_right_before_and_after_what_a_guest_can_address(run_body: RunBody) -> None:
    run_body("return 1")
    slots = idle_slots()
    assert slots
    for slot in slots:
        for memory in (slot.linear, slot.poll):
            front, back = memory.address - GUARD_BYTES, memory.address + ADDRESSABLE_BYTES + GUARD_BYTES
            rights = [r for start, end, r, _ in mappings() if start < back and end > front]
            inside = [r for start, end, r, _ in mappings() if memory.address <= start < memory.address + memory.size]
            assert [r for r in rights if r[:3] != "---"] == inside
            assert rights[0] == rights[-1] == "---p"


@own_memory
def test_a_run_that_writes_to_much_of_the_images_memory_leaves_none_of_it_behind(memory_before: bytes) -> None:
    """What the pages of one run cost the host until the next is bounded."""
    pool = process_engine().image().instances
    fresh = pool.take()
    slot = fresh.slot
    assert slot is not None
    for page in range(0, min(slot.linear.size, 4 * MOST_KEPT_BYTES), 4096):
        ctypes.memset(slot.linear.address + page, 255, 1)
    pool.replace(fresh)
    at, size = slot.linear.address, slot.linear.size
    kept = sum(dirty for start, _, _, dirty in mappings() if at <= start < at + size)
    assert kept <= MOST_KEPT_BYTES + MIB
    assert ctypes.string_at(at, size) == memory_before
