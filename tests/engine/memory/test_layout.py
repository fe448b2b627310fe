"""The layout of a guest's memories: what is accessible, and what stands between."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from wasm_sandbox.engine.memory import layout
from wasm_sandbox.engine.memory.address_space import AddressSpace
from wasm_sandbox.engine.memory.kept import is_supported
from wasm_sandbox.engine.memory.slots import Memories

needs_own_memory = pytest.mark.skipif(not is_supported(), reason="linear memory is ours on 64-bit Linux only")

LINEAR_BYTES = 3 * layout.POLL_PAGE_BYTES


@pytest.fixture
def memories() -> Memories:
    return Memories(AddressSpace(), LINEAR_BYTES)


def access(address: int) -> tuple[int, int, str]:
    """Start, end and permissions of the mapping that an address is in, as the system has them."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, permissions, *_ = line.split()
        start, end = (int(part, 16) for part in span.split("-"))
        if start <= address < end:
            return start, end, permissions
    raise AssertionError(f"{address:#x} is not mapped")


def assert_no_access(start: int, end: int) -> None:
    while start < end:
        _, following, permissions = access(start)
        assert permissions == "---p", hex(start)
        start = following


@pytest.mark.parametrize("size", [layout.GUARD_BYTES, layout.WORD_PAGE_BYTES, layout.POLL_PAGE_BYTES])
def test_every_part_is_a_multiple_of_the_systems_page(size: int) -> None:
    assert size % mmap.PAGESIZE == 0


@needs_own_memory
def test_linear_memory_lies_between_its_guards(memories: Memories) -> None:
    first = memories.linear.address
    assert access(first)[2] == "rw-p"
    assert access(first + LINEAR_BYTES - 1)[2] == "rw-p"
    assert_no_access(first - layout.GUARD_BYTES, first)
    assert_no_access(first + LINEAR_BYTES, first + layout.RESERVED_BYTES)


@needs_own_memory
def test_the_poll_page_has_a_guard_and_then_its_pause_word_in_front(memories: Memories) -> None:
    first = memories.poll.address
    word = first - layout.WORD_DISTANCE
    assert access(word)[2] == "rw-p"
    assert access(word + layout.WORD_PAGE_BYTES - 1)[2] == "rw-p"
    assert_no_access(word + layout.WORD_PAGE_BYTES, first)
    assert access(first)[2] == "r--p"
    assert_no_access(first + layout.POLL_PAGE_BYTES, first + layout.RESERVED_BYTES)


@needs_own_memory
def test_the_guards_are_the_memories_own_and_not_only_the_neighbours() -> None:
    reserved: list[tuple[int, int]] = []

    class Noting(AddressSpace):
        def reserve(self, size: int) -> int:
            address = super().reserve(size)
            reserved.append((address, address + size))
            return address

    memories = Memories(Noting(), LINEAR_BYTES)
    guard, most = layout.GUARD_BYTES, layout.ADDRESSABLE_BYTES
    for memory, (start, end) in zip((memories.linear, memories.poll), reserved, strict=True):
        assert start <= memory.address - guard
        assert memory.address + most + guard <= end
