"""Nothing that a run spoils is spoilt in the next one (`poison.py` does the same for a thousand runs)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.hostile.poison import POISONS, clean, poisoned


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
