"""Verbs that run tools and scripts, print what would be run, and see to it that this host can run them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import wasm_sandbox
from wasm_sandbox import images, sandbox
from wasm_sandbox.cli.display import print_line, show, write, write_json
from wasm_sandbox.cli.file_options import file_options, save_files, with_output
from wasm_sandbox.cli.inputs import CommandError, load_tool, read_source, tell_left_out
from wasm_sandbox.cli.options import (
    call_options,
    environment_option,
    image_option,
    input_option,
    isolation_option,
    json_option,
    limit_options,
    limits_of,
    network_option,
    requirement_option,
)
from wasm_sandbox.cli.progress import in_sight, ready_image
from wasm_sandbox.cli.stores import is_tool_name, stored_tool
from wasm_sandbox.errors import BadArguments, UnsupportedToolError
from wasm_sandbox.files import HostDir, check_files

if TYPE_CHECKING:
    from wasm_sandbox import Network, Tool
    from wasm_sandbox.options import Isolation


def find_tool(file: str, name: str | None, args: Mapping[str, Any]) -> tuple[Tool, Any]:
    """Tool in a file, or the stored one of that name; and the user whose variables it is given, if any.

    Raises:
        CommandError: if there is no such tool.
    """
    if not is_tool_name(file):
        return load_tool(file, name, args), None
    if name is not None:
        raise CommandError(f"{file}: --tool chooses a function of a FILE, and this is a stored tool")
    tool, user = stored_tool(file)
    tell_left_out(file, tool, args)
    return tool, user


@click.command()
@click.argument("file")
@call_options
@environment_option
@file_options
@image_option
@requirement_option
@click.option("--build-images", is_flag=True, help="Build an image with what the tool requires, if there is none.")
@limit_options
@isolation_option
@network_option
@json_option
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
    network: Network | None,
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
    from wasm_sandbox.options import check_isolation  # lazy: loads pydantic

    checked = limits_of(limits)
    check_isolation(isolation, mounts)
    tool, user = find_tool(file, name, args)
    if requirements:
        tool = tool.model_copy(update={"pip_requirements": [*(tool.pip_requirements or ()), *requirements]})
    required = tool.pip_requirements
    chosen = in_sight(lambda step: images.choose_image(image, required, may_build=build_images, progress=step))
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
        network=network,
        agent_state=agent_state,
        additional_env_vars=environ,
    )
    code = show(sandbox.Output.of(result), file if user else f"{file}: {tool.name}", as_json=as_json)
    save_files(result, output_dir, quiet=as_json)
    sys.exit(code)


@click.command("exec")
@click.argument("script")
@input_option
@environment_option
@file_options
@image_option
@limit_options
@isolation_option
@network_option
@json_option
def execute(
    *,
    script: str,
    inputs: dict[str, Any],
    environ: dict[str, str],
    files: dict[str, bytes] | None,
    output_dir: str | None,
    mounts: dict[str, HostDir] | None,
    image: str | None,
    isolation: Isolation,
    network: Network | None,
    as_json: bool,
    **limits: Any,
) -> None:
    """Run SCRIPT, any Python program, or stdin (-), in the guest.

    Its output is passed on, byte for byte, when it ends. A script that writes a framed result, as the
    generated ones do, has its result shown as by run; any other needs no result to succeed. --json prints
    the value of its last expression, too, and what it displayed.
    """
    from wasm_sandbox.options import check_isolation, check_network  # lazy: loads pydantic

    checked = limits_of(limits)
    check_isolation(isolation, mounts)
    text = read_source(script)
    given = check_files(with_output(files, output_dir), mounts, checked)
    chosen = images.image_of(image)
    ready_image(chosen)
    source = chosen.source if chosen else None
    name = "<stdin>" if script == "-" else Path(script).name
    options: dict[str, Any] = {"environ": environ, "limits": checked, "given": given, "source": source}
    options |= {"isolation": isolation, "network": network}
    own = chosen is None or chosen.has_own_guest
    check_network(network, own)
    if inputs or as_json:
        try:
            output = sandbox.run_program(text, name=name, inputs=inputs, has_own_guest=own, **options)
        except BadArguments as error:
            raise CommandError(f"--input: {error}") from None
    else:
        output = sandbox.run_script(text, name=name, **options)
    code = show(output, "stdin" if script == "-" else script, as_json=as_json)
    save_files(output.result, output_dir, quiet=as_json)
    sys.exit(code)


@click.command()
@click.argument("file")
@call_options
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
    import asyncio  # lazy: slow, and for this verb only

    tool, _ = find_tool(file, name, args)
    box = wasm_sandbox.WasmToolSandbox(tool.name, args, None, None, tool_object=tool)
    try:
        text = asyncio.run(box.generate_execution_script(agent_state, wrap_print_with_markers=not no_markers))
    except (BadArguments, UnsupportedToolError) as error:
        raise CommandError(f"{file}: {tool.name}: {error}") from None
    write(sys.stdout, text.encode())  # a source is UTF-8


@click.command()
@click.option("--image", "named", metavar="NAME", help="The image; by default the default one.")
@click.option("--no-fuel", is_flag=True, help="Also the one for runs whose fuel is not counted.")
def warm(named: str | None, no_fuel: bool) -> None:
    """Prepare the guest image now, so that the first run need not; with --image another one than the default."""
    chosen = images.image_of(named)
    for counts_fuel in (True, False) if no_fuel else (True,):
        image = ready_image(chosen, counts_fuel)
        which = "" if counts_fuel else ", without fuel,"
        print_line(f"image {image.id[:16]}{which} is ready: {image.path}")


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Say what is installed, and try whether this host is fit.

    Shows the guest module and the image in use, the cache, sizes and versions, and runs a trivial guest.
    Exits with 0 if the host is fit, else with 1; a check that fails says what to do.
    """
    from wasm_sandbox.cli.doctor import examine  # lazy: 10 ms (importlib.metadata), for this verb only

    report = examine(ready_image)
    if as_json:
        write_json(report.to_json())
    else:
        write(sys.stdout, report.to_text())
    sys.exit(0 if report.fit else 1)
