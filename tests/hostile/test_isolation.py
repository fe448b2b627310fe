"""Nothing that a run spoils is spoilt in the next one (`poison.py` does the same for a thousand runs)."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.hostile.conftest import RunBody
from tests.hostile.poison import POISONS, clean, poisoned
from wasm_sandbox.config import MIB
from wasm_sandbox.guest import _capi
from wasm_sandbox.guest.engine import process_engine
from wasm_sandbox.guest.metering import FUEL_EXPORT
from wasm_sandbox.guest.pipe import OutputPipe
from wasm_sandbox.guest.wasi import LiveSurroundings, World


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
def fresh_instance() -> Iterator[_capi.Instance]:
    """An instance as the next run gets it, before anything has run in it."""
    image = process_engine().image()
    fresh = image.instances.take()
    world = World([], OutputPipe(0), OutputPipe(0), LiveSurroundings(), deadline=float("inf"))
    image.host_functions.enter(world)
    try:
        world.instance = fresh.instance
        fresh.instance.limit(1 << 30)
        fresh.instance.set_global(FUEL_EXPORT, 10**9)
        yield fresh.instance
    finally:
        image.host_functions.leave()
        image.instances.replace(fresh)


def whole_memory(instance: _capi.Instance) -> bytes:
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
    secret: bytes, memory_before: bytes, fresh_instance: _capi.Instance
) -> None:
    assert whole_memory(fresh_instance) == memory_before
    assert secret not in memory_before


def test_memory_that_a_run_grows_by_is_clear(
    secret: bytes, memory_before: bytes, fresh_instance: _capi.Instance
) -> None:
    assert fresh_instance.call("sandbox_alloc", 300 * MIB)  # it writes a few words of its own beside it
    memory = whole_memory(fresh_instance)
    grown = memory[len(memory_before) :]
    assert len(grown) > 250 * MIB
    assert len(grown) - grown.count(0) < 4096
    assert secret not in memory
    assert secret[:8] not in memory
