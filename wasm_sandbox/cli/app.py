"""The ``wasm-sandbox`` command: every verb is one call into the library."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

import wasm_sandbox
from wasm_sandbox.cli.bench import bench
from wasm_sandbox.cli.file_options import file_options, save_files, with_output
from wasm_sandbox.cli.images import cache_verbs, image_verbs
from wasm_sandbox.cli.stores import environment_verbs, is_tool_name, stored_tool, tool_verbs
from wasm_sandbox.errors import (
    HostError,
    ImageNotFound,
    InvalidEnvironment,
    InvalidFiles,
    PackageError,
    StoreError,
    UnsupportedIsolation,
)
from wasm_sandbox.sizes import read_size

# What is heavy (wasmtime, pydantic, rich) is imported where it is used, as the package's public names are:
# `--help` and `--version` need none of it.
if TYPE_CHECKING:
    from wasm_sandbox.files import HostDir
    from wasm_sandbox.limits import Limits
    from wasm_sandbox.options import Isolation
    from wasm_sandbox.tool.definition import Tool

# Of a run that ended, `display.exit_code` says the code.
EXIT_BAD_USAGE = 2
EXIT_HOST = 4
EXIT_INTERRUPTED = 130

TRACEBACK_VARIABLE = "WASM_SANDBOX_TRACEBACK"
"""Set it to see the traceback of an internal error."""

Command = TypeVar("Command", bound=Callable[..., Any])


class CommandError(click.ClickException):
    """Ends the command with one line on stderr."""

    exit_code = EXIT_BAD_USAGE

    def show(self, file: Any = None) -> None:
        from wasm_sandbox.cli.display import complain

        complain(self.message)


class HostUnfit(CommandError):
    """This host cannot run guests."""

    exit_code = EXIT_HOST


class _Verbs(click.Group):
    """Turns what the library raises for the host's sake into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (
            InvalidEnvironment,
            InvalidFiles,
            ImageNotFound,
            PackageError,
            StoreError,
            UnsupportedIsolation,
        ) as error:
            raise CommandError(str(error)) from error
        except HostError as error:
            raise HostUnfit(str(error)) from error


# --- What the user hands in -----------------------------------------------------------------------------


def parse_size(text: str) -> int:
    """As `read_size`, for an option."""
    try:
        return read_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def read_source(file: str) -> str:
    """The text of a Python file, or of stdin for ``-``."""
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
    """The tool in a file, which is read and never executed here."""
    from wasm_sandbox.errors import ToolSourceError

    text = read_source(file)
    try:
        tool = wasm_sandbox.Tool.from_source(text, name)
    except ToolSourceError as error:
        found = name or _last_function(text)
        if not found or _parses(text):
            raise CommandError(f"{file}: {error}") from None
        # The guest's Python may be newer than this one: it decides, and shows the error at its place.
        parameters = {"type": "object", "properties": {argument: {} for argument in args}}
        return wasm_sandbox.Tool(name=found, source_code=text, json_schema={"parameters": parameters})
    _tell_left_out(f"{file}: {tool.name}", tool, args)
    return tool


def find_tool(file: str, name: str | None, args: Mapping[str, Any]) -> tuple[Tool, Any]:
    """The tool in a file, or the stored one of that name; and the user whose variables it is given, if any."""
    if not is_tool_name(file):
        return load_tool(file, name, args), None
    if name is not None:
        raise CommandError(f"{file}: --tool chooses a function of a FILE, and this is a stored tool")
    tool, user = stored_tool(file)
    _tell_left_out(file, tool, args)
    return tool, user


def _tell_left_out(name: str, tool: Tool, args: Mapping[str, Any]) -> None:
    """What a tool does not take is dropped, as agents rely on; but a user may have mistyped a name."""
    from wasm_sandbox.cli.display import complain

    known = (tool.json_schema or {}).get("parameters", {}).get("properties", {})
    if unknown := [argument for argument in args if argument not in known]:
        has = ", ".join(known) or "none"
        complain(f"{name}: there is no parameter {', '.join(unknown)}, so it is left out (it has: {has})")


