"""Tools as an organisation keeps them (section 11)."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.support.actors import Actor
from wasm_sandbox import Tool
from wasm_sandbox.stores import StoreError, ToolManager


@pytest.fixture
def tools(path: Path) -> ToolManager:
    return ToolManager(path)


def tool(name: str = "f", body: str = "return 1", **fields: Any) -> Tool:
    return Tool(name=name, source_code=f"def {name}():\n    {body}\n", json_schema={"parameters": {}}, **fields)


async def test_a_stored_tool_is_found_by_name_and_by_id_with_all_that_it_had(tools: ToolManager, ann: Actor) -> None:
    """Section 11."""
    rich = tool(
        args_json_schema={"title": "F", "properties": {"x": {"type": "integer"}}},
        description="does é\n\ud800",
        pip_requirements=["a", {"name": "b", "version": None}],
    )
    stored = await tools.create_or_update_tool_async(rich, ann)
    assert stored.id is not None
    assert stored.id.startswith("tool-")
    assert stored == rich.model_copy(update={"id": stored.id})
    assert await tools.get_tool_by_name_async(tool_name="f", actor=ann) == stored
    assert await tools.get_tool_by_id_async(stored.id, ann) == stored


async def test_a_name_is_unique_in_an_organisation_and_storing_it_again_replaces_the_tool(
    tools: ToolManager, ann: Actor
) -> None:
    """Section 11: unique per name and organisation; create is upsert."""
    first = await tools.create_or_update_tool_async(tool(body="return 1"), ann)
    second = await tools.create_or_update_tool_async(tool(body="return 2", id="tool-other"), ann)
    assert second.id == first.id
    assert await tools.list_tools_async(ann) == [second]
    assert "return 2" in second.source_code


async def test_tools_of_another_organisation_are_invisible(tools: ToolManager, ann: Actor, bob: Actor) -> None:
    """Section 11."""
    mine = await tools.create_or_update_tool_async(tool(body="return 'ann'", id="tool-1"), ann)
    assert await tools.get_tool_by_name_async("f", bob) is None
    assert await tools.get_tool_by_id_async("tool-1", bob) is None
    assert await tools.list_tools_async(bob) == []
    assert not await tools.delete_tool_by_id_async("tool-1", bob)
    theirs = await tools.create_or_update_tool_async(tool(body="return 'bob'", id="tool-1"), bob)
    assert theirs != mine
    assert await tools.get_tool_by_name_async("f", ann) == mine
    assert await tools.delete_tool_by_id_async("tool-1", ann)
    assert await tools.get_tool_by_name_async("f", bob) == theirs


@pytest.mark.parametrize("actor", [None, Actor(), Actor(""), object()])
async def test_an_actor_without_organisation_is_refused_by_every_method(tools: ToolManager, actor: Any) -> None:
    """Section 11."""
    calls = [
        tools.get_tool_by_name_async("f", actor),
        tools.get_tool_by_id_async("tool-1", actor),
        tools.create_or_update_tool_async(tool(), actor),
        tools.list_tools_async(actor),
        tools.delete_tool_by_id_async("tool-1", actor),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="no organisation"):
            await call


def test_tools_are_listed_as_they_were_created_in_pages_if_wanted(tools: ToolManager, ann: Actor) -> None:
    stored = [tools.create_or_update_tool(tool(name), ann) for name in ("c", "a", "b")]
    tools.create_or_update_tool(tool("c", "return 7"), ann)
    assert [t.name for t in tools.list_tools(ann)] == ["c", "a", "b"]
    assert [t.name for t in tools.list_tools(ann, limit=2)] == ["c", "a"]
    assert [t.name for t in tools.list_tools(ann, after=stored[0].id, limit=1)] == ["a"]
    with pytest.raises(ValueError, match="no tool with the id 'tool-x'"):
        tools.list_tools(ann, after="tool-x")


def test_two_tools_of_an_organisation_cannot_have_one_id(tools: ToolManager, ann: Actor) -> None:
    tools.create_or_update_tool(tool("f", id="tool-1"), ann)
    with pytest.raises(ValueError, match="'g' cannot have the id of the tool 'f'"):
        tools.create_or_update_tool(tool("g", id="tool-1"), ann)
    assert [t.name for t in tools.list_tools(ann)] == ["f"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"pip_requirements": [object()]}, "not JSON serializable"), ({"name": "\ud800"}, "lone surrogate")],
)
def test_a_tool_that_cannot_be_stored_is_refused_by_name_and_nothing_is_kept(
    tools: ToolManager, ann: Actor, wrong: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        tools.create_or_update_tool(tool().model_copy(update=wrong), ann)
    assert tools.list_tools(ann) == []


def test_a_row_that_is_no_tool_is_a_damaged_store(tools: ToolManager, ann: Actor, path: Path) -> None:
    tools.create_or_update_tool(tool(), ann)
    with sqlite3.connect(path) as connection:
        connection.execute("""UPDATE tools SET body = '{"source_code": 7}'""")
    connection.close()
    with pytest.raises(StoreError, match="damaged: the tool 'f' cannot be read"):
        tools.get_tool_by_name("f", ann)


def test_asking_an_empty_store_makes_no_file(tools: ToolManager, ann: Actor, path: Path) -> None:
    assert tools.get_tool_by_name("f", ann) is None
    assert tools.list_tools(ann) == []
    assert not tools.delete_tool_by_id("tool-1", ann)
    assert not path.parent.exists()
