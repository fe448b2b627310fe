"""Actors and an empty store for the tests of the stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.actors import Actor


@pytest.fixture
def ann() -> Actor:
    return Actor("org-a")


@pytest.fixture
def bob() -> Actor:
    return Actor("org-b")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store will be; it does not exist yet."""
    return tmp_path / "data" / "store.sqlite3"
