"""Entry point of the command: ``wasm-sandbox``, or ``python -m wasm_sandbox``."""

from __future__ import annotations

import gc
import os
from typing import NoReturn


def main() -> NoReturn:
    """Run the command and exit; Ctrl-C ends it without a traceback, also while it is still being loaded."""
    try:
        from wasm_sandbox.cli.app import main as command  # lazy: Ctrl-C may come while it is loaded

        command()
    except KeyboardInterrupt:
        os._exit(130)  # as `cli.main` does from then on
    finally:
        gc.freeze()  # the interpreter would search all objects three times before it goes: a tenth of a second


if __name__ == "__main__":
    main()
