"""Every input that fuzzing kept still holds."""

from __future__ import annotations

from tests.fuzz import fuzz_result, fuzz_snapshots, fuzz_sources, fuzz_worker_messages


def test_every_kept_input_holds() -> None:
    assert fuzz_result.replay() > 20


def test_every_kept_message_of_a_worker_holds() -> None:
    assert fuzz_worker_messages.replay() > 20


def test_every_kept_source_and_schema_holds() -> None:
    assert fuzz_sources.replay() > 20


def test_every_kept_snapshot_holds() -> None:
    assert fuzz_snapshots.replay() > 15
