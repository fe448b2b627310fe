"""A server that tests share: nothing that one of them does is to be seen by another."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.support.servers import Running, running


@pytest.fixture(scope="package")
def server() -> Iterator[Running]:
    """A server for whoever is on this machine."""
    with running() as started:
        yield started


@pytest.fixture
def client(server: Running) -> Iterator[httpx.Client]:
    """A client of it."""
    with server.client() as made:
        yield made
