"""The short version of `soak.py`, and that it sees what grows."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace

import pytest

from tests.serve.soak import Counts, growth, soak
from tests.support.servers import command

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts from /proc")


@pytest.mark.long
def test_clients_that_hang_up_send_garbage_or_read_slowly_leave_nothing_behind() -> None:
    with open(os.devnull, "w") as nowhere, command(stderr=nowhere) as (process, url):
        counts = asyncio.run(soak(process.pid, url, 350, samples=2))
        assert growth(counts) == []
        assert process.poll() is None


def test_what_is_left_behind_is_noticed() -> None:
    first = Counts(100, 150.0, 20, 30, 0, 0)
    last = replace(first, resident_mib=400.0, descriptors=40, threads=100, sessions=3, running=1)
    assert [line.split(":")[0] for line in growth([first, last])] == [
        "memory", "descriptors", "threads", "sessions", "running"
    ]  # fmt: skip
    assert growth([first, first]) == []
