"""Where the tests of images keep them, and whether the package index can be reached."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wasm_sandbox.directories import DATA_VARIABLE


@pytest.fixture(scope="session")
def images_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data directory of the session's own: the images of these tests are nobody else's."""
    directory = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DATA_VARIABLE, str(directory))
        yield directory


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
