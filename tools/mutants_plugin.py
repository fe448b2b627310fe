"""Pytest's part in `mutants`: list the tests that fail, and run no more cases of a test that has failed once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import Phase, settings

_FAILED: set[str] = set()

# The first example that fails is enough, and the same ones are tried every time.
settings.register_profile("mutants", database=None, derandomize=True, phases=(Phase.explicit, Phase.generate))
settings.load_profile("mutants")


def _name(nodeid: str) -> str:
    return nodeid.rpartition("::")[2].partition("[")[0]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a case of a test that has failed."""
    if _name(item.nodeid) in _FAILED:
        pytest.skip("another case of it has failed")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note a test that fails; that it cannot be set up is no proof."""
    if report.failed and report.when == "call":
        _FAILED.add(_name(report.nodeid))


def pytest_sessionfinish() -> None:
    """Write the list for whoever asked for it."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        Path(os.environ["WASM_SANDBOX_TEST_CAUGHT"]).write_text("\n".join(sorted(_FAILED)), encoding="utf-8")
