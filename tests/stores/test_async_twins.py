"""Each method of the stores and its async twin: one signature, one docstring, one effect."""

from __future__ import annotations

import inspect
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import typing
from pathlib import Path
from typing import Any

import pytest

from tests.support.actors import Actor
from wasm_sandbox import Tool
from wasm_sandbox.stores import SandboxConfigManager, ToolManager

MANAGERS: list[type[Any]] = [ToolManager, SandboxConfigManager]

BLOCKING = [
    (manager, name)
    for manager in MANAGERS
    for name in vars(manager)
    if not name.startswith("_") and not name.endswith("_async")
]
"""Every public method that blocks, with its class."""

TOOL = Tool(name="f", source_code="def f(): return 1", json_schema=None, id="tool-1")
CONFIG = "sandbox-00000000-0000-4000-8000-000000000000"
ANN = Actor("org-a")

CALLS: dict[str, dict[str, Any]] = {
    "get_tool_by_name": {"tool_name": "f"},
    "get_tool_by_id": {"tool_id": "tool-1"},
    "create_or_update_tool": {"tool": TOOL.model_copy(update={"source_code": "def f(): return 2"})},
    "list_tools": {"after": "tool-1", "limit": 1},
    "delete_tool_by_id": {"tool_id": "tool-1"},
    "get_or_create_default_sandbox_config": {"sandbox_type": "wasm"},
    "get_sandbox_config_by_type": {"sandbox_type": "wasm"},
    "create_or_update_sandbox_config": {"sandbox_type": "wasm", "config": {"note": 1}},
    "list_sandbox_configs": {},
    "delete_sandbox_config": {"sandbox_config_id": CONFIG},
    "create_or_update_sandbox_env_var": {"key": "A", "value": "2", "sandbox_config_id": CONFIG},
    "get_sandbox_env_vars_as_dict": {"sandbox_config_id": CONFIG},
    "list_sandbox_env_vars": {"sandbox_config_id": CONFIG, "limit": 1},
    "delete_sandbox_env_var": {"key": "A", "sandbox_config_id": CONFIG},
}
"""Arguments, but for the actor, with which each method finds or changes something."""

each_method = pytest.mark.parametrize(("manager", "name"), BLOCKING, ids=[name for _, name in BLOCKING])


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two equal stores; what changes them later does so at one time of the clock."""
    monkeypatch.setattr(time, "time", lambda: 1e9)
    first, second = tmp_path / "first.sqlite3", tmp_path / "second.sqlite3"
    for tool in (TOOL, TOOL.model_copy(update={"name": "g", "id": "tool-2"})):
        ToolManager(first).create_or_update_tool(tool, ANN)
    configs = SandboxConfigManager(first)
    made = configs.get_or_create_default_sandbox_config("wasm", ANN)
    with sqlite3.connect(first) as connection:
        connection.execute("UPDATE sandbox_configs SET id = ? WHERE id = ?", (CONFIG, made.id))
    connection.close()
    for key in ("A", "B"):
        configs.create_or_update_sandbox_env_var(key, "1", CONFIG, ANN)
    shutil.copy(first, second)
    return first, second


def content(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


def test_every_public_method_has_a_twin_and_every_twin_its_method() -> None:
    for manager in MANAGERS:
        twins = {name for name in vars(manager) if name.endswith("_async")}
        assert twins == {f"{name}_async" for owner, name in BLOCKING if owner is manager}
    assert {name for _, name in BLOCKING} == CALLS.keys()


@each_method
def test_a_twin_is_a_coroutine_function_of_the_same_signature_and_types(manager: type[Any], name: str) -> None:
    method, twin = getattr(manager, name), getattr(manager, f"{name}_async")
    assert inspect.iscoroutinefunction(twin)
    assert not inspect.iscoroutinefunction(method)
    assert (twin.__name__, twin.__qualname__) == (f"{name}_async", f"{manager.__name__}.{name}_async")
    assert twin.__module__ == method.__module__
    assert inspect.signature(twin) == inspect.signature(method)
    assert typing.get_type_hints(twin) == typing.get_type_hints(method)


@each_method
def test_a_twin_says_what_it_is_and_then_what_the_method_says(manager: type[Any], name: str) -> None:
    first, _, rest = (inspect.getdoc(getattr(manager, f"{name}_async")) or "").partition("\n\n")
    assert first == f"Async twin of `{name}`, which it calls in a thread."
    assert rest == inspect.getdoc(getattr(manager, name))


@each_method
async def test_a_twin_gives_and_leaves_behind_the_same(
    manager: type[Any], name: str, stores: tuple[Path, Path]
) -> None:
    first, second = stores
    before = content(first)
    result = getattr(manager(first), name)(**CALLS[name], actor=ANN)
    assert await getattr(manager(second), f"{name}_async")(**CALLS[name], actor=ANN) == result
    assert result
    assert content(second) == content(first)
    changes = name.startswith(("create_or_update", "delete"))
    assert (content(first) != before) is changes


@each_method
async def test_a_twin_raises_the_same(manager: type[Any], name: str, stores: tuple[Path, Path]) -> None:
    store = manager(stores[0])
    with pytest.raises(ValueError, match="no organisation") as expected:
        getattr(store, name)(**CALLS[name], actor=None)
    with pytest.raises(ValueError, match="no organisation") as caught:
        await getattr(store, f"{name}_async")(**CALLS[name], actor=None)
    assert (type(caught.value), str(caught.value)) == (type(expected.value), str(expected.value))


@each_method
async def test_a_twin_calls_the_method_that_a_subclass_has_in_another_thread(manager: type[Any], name: str) -> None:
    def overriding(self: object, *args: object, **kwargs: object) -> tuple[object, ...]:
        return threading.get_ident(), args, kwargs

    store = type("Own", (manager,), {name: overriding})()
    thread, *given = await getattr(store, f"{name}_async")(1, actor=2)
    assert thread != threading.get_ident()
    assert given == [(1,), {"actor": 2}]


def test_callers_without_an_event_loop_do_not_pay_for_asyncio() -> None:
    script = "import sys; from wasm_sandbox import stores; print(stores.ToolManager, 'asyncio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.endswith(" False\n")
