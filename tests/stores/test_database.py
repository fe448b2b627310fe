"""The store's file: private, versioned, shared by processes, and clear about what is wrong with it."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.actors import Actor
from wasm_sandbox import Tool
from wasm_sandbox.stores import SandboxConfigManager, StoreError, ToolManager, database

WRITERS = 4
WRITES = 15


def tool(name: str, body: str = "pass") -> Tool:
    return Tool(name=name, source_code=f"def {name}(): {body}", json_schema=None)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# -- where it is and who may read it ---------------------------------------------------------------------------


def test_the_file_is_in_the_directory_that_the_environment_names(
    tmp_path: Path, ann: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = ToolManager()
    monkeypatch.setenv("WASM_SANDBOX_DATA_DIR", str(tmp_path / "a" / "b"))
    tools.create_or_update_tool(tool("f"), ann)
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["store.sqlite3"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_directory_and_file_are_the_users_alone_whatever_the_umask(path: Path, ann: Actor) -> None:
    previous = os.umask(0)
    try:
        ToolManager(path).create_or_update_tool(tool("f"), ann)
    finally:
        os.umask(previous)
    assert (mode(path.parent), mode(path)) == (0o700, 0o600)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_rights_that_others_have_to_the_file_are_taken_away(path: Path, ann: Actor) -> None:
    ToolManager(path).create_or_update_tool(tool("f"), ann)
    path.chmod(0o644)
    ToolManager(path).list_tools(ann)
    assert mode(path) == 0o600


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_directory_that_others_can_write_is_refused(path: Path, ann: Actor) -> None:
    ToolManager(path).create_or_update_tool(tool("f"), ann)
    path.parent.chmod(0o777)
    for refused in (
        lambda: ToolManager(path).list_tools(ann),
        lambda: ToolManager(path).create_or_update_tool(tool("g"), ann),
    ):
        with pytest.raises(StoreError, match=r"chmod 700.*WASM_SANDBOX_DATA_DIR"):
            refused()


# -- what is wrong with it ---------------------------------------------------------------------------------


def spoil_all(path: Path) -> None:
    path.write_bytes(b"this is no database, it is a text of some length" * 100)


def spoil_a_page(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)


def use_by_another_program(path: Path) -> None:
    path.unlink()
    run(path, "CREATE TABLE recipes (name TEXT)")


def write_by_a_newer_version(path: Path) -> None:
    run(path, "PRAGMA user_version = 99")


def replace_by_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def run(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_all, "is damaged.*put a copy of it back, or move it away"),
        (spoil_a_page, "is damaged.*put a copy of it back, or move it away"),
        (use_by_another_program, "is a database of another program"),
        (write_by_a_newer_version, "written by a newer wasm-sandbox .*version is 99, this one knows 1.*upgrade"),
        (replace_by_a_directory, "cannot be used"),
    ],
)
def test_a_file_that_cannot_be_used_says_why_and_what_to_do_and_is_left_alone(
    path: Path, ann: Actor, spoil: Callable[[Path], None], words: str
) -> None:
    ToolManager(path).create_or_update_tool(tool("f"), ann)
    SandboxConfigManager(path).get_or_create_default_sandbox_config("wasm", ann)
    spoil(path)
    before = path.read_bytes() if path.is_file() else None
    for attempt in (
        lambda: ToolManager(path).get_tool_by_name("f", ann),
        lambda: ToolManager(path).create_or_update_tool(tool("g"), ann),
        lambda: SandboxConfigManager(path).get_or_create_default_sandbox_config("local", ann),
    ):
        with pytest.raises(StoreError, match=words) as caught:
            attempt()
        assert str(path) in str(caught.value)
    assert (path.read_bytes() if path.is_file() else None) == before


def test_an_empty_file_is_an_empty_store(path: Path, ann: Actor) -> None:
    """As another process leaves it for a moment when it makes the store."""
    path.parent.mkdir(mode=0o700)
    path.touch()
    assert ToolManager(path).list_tools(ann) == []
    ToolManager(path).create_or_update_tool(tool("f"), ann)
    assert len(ToolManager(path).list_tools(ann)) == 1


def test_a_store_that_stays_in_use_is_given_up_with_a_word(
    path: Path, ann: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    ToolManager(path).create_or_update_tool(tool("f"), ann)
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(StoreError, match=r"in use by other processes for 0\.05 s; try again"):
            ToolManager(path).list_tools(ann)
    finally:
        holder.close()


def test_what_fails_half_way_leaves_nothing_behind(path: Path, ann: Actor) -> None:
    tools = ToolManager(path)
    tools.create_or_update_tool(tool("f"), ann)

    def fail() -> None:
        with database.Database(path).writing() as connection:
            connection.execute("DELETE FROM tools")
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail()
    assert len(tools.list_tools(ann)) == 1


# -- many at once ------------------------------------------------------------------------------------------


def write_many(path: Path, start: Any, number: int) -> None:
    """What each racing process does: its own tools, one that all of them write, and the shared configuration."""
    ann = Actor("org-a")
    tools, configs = ToolManager(path), SandboxConfigManager(path)
    start.wait()
    for turn in range(WRITES):
        tools.create_or_update_tool(tool(f"own_{number}_{turn}"), ann)
        tools.create_or_update_tool(tool("shared", f"return {number}"), ann)
        config = configs.get_or_create_default_sandbox_config("wasm", ann)
        configs.create_or_update_sandbox_env_var(f"V{number}_{turn}", str(turn), config.id, ann)
        assert tools.get_tool_by_name("shared", ann) is not None


def test_processes_that_race_from_the_first_moment_lose_nothing(path: Path, ann: Actor) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(WRITERS)
    writers = [context.Process(target=write_many, args=(path, start, number)) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * WRITERS
    names = [t.name for t in ToolManager(path).list_tools(ann)]
    assert len(names) == len({*names}) == WRITERS * WRITES + 1
    configs = SandboxConfigManager(path)
    (config,) = configs.list_sandbox_configs(ann)
    assert len(configs.get_sandbox_env_vars_as_dict(config.id, ann)) == WRITERS * WRITES


def test_one_manager_serves_many_threads(path: Path, ann: Actor) -> None:
    tools = ToolManager(path)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(5):
                tools.create_or_update_tool(tool(f"t{number}_{turn}"), ann)
                tools.list_tools(ann)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(tools.list_tools(ann)) == 30


# -- what it costs those who do not use it ------------------------------------------------------------------


def test_neither_importing_the_package_nor_a_run_with_a_tool_loads_the_stores_or_makes_a_file(tmp_path: Path) -> None:
    script = """
import sys
from wasm_sandbox import Tool, WasmToolSandbox
class User:
    organization_id = "org-a"
tool = Tool.from_source("def f():\\n    return 1")
result = WasmToolSandbox("f", {}, User(), None, tool_object=tool).run_sync()
print(result.func_return, sorted({"sqlite3", "wasm_sandbox.stores", "opentelemetry"} & {*sys.modules}))
"""
    data = tmp_path / "data"
    environ = {**os.environ, "WASM_SANDBOX_DATA_DIR": str(data)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environ, check=True)
    assert done.stdout == "1 []\n"
    assert not data.exists()
