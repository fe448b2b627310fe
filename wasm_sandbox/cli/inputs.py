"""What a user hands in (files, sizes, JSON, pairs), and the errors that end the command."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import wasm_sandbox
from wasm_sandbox.cli.display import complain
from wasm_sandbox.errors import ToolSourceError
from wasm_sandbox.sizes import read_size
from wasm_sandbox.tool import TooCostly, parse_module, read_json

if TYPE_CHECKING:
    from wasm_sandbox import Tool

# Of a run that ended, `display.exit_code` says the code.
EXIT_BAD_USAGE = 2
EXIT_HOST = 4
EXIT_INTERRUPTED = 130


class CommandError(click.ClickException):
    """Ends the command with one line on stderr."""

    exit_code = EXIT_BAD_USAGE

    def show(self, file: Any = None) -> None:
        complain(self.message)


class HostUnfit(CommandError):
    """This host cannot run guests."""

    exit_code = EXIT_HOST


def parse_size(text: str) -> int:
    """Number of bytes that an option gives.

    Raises:
        click.BadParameter: if the text is no size.
    """
    try:
        return read_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def read_source(file: str) -> str:
    """Text of a Python file, or of stdin for ``-``.

    Raises:
        CommandError: if it cannot be read, or is no Python text.
    """
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except FileNotFoundError:
        raise CommandError(f"{file}: there is no such file; name a .py file") from None
    except (OSError, ValueError) as error:
        raise CommandError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CommandError(f"{file}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    if "\0" in text:
        raise CommandError(f"{file}: holds a NUL character, so it is no Python text")
    return text


def load_tool(file: str, name: str | None, args: Mapping[str, Any]) -> Tool:
    """Tool in a file, which is read and never executed here.

    Args:
        file: its path, or ``-`` for stdin.
        name: of the function; by default the last one.
        args: what the tool will be called with.

    Raises:
        CommandError: if there is no such tool.
    """
    text = read_source(file)
    try:
        tool = wasm_sandbox.Tool.from_source(text, name)
    except ToolSourceError as error:
        found = name or _last_function(text)
        if not found or not _may_be_newer(text):
            raise CommandError(f"{file}: {error}") from None
        # The guest's Python may be newer than this one: it decides, and shows the error at its place.
        parameters = {"type": "object", "properties": {argument: {} for argument in args}}
        return wasm_sandbox.Tool(name=found, source_code=text, json_schema={"parameters": parameters})
    tell_left_out(f"{file}: {tool.name}", tool, args)
    return tool


def tell_left_out(name: str, tool: Tool, args: Mapping[str, Any]) -> None:
    """Complain of arguments that a tool does not take: they are dropped, as agents rely on, but may be mistyped."""
    parameters = (tool.json_schema or {}).get("parameters", {})
    known = parameters.get("properties", {})
    if tool.derived and parameters.get("additionalProperties"):
        return
    if unknown := [argument for argument in args if argument not in known]:
        has = ", ".join(known) or "none"
        complain(f"{name}: there is no parameter {', '.join(unknown)}, so it is left out (it has: {has})")


def _may_be_newer(text: str) -> bool:
    """Whether this Python cannot parse a source that it may read, and the guest's, which may be newer, perhaps can."""
    try:
        parse_module(text)
    except TooCostly:
        return False
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return True
    return False


def _last_function(text: str) -> str | None:
    names = re.findall(r"^(?:async[ \t]+)?def[ \t]+(\w+)", text, re.MULTILINE)
    return names[-1] if names else None


def read_json_object(option: str, text: str) -> dict[str, Any]:
    """JSON object that an option gives: as text, as ``@FILE``, or on stdin (``-``).

    Raises:
        CommandError: if it cannot be read, or is no JSON object.
    """
    source = option
    try:
        if text == "-":
            source = f"{option} (stdin)"
            text = sys.stdin.buffer.read().decode("utf-8-sig")
        elif text.startswith("@"):
            source = f"{option} {text}"
            text = Path(text[1:]).read_bytes().decode("utf-8-sig")
        value = read_json(text)
    except OSError as error:
        raise CommandError(f"{source}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{source}: is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise CommandError(f'{source}: must be a JSON object such as {{"x": 1}}, not {type(value).__name__}')
    return value


def read_json_value(source: str, text: str) -> Any:
    """JSON value that an option gives.

    Raises:
        CommandError: if it is none.
    """
    try:
        return read_json(text)
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{source}: is not JSON: {error}") from None


def read_pairs(
    option: str, values: Sequence[str], advice: str, example: str, *, may_be_empty: bool = True
) -> list[tuple[str, str]]:
    """The two sides of every ``NAME=VALUE`` that an option gives.

    Args:
        option: its name.
        values: what it gives.
        advice: what to do where there is no value.
        example: a value, as one would write it.
        may_be_empty: whether there may be nothing behind the ``=``.

    Raises:
        CommandError: if one has no value.
    """
    pairs = []
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not (value or may_be_empty):
            raise CommandError(f"{option} {name}: {advice}, as in {option} {name}={example}")
        pairs.append((name, value))
    return pairs
