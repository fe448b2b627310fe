"""What the suites share: the image is ready before anything is timed, and figures are printed as they come."""

from __future__ import annotations

import pytest

from wasm_sandbox.engine.engine import process_engine


@pytest.fixture(scope="session", autouse=True)
def ready_image() -> None:
    """Prepare the guest image outside every measurement."""
    process_engine().image()
