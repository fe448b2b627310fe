"""A handler for a serverless function: an event names a tool's source and arguments, the answer is its result.

The image is exported beside it (see Dockerfile): nothing is compiled, written or downloaded when the function starts.
"""

from __future__ import annotations

import json
from typing import Any

from wasm_sandbox import Limits, Tool, run_tool
from wasm_sandbox.errors import ToolSourceError

LIMITS = Limits(timeout_seconds=10, memory_bytes=128 << 20)


def handler(event: dict[str, Any], context: Any = None) -> dict[str, Any]:
    """Run the tool of an event: ``{"source": ..., "args": {...}}``."""
    try:
        tool = Tool.from_source(event["source"])
    except (KeyError, ToolSourceError) as error:
        return {"statusCode": 400, "body": json.dumps({"error": str(error)})}
    result = run_tool(tool, event.get("args"), limits=LIMITS)
    answer = {"status": result.status, "value": result.func_return, "stdout": result.stdout}
    return {"statusCode": 200, "body": json.dumps(answer, default=str)}


if __name__ == "__main__":
    print(handler({"source": "def add(a: int, b: int) -> int:\n    return a + b\n", "args": {"a": 2, "b": 3}}))