def _parses(text: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _last_function(text: str) -> str | None:
    names = re.findall(r"^(?:async[ \t]+)?def[ \t]+(\w+)", text, re.MULTILINE)
    return names[-1] if names else None


def read_json_object(option: str, text: str) -> dict[str, Any]:
    """The JSON object that an option gives: as text, as ``@FILE``, or on stdin (``-``)."""
    source = option
    try:
        if text == "-":
            source = f"{option} (stdin)"
            text = sys.stdin.buffer.read().decode("utf-8-sig")
        elif text.startswith("@"):
            source = f"{option} {text}"
            text = Path(text[1:]).read_bytes().decode("utf-8-sig")
        value = json.loads(text)
    except OSError as error:
        raise CommandError(f"{source}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{source}: is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise CommandError(f'{source}: must be a JSON object such as {{"x": 1}}, not {type(value).__name__}')
    return value


def _args(_ctx: click.Context, _param: click.Parameter, value: str) -> dict[str, Any]:
    return read_json_object("--args", value)


def _agent_state(_ctx: click.Context, _param: click.Parameter, value: str | None) -> dict[str, Any] | None:
    return None if value is None else read_json_object("--agent-state", value)


def _environment(_ctx: click.Context, _param: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    from wasm_sandbox.environment import merge_environment

    pairs = [value.partition("=") for value in values]
    if wrong := [name for name, equals, _ in pairs if not equals]:
        raise CommandError(f"--env {wrong[0]}: give a value, as in --env {wrong[0]}=VALUE")
    try:
        return merge_environment({name: value for name, _, value in pairs})
    except InvalidEnvironment as error:
        raise CommandError(f"--env: {error}") from None


def _limits(options: Mapping[str, Any]) -> Limits:
    from pydantic import ValidationError

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
            return f"must be {words[name]} {_size_text(int(bound)) if in_bytes else f'{bound:g}'}"
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


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


_limit_options = _options(
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
_isolation_option = click.option(
    "--isolation",
    type=click.Choice(["thread", "process"]),
    default="thread",
    show_default=True,
    help="Run the guest on a thread of this process, or in a restricted process.",
)
_environment_option = click.option(
    "--env",
    "environ",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_environment,
    help="An environment variable for the guest; may be repeated.",
)
_image_option = click.option(
    "--image", metavar="NAME", help="The image to run in (see wasm-sandbox image); by default the default one."
)
_requirement_option = click.option(
    "--requirement",
    "requirements",
    multiple=True,
    metavar="REQ",
    help="A package that the tool needs, as pip takes it; may be repeated.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document, nothing else.")
_call_options = _options(
    click.option("--tool", "name", metavar="NAME", help="The function; by default the file's last one."),
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


# --- The verbs ------------------------------------------------------------------------------------------


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(wasm_sandbox.__version__, prog_name="wasm-sandbox")
def cli() -> None:
    """Run untrusted Python in a CPython on WASI: no files, no network, hard limits.

    \b
    Exit codes: 0 success; 1 the tool failed; 2 bad usage, or arguments that do not fit;
    3 a limit was reached; 4 this host cannot run guests (see wasm-sandbox doctor);
    130 interrupted.
    """


@cli.command()
@click.argument("file")
@_call_options
@_environment_option
@file_options
@_image_option
@_requirement_option
@click.option("--build-images", is_flag=True, help="Build an image with what the tool requires, if there is none.")
@_limit_options
@_isolation_option
@_json_option
def run(
    *,
    file: str,
    name: str | None,
    args: dict[str, Any],
    agent_state: dict[str, Any] | None,
    environ: dict[str, str],
    files: dict[str, bytes] | None,
    output_dir: str | None,
    mounts: dict[str, HostDir] | None,
    image: str | None,
    requirements: Sequence[str],
    build_images: bool,
    isolation: Isolation,
    as_json: bool,
    **limits: Any,
) -> None:
    """Run the tool in FILE, a .py file, and print its result.

    FILE may be the name of a stored tool instead (see wasm-sandbox tool). That is given the stored variables
    (see wasm-sandbox env); --env wins over them.

    What the tool prints goes to stdout and stderr when it ends, then its result to stdout: a string as it
    is, anything else as JSON (what JSON lacks as strings: Decimal, dates, ...). --json prints the whole
    result instead: status, value, agent state, output, error, usage and files (their content as base64).
    """
    from wasm_sandbox.cli.display import show
    from wasm_sandbox.cli.progress import in_sight, ready_image
    from wasm_sandbox.images.selection import choose_image
    from wasm_sandbox.options import check_isolation
    from wasm_sandbox.sandbox import Output

    checked = _limits(limits)
    check_isolation(isolation, image=image, mounts=mounts)
    tool, user = find_tool(file, name, args)
    if requirements:
        tool = tool.model_copy(update={"pip_requirements": [*(tool.pip_requirements or ()), *requirements]})
    required, only_default = tool.pip_requirements, isolation == "process"
    chosen = in_sight(
        lambda step: choose_image(image, required, may_build=build_images, only_default=only_default, progress=step)
    )
    ready_image(chosen)
    result = wasm_sandbox.run_tool(
        tool,
        args,
        user=user,
        tool_id=tool.id,
        limits=checked,
        image=chosen,
        files=with_output(files, output_dir),
        mounts=mounts,
        isolation=isolation,
        agent_state=agent_state,
        additional_env_vars=environ,
    )
    code = show(Output.of(result), file if user else f"{file}: {tool.name}", as_json=as_json)
    save_files(result, output_dir, quiet=as_json)
    sys.exit(code)


@cli.command("exec")
@click.argument("script")
@_environment_option
@file_options
@_image_option
@_limit_options
@_isolation_option
@_json_option
def execute(
    *,
    script: str,
    environ: dict[str, str],
    files: dict[str, bytes] | None,
    output_dir: str | None,
    mounts: dict[str, HostDir] | None,
    image: str | None,
    isolation: Isolation,
    as_json: bool,
    **limits: Any,
) -> None:
    """Run SCRIPT, any Python program, or stdin (-), in the guest.

    Its output is passed on, byte for byte, when it ends. A script that writes a framed result, as the
    generated ones do, has its result shown as by run; any other needs no result to succeed.
    """
    from wasm_sandbox.cli.display import show
    from wasm_sandbox.cli.progress import ready_image
    from wasm_sandbox.files import check_files
    from wasm_sandbox.images.image import image_of
    from wasm_sandbox.options import check_isolation
    from wasm_sandbox.sandbox.plain_script import run_script

    checked = _limits(limits)
    check_isolation(isolation, image=image, mounts=mounts)
    text = read_source(script)
    given = check_files(with_output(files, output_dir), mounts, checked)
    chosen = image_of(image)
    ready_image(chosen)
    source = chosen.source if chosen else None
    name = "<stdin>" if script == "-" else Path(script).name
    output = run_script(
        text, name=name, environ=environ, limits=checked, given=given, source=source, isolation=isolation
    )
    code = show(output, "stdin" if script == "-" else script, as_json=as_json)
    save_files(output.result, output_dir, quiet=as_json)
    sys.exit(code)


@cli.command()
@click.argument("file")
@_call_options
@click.option("--no-markers", is_flag=True, help="End in an expression instead of writing the framed result.")
def script(
    *,
    file: str,
    name: str | None,
    args: dict[str, Any],
    agent_state: dict[str, Any] | None,
    no_markers: bool,
) -> None:
    """Print the script that runs the tool in FILE, or the stored tool of that name; nothing is run."""
    import asyncio

    from wasm_sandbox.cli.display import write
    from wasm_sandbox.errors import BadArguments, UnsupportedToolError

    tool, _ = find_tool(file, name, args)
    sandbox = wasm_sandbox.WasmToolSandbox(tool.name, args, None, None, tool_object=tool)
    try:
        text = asyncio.run(sandbox.generate_execution_script(agent_state, wrap_print_with_markers=not no_markers))
    except (BadArguments, UnsupportedToolError) as error:
        raise CommandError(f"{file}: {tool.name}: {error}") from None
    write(sys.stdout, text)


@cli.command()
@click.option("--image", "named", metavar="NAME", help="The image; by default the default one.")
@click.option("--no-fuel", is_flag=True, help="Also the one for runs whose fuel is not counted.")
def warm(named: str | None, no_fuel: bool) -> None:
    """Prepare the guest image now, so that the first run need not; with --image another one than the default."""
    from wasm_sandbox.cli.display import write
    from wasm_sandbox.cli.progress import ready_image
    from wasm_sandbox.images.image import image_of

    chosen = image_of(named)
    for counts_fuel in (True, False) if no_fuel else (True,):
        image = ready_image(chosen, counts_fuel)
        which = "" if counts_fuel else ", without fuel,"
        write(sys.stdout, f"image {image.id[:16]}{which} is ready: {image.path}\n")


@cli.command()
@_json_option
def doctor(as_json: bool) -> None:
    """Say what is installed, and try whether this host is fit.

    Shows the guest module and the image in use, the cache, sizes and versions, and runs a trivial guest.
    Exits with 0 if the host is fit, else with 1; a check that fails says what to do.
    """
    from wasm_sandbox.cli.display import write
    from wasm_sandbox.cli.doctor import examine

    report = examine()
    write(sys.stdout, report.to_json() if as_json else report.to_text())
    sys.exit(0 if report.fit else 1)


cli.add_command(tool_verbs)
cli.add_command(environment_verbs)
cli.add_command(image_verbs)
cli.add_command(cache_verbs)
cli.add_command(bench)


# --- The entry point ------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit."""
    try:
        code = _run(arguments)
    except KeyboardInterrupt:
        # At once: a guest, or a compiler thread, must not be waited for. Nothing needs tidying up: the
        # cache is only ever changed by renaming complete files, and its lock ends with the process.
        _flush()
        os._exit(EXIT_INTERRUPTED)
    sys.exit(code)


def _run(arguments: Sequence[str] | None) -> int:
    from wasm_sandbox.cli.display import complain

    try:
        code = cli.main(arguments, prog_name="wasm-sandbox", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return EXIT_BAD_USAGE
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "wasm-sandbox"
        complain(f"{error.format_message().rstrip('.')} (see {command} --help)")
        return EXIT_BAD_USAGE
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort as error:  # what click makes of Ctrl-C
        raise KeyboardInterrupt from error
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        if isinstance(error, OSError):  # files are read with care, so it is an output that cannot be written
            complain(f"the output cannot be written: {error.strerror or error}")
        else:
            complain(f"{type(error).__name__}: {error} (a defect; {TRACEBACK_VARIABLE}=1 shows where)")
        return EXIT_HOST


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, AttributeError):  # a stream that was closed by the caller is None
            stream.flush()


if __name__ == "__main__":
    main()
