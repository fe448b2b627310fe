"""The short version of `soak.py`."""

from __future__ import annotations

import sys

import pytest

from tests.hostile.soak import growth, soak


@pytest.mark.skipif(sys.platform != "linux", reason="counts from /proc")
def test_five_hundred_runs_leave_nothing_behind() -> None:
    assert growth(soak(500, samples=1)) == []
