"""Every test of host functions once more, with the guest in a worker process."""

from __future__ import annotations

from functools import partial

import pytest

import wasm_sandbox
from tests.functions import test_calls
from tests.functions.test_calls import *  # noqa: F403 - its tests are those of this module, too

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def in_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AsyncSandbox", "Sandbox", "run_code", "run_tool"):
        monkeypatch.setattr(test_calls, name, partial(getattr(wasm_sandbox, name), isolation="process"))
