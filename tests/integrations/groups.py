"""What the tests of adapters need: a framework, in a dependency group of its own."""

from __future__ import annotations

import importlib.util

import pytest


def needs(module: str, group: str | None = None) -> list[pytest.MarkDecorator]:
    """Skip the tests of a file where its framework is not installed, and let it warn as it likes."""
    missing = importlib.util.find_spec(module.partition(".")[0]) is None
    reason = f"needs {module}: pip install --group {group or module}"
    return [pytest.mark.skipif(missing, reason=reason), pytest.mark.filterwarnings("default")]
