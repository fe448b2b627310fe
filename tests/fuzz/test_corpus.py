"""Every input that fuzzing kept still holds."""

from __future__ import annotations

from tests.fuzz.fuzz_result import replay


def test_every_kept_input_holds() -> None:
    assert replay() > 20
