"""Whether the package index can be reached."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips where no package can be downloaded."""
    target = tmp_path_factory.mktemp("probe")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries=1", "--dest", str(target)]
    try:
        done = subprocess.run([*command, "tabulate==0.9.0"], capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("the package index does not answer")
    if done.returncode:
        pytest.skip(f"no package can be downloaded here: {done.stderr.strip()[-200:]}")
