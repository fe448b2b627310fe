"""The verbs of ``wasm-sandbox`` about what is stored: tools, and the variables that they are given."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wasm_sandbox import images, stores
from wasm_sandbox.cli.display import print_json, print_line, print_row
from wasm_sandbox.cli.inputs import CommandError, load_tool
from wasm_sandbox.cli.options import json_option, requirement_option, tool_option
from wasm_sandbox.environment import check_variable, merge_environment

if TYPE_CHECKING:
    from wasm_sandbox import Tool


def is_tool_name(file_or_name: str) -> bool:
    """Whether an argument names a stored tool and no file: a Python name, and there is no such file."""
    return file_or_name.isidentifier() and not Path(file_or_name).exists()


def stored_tool(name: str) -> tuple[Tool, stores.LocalUser]:
    """Stored tool of a name, and the user whose it is.

    Raises:
        CommandError: if there is no tool of that name.
    """
    user = stores.LocalUser()
    tool = stores.ToolManager().get_tool_by_name(name, user)
    if tool is None:
        raise CommandError(
            f"{name}: there is neither a file nor a stored tool of that name (see wasm-sandbox tool list)"
        )
    return tool, user


# --- Tools ----------------------------------------------------------------------------------------------


@click.group("tool")
def tool_verbs() -> None:
    """Keep tools by name: wasm-sandbox run NAME runs them."""


@tool_verbs.command("add")
@click.argument("file")
@tool_option
@requirement_option
def add_tool(*, file: str, name: str | None, requirements: Sequence[str]) -> None:
    """Store the tool in FILE, a .py file; it is read and not run. One of the same name is replaced."""
    tools, user = stores.ToolManager(), stores.LocalUser()
    tool = load_tool(file, name, {})
    if requirements:
        tool = tool.model_copy(update={"pip_requirements": list(images.tool_requirements(requirements))})
    word = "stored" if tools.get_tool_by_name(tool.name, user) is None else "replaced"
    tools.create_or_update_tool(tool, user)
    print_row(f"{tool.name}: {word}")


@tool_verbs.command("list")
@json_option
def list_tools(*, as_json: bool) -> None:
    """List the stored tools: their names and the first line about each."""
    tools = stores.ToolManager().list_tools(stores.LocalUser())
    if as_json:
        print_json([{"name": t.name, "id": t.id, "description": t.description} for t in tools])
    else:
        _print_columns([(t.name, (t.description or "").partition("\n")[0]) for t in tools])


@tool_verbs.command("show")
@click.argument("name")
@json_option
def show_tool(*, name: str, as_json: bool) -> None:
    """Print the source of a stored tool; with --json everything about it."""
    tool, _ = stored_tool(name)
    if as_json:
        print_json(tool.model_dump())
    else:
        print_line(tool.source_code.rstrip("\r\n"))


@tool_verbs.command("remove")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def remove_tools(*, names: Sequence[str]) -> None:
    """Remove stored tools."""
    for name in names:
        tool, user = stored_tool(name)
        stores.ToolManager().delete_tool_by_id(str(tool.id), user)
        print_row(f"{name}: removed")


# --- Variables ------------------------------------------------------------------------------------------


@click.group("env")
def environment_verbs() -> None:
    """Keep environment variables for the stored tools. Their values are never shown.

    With WASM_SANDBOX_ENCRYPTION_KEY they are encrypted at rest.
    """


@environment_verbs.command("set")
@click.argument("variables", nargs=-1, required=True, metavar="NAME[=VALUE]...")
def set_variables(*, variables: Sequence[str]) -> None:
    """Store variables. The value of a NAME alone is asked for, or read from stdin, so that no shell keeps it."""
    pairs = [variable.partition("=") for variable in variables]
    if sum(not equals for _, equals, _ in pairs) > 1 and not sys.stdin.isatty():
        raise CommandError("env set: stdin holds the value of one variable; give the others as NAME=VALUE")
    values = merge_environment({name: value if equals else _asked(name) for name, equals, value in pairs})
    configs, user = stores.SandboxConfigManager(), stores.LocalUser()
    config = configs.get_or_create_default_sandbox_config("wasm", user)
    for name, value in values.items():
        made = configs.create_or_update_sandbox_env_var(name, value, config.id, user)
        print_row(f"{name}: set, {_kept(made.is_encrypted)}")


@environment_verbs.command("list")
@json_option
def list_variables(*, as_json: bool) -> None:
    """List the stored variables: their names, when each was set, and whether it is encrypted."""
    configs, user = stores.SandboxConfigManager(), stores.LocalUser()
    config = configs.get_sandbox_config_by_type("wasm", user)
    variables = configs.list_sandbox_env_vars(config.id, user) if config else []
    rows = [(v.key, v.updated_at.isoformat(timespec="seconds"), v.is_encrypted) for v in variables]
    if as_json:
        print_json([{"name": name, "set_at": at, "encrypted": encrypted} for name, at, encrypted in rows])
    else:
        _print_columns([(name, at, _kept(encrypted)) for name, at, encrypted in rows])


@environment_verbs.command("unset")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def unset_variables(*, names: Sequence[str]) -> None:
    """Remove stored variables."""
    configs, user = stores.SandboxConfigManager(), stores.LocalUser()
    config = configs.get_sandbox_config_by_type("wasm", user)
    for name in names:
        check_variable(name, "")
        if config is None or not configs.delete_sandbox_env_var(name, config.id, user):
            raise CommandError(f"{name}: there is no such variable (see wasm-sandbox env list)")
        print_row(f"{name}: removed")


def _asked(name: str) -> str:
    """Value that no argument holds: typed unseen on a terminal, else all of stdin without its last line end."""
    if sys.stdin.isatty():
        return str(click.prompt(name, hide_input=True, err=True))
    try:
        text = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        raise CommandError(f"{name}: what stdin holds is not UTF-8 text") from None
    return text.removesuffix("\n").removesuffix("\r")


def _kept(is_encrypted: bool) -> str:
    return "encrypted" if is_encrypted else "not encrypted"


# --- What is printed ------------------------------------------------------------------------------------


def _print_columns(rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows as aligned columns, a line each."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print_row("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
