"""Where tools and variables are kept. Apart from the stores, so that a run can see that there are none."""

from __future__ import annotations

import os
from pathlib import Path

DIRECTORY_VARIABLE = "WASM_SANDBOX_DATA_DIR"
STORE_NAME = "store.sqlite3"


def data_directory() -> Path:
    """The user's data: ``$WASM_SANDBOX_DATA_DIR``, else the user's data directory of this platform."""
    if configured := os.environ.get(DIRECTORY_VARIABLE):
        return Path(configured).expanduser()
    import platformdirs

    return platformdirs.user_data_path("wasm-sandbox", appauthor=False)


def store_path() -> Path:
    """The database of tools and variables; it exists once something has been stored."""
    return data_directory() / STORE_NAME
