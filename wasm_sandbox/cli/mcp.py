"""``wasm-sandbox mcp``: a server of the Model Context Protocol, for agents."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

import wasm_sandbox
from wasm_sandbox.cli.display import complain
from wasm_sandbox.cli.inputs import CommandError
from wasm_sandbox.cli.options import (
    environment_option,
    image_option,
    isolation_option,
    limit_options,
    limits_of,
    network_option,
)

if TYPE_CHECKING:
    from wasm_sandbox import Network
    from wasm_sandbox.options import Isolation


@click.command()
@click.option("--http", "is_http", is_flag=True, help="Serve over HTTP, and not over stdin and stdout.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at, with --http.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port, with --http.")
@click.option("--token-file", metavar="FILE", help="Bearer tokens, with --http: one is asked of each client.")
@click.option(
    "--max-sessions", type=click.IntRange(0, 1000), default=16, show_default=True, help="Sessions of a client."
)
@click.option(
    "--idle-seconds",
    type=click.FloatRange(0, 86_400, min_open=True),
    default=900.0,
    show_default=True,
    help="Seconds after which a session that is not used is closed.",
)
@environment_option
@image_option
@limit_options
@isolation_option
@network_option
def mcp(
    *,
    is_http: bool,
    host: str,
    port: int,
    token_file: str | None,
    max_sessions: int,
    idle_seconds: float,
    environ: dict[str, str],
    image: str | None,
    isolation: Isolation,
    network: Network | None,
    **limits: Any,
) -> None:
    """Serve run_python, reset and the stored tools to an agent (Model Context Protocol).

    By default over stdin and stdout, for the program that started it; with --http at http://127.0.0.1:8000/mcp.
    """
    checked = limits_of(limits)
    try:
        from wasm_sandbox.mcp import BoxCalls, Service, serve_stdio  # lazy: an extra, for this verb only
    except ImportError as error:
        raise CommandError(f"mcp: the MCP SDK is needed ({error}): pip install 'wasm-sandbox[mcp]'") from None
    if token_file is not None and not is_http:
        raise CommandError("--token-file: only with --http; over stdin and stdout there is one client")
    box = wasm_sandbox.AsyncSandbox(limits=checked, env=environ, image=image, isolation=isolation, network=network)
    service = Service(BoxCalls(box, max_sessions=max_sessions, idle_seconds=idle_seconds))
    if not is_http:
        serve_stdio(service)
        return
    from wasm_sandbox.mcp import Tokens, serve_http  # lazy: uvicorn, for this option only

    try:
        tokens = None if token_file is None else Tokens.read(token_file)
        serve_http(service, host, port, tokens, announce=lambda url: complain(f"listening at {url}"))
    except ValueError as error:
        raise CommandError(str(error)) from None
    sys.exit(0)
