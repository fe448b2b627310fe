"""Guests that are kept from call to call, and what closes them."""

from __future__ import annotations

import time

import pytest

from wasm_sandbox import Sandbox
from wasm_sandbox.engine.run.guest import Guest
from wasm_sandbox.engine.run.kept import KeptGuest


def test_one_that_is_abandoned_while_its_checkpoint_is_taken_is_torn_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session is closed as its result comes: whoever holds the guest then, tears it down afterwards."""
    take, guests = KeptGuest._take, list[Guest]()

    def abandoned(kept: KeptGuest, guest: Guest) -> None:
        guests.append(guest)
        kept.abandon()
        take(kept, guest)

    monkeypatch.setattr(KeptGuest, "_take", abandoned)
    monkeypatch.setattr(KeptGuest, "rest", lambda *_: None)
    with Sandbox().session() as session:
        assert session.run_code("1 + 1").value == 2
        until = time.monotonic() + 10
        while (not guests or guests[0].has_instance) and time.monotonic() < until:
            time.sleep(0.01)
        assert [guest.has_instance for guest in guests] == [False]
