"""A tool: source code plus the JSON schema of its parameters."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Tool(BaseModel):
    """One Python function that an agent may call."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source_code: str
    json_schema: dict[str, Any] | None = None
    args_json_schema: dict[str, Any] | None = None
    description: str | None = None
    pip_requirements: list[Any] | None = None
