"""Options that several verbs have, and their callbacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

import wasm_sandbox
from wasm_sandbox.cli.inputs import CommandError, parse_size, read_json_object, read_json_value, read_pairs
from wasm_sandbox.environment import merge_environment
from wasm_sandbox.errors import InvalidEnvironment, InvalidNetwork

if TYPE_CHECKING:
    from wasm_sandbox import Limits, Network

Command = TypeVar("Command", bound=Callable[..., Any])


def _args(_ctx: click.Context, _param: click.Parameter, value: str) -> dict[str, Any]:
    return read_json_object("--args", value)


def _agent_state(_ctx: click.Context, _param: click.Parameter, value: str | None) -> dict[str, Any] | None:
    return None if value is None else read_json_object("--agent-state", value)


def _environment(_ctx: click.Context, _param: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    pairs = read_pairs("--env", values, "give a value", "VALUE")
    try:
        return merge_environment(dict(pairs))
    except InvalidEnvironment as error:
        raise CommandError(f"--env: {error}") from None


def _network(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Network | None:
    if value is None:
        return None
    try:
        return wasm_sandbox.Network.read(value)
    except InvalidNetwork as error:
        raise CommandError(f"--network: {error}") from None


def _inputs(_ctx: click.Context, _param: click.Parameter, values: Sequence[str]) -> dict[str, Any]:
    pairs = read_pairs("--input", values, "give a value in JSON", "5", may_be_empty=False)
    return {name: read_json_value(f"--input {name}", text) for name, text in pairs}


def limits_of(options: Mapping[str, Any]) -> Limits:
    """The limits that `limit_options` give.

    Raises:
        CommandError: if one is out of range.
    """
    from pydantic import ValidationError  # lazy: --help needs none of it

    given = {name: value for name, value in options.items() if value is not None}
    if given.pop("no_fuel"):
        if "fuel" in given:
            raise CommandError("--fuel and --no-fuel exclude each other: give one of them")
        given["fuel"] = None
    try:
        return wasm_sandbox.Limits(**given)
    except ValidationError as errors:
        first = errors.errors()[0]
        option = _LIMIT_OPTIONS[str(first["loc"][0])]
        raise CommandError(f"{option}: {_bound(first, in_bytes=option in _SIZE_OPTIONS)}") from None


def _bound(error: Mapping[str, Any], *, in_bytes: bool) -> str:
    """What is wrong with the value of a limit, its bound in the unit that the option is written in."""
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    for name, bound in error.get("ctx", {}).items():
        if name in words:
            shown = _size_text(int(bound)) if in_bytes else f"{bound:g}"
            return f"must be {words[name]} {shown}"
    return str(error["msg"]).replace("Input should", "must")


def _size_text(size: int) -> str:
    """A size as `parse_size` reads it."""
    for power, unit in ((3, "G"), (2, "M"), (1, "K")):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{unit}"
    return str(size)


_LIMIT_OPTIONS = {
    "fuel": "--fuel",
    "memory_bytes": "--memory",
    "timeout_seconds": "--timeout",
    "output_bytes": "--output-limit",
    "result_bytes": "--result-limit",
    "files_bytes": "--files-limit",
    "file_count": "--file-count",
}
_SIZE_OPTIONS = frozenset({"--memory", "--output-limit", "--result-limit", "--files-limit"})


def options_of(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


limit_options = options_of(
    click.option("--fuel", type=int, metavar="N", help="Units, some ten instructions each.  [default: 60000000000]"),
    click.option("--no-fuel", is_flag=True, help="Count no fuel: only time is limited, and computing is quicker."),
    click.option("--memory", "memory_bytes", type=parse_size, metavar="SIZE", help="Memory.  [default: 256M]"),
    click.option("--timeout", "timeout_seconds", type=float, metavar="S", help="Seconds.  [default: 180]"),
    click.option(
        "--output-limit",
        "output_bytes",
        type=parse_size,
        metavar="SIZE",
        help="Kept of stdout and of stderr, each.  [default: 1M]",
    ),
    click.option(
        "--result-limit",
        "result_bytes",
        type=parse_size,
        metavar="SIZE",
        help="Largest result.  [default: 16M]",
    ),
    click.option(
        "--deterministic",
        is_flag=True,
        help="The same output and fuel every time: fixed clocks, seeded random, no real sleeping.",
    ),
    click.option(
        "--files-limit",
        "files_bytes",
        type=parse_size,
        metavar="SIZE",
        help="All files in memory together.  [default: 64M]",
    ),
    click.option("--file-count", type=int, metavar="N", help="Files and directories.  [default: 1000]"),
)
isolation_option = click.option(
    "--isolation",
    type=click.Choice(["thread", "process"]),
    default="thread",
    show_default=True,
    help="Run the guest on a thread of this process, or in a restricted process.",
)
environment_option = click.option(
    "--env",
    "environ",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_environment,
    help="An environment variable for the guest; may be repeated.",
)
network_option = click.option(
    "--network",
    metavar="FILE|HOST[,HOST]",
    callback=_network,
    help="What the guest may reach: hosts, as api.example.com or *.example.com:8443, or a .toml file.",
)
input_option = click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=JSON",
    callback=_inputs,
    help="A variable that the script finds; may be repeated.",
)
image_option = click.option(
    "--image", metavar="NAME", help="The image to run in (see wasm-sandbox image); by default the default one."
)
requirement_option = click.option(
    "--requirement",
    "requirements",
    multiple=True,
    metavar="REQ",
    help="A package that the tool needs, as pip takes it; may be repeated.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document, nothing else.")
tool_option = click.option("--tool", "name", metavar="NAME", help="The function; by default the file's last one.")
call_options = options_of(
    tool_option,
    click.option(
        "--args",
        default="{}",
        metavar="JSON",
        callback=_args,
        help="The arguments, a JSON object; @FILE reads a file, - reads stdin.",
    ),
    click.option(
        "--agent-state",
        metavar="JSON",
        callback=_agent_state,
        help="For a tool that takes agent_state: a JSON object, @FILE or -.",
    ),
)
