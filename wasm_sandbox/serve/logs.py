"""Log of requests: a line of JSON for each, without arguments, values, source, tokens or ids of sessions."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from pydantic_core import to_json


class Log:
    """Log.

    Args:
        stream: where lines go; by default standard error.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def write(self, event: str, **fields: Any) -> None:
        """Write a line.

        Args:
            event: what happened: a word of ours.
            fields: what is told of it; those that are None are left out.
        """
        told = {name: value for name, value in fields.items() if value is not None}
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = to_json({"at": at, "event": event, **told}, inf_nan_mode="strings", fallback=repr).decode()
        stream = self._stream or sys.stderr
        try:
            stream.write(line + "\n")
            stream.flush()
        except (OSError, ValueError):  # whoever read it is gone: no reason to end
            pass
