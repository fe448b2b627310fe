"""Tools of each organisation."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from typing import Any
from uuid import uuid4

from wasm_sandbox.stores.database import Database, encoding
from wasm_sandbox.stores.organizations import organization_of
from wasm_sandbox.tool.definition import Tool
from wasm_sandbox.tool.parsing import read_json
from wasm_sandbox.tool.twins import async_twin


class ToolManager:
    """Store of tools by name; tools of another organisation are invisible.

    Every method has an async twin, its name with ``_async``, which calls it in a thread. Every method raises
    ``ValueError`` if the actor has no organisation and `StoreError` if the store cannot be used.

    Args:
        path: the store's file; by default the one in the user's data directory.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._database = Database(path)

    def get_tool_by_name(self, tool_name: str, actor: Any) -> Tool | None:
        """Tool of that name in the actor's organisation, or ``None``."""
        return self._find("name", tool_name, organization_of(actor))

    get_tool_by_name_async = async_twin(get_tool_by_name)

    def get_tool_by_id(self, tool_id: str, actor: Any) -> Tool | None:
        """Tool of that id in the actor's organisation, or ``None``."""
        return self._find("id", tool_id, organization_of(actor))

    get_tool_by_id_async = async_twin(get_tool_by_id)

    def create_or_update_tool(self, tool: Tool, actor: Any) -> Tool:
        """Store a tool; one of the same name is replaced and keeps its id.

        Args:
            tool: the tool; without an id it gets a new one (``tool-<uuid4>``).
            actor: whose organisation it belongs to.

        Returns:
            The tool as stored.

        Raises:
            ValueError: if the tool holds a value that cannot be stored, or another tool has its id.
        """
        organization = organization_of(actor)
        with self._database.writing() as connection:
            present = connection.execute(
                "SELECT id FROM tools WHERE organization_id = ? AND name = ?", (organization, _text(tool.name, "name"))
            ).fetchone()
            stored = tool.model_copy(update={"id": present["id"] if present else tool.id or f"tool-{uuid4()}"})
            body = _body(stored)
            if present:
                connection.execute(
                    "UPDATE tools SET body = ?, updated_at = ? WHERE organization_id = ? AND name = ?",
                    (body, time.time(), organization, stored.name),
                )
                return stored
            taken = connection.execute(
                "SELECT name FROM tools WHERE organization_id = ? AND id = ?",
                (organization, _text(str(stored.id), "id")),
            ).fetchone()
            if taken:
                raise ValueError(f"the tool {tool.name!r} cannot have the id of the tool {taken['name']!r}")
            connection.execute(
                "INSERT INTO tools (organization_id, id, name, body, updated_at) VALUES (?, ?, ?, ?, ?)",
                (organization, stored.id, stored.name, body, time.time()),
            )
            return stored

    create_or_update_tool_async = async_twin(create_or_update_tool)

    def list_tools(self, actor: Any, after: str | None = None, limit: int | None = None) -> list[Tool]:
        """Tools of the organisation, in order of creation.

        Args:
            actor: whose organisation.
            after: the id of a tool; only later tools are listed.
            limit: maximum number of tools; ``None`` for all.

        Raises:
            ValueError: if there is no tool with the id ``after``.
        """
        rows = self._database.page("tools", after, limit, organization_id=organization_of(actor))
        if rows is None:
            raise ValueError(f"there is no tool with the id {after!r} to list the ones after it")
        return [self._tool(row) for row in rows]

    list_tools_async = async_twin(list_tools)

    def delete_tool_by_id(self, tool_id: str, actor: Any) -> bool:
        """Remove a tool; false if there is no such tool."""
        organization = organization_of(actor)
        if self.get_tool_by_id(tool_id, actor) is None:
            return False
        return self._database.delete("tools", organization_id=organization, id=tool_id)

    delete_tool_by_id_async = async_twin(delete_tool_by_id)

    def _find(self, column: str, value: str, organization: str) -> Tool | None:
        if not _can_be_kept(value):
            return None
        with self._database.reading() as connection:
            if connection is None:
                return None
            row = connection.execute(
                f"SELECT id, name, body FROM tools WHERE organization_id = ? AND {column} = ?", (organization, value)
            ).fetchone()
        return self._tool(row) if row else None

    def _tool(self, row: sqlite3.Row) -> Tool:
        with self._database.decoding(f"the tool {row['name']!r}"):
            return Tool.model_validate({**read_json(row["body"]), "id": row["id"], "name": row["name"]})


def _body(tool: Tool) -> str:
    with encoding(f"the tool {tool.name!r}"):
        return json.dumps(tool.model_dump(exclude={"id", "name"}, exclude_none=True))


def _text(value: str, what: str) -> str:
    if not _can_be_kept(value):
        raise ValueError(f"the tool's {what} {value!r} has a lone surrogate, so it cannot be stored")
    return value


def _can_be_kept(text: str) -> bool:
    """Whether a text is free of lone surrogates, which SQLite cannot hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
