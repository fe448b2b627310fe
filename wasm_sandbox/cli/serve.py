"""``wasm-sandbox serve``: guests over HTTP, and the playground."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wasm_sandbox.cli.display import write
from wasm_sandbox.cli.inputs import CommandError, parse_size
from wasm_sandbox.cli.options import isolation_option, limit_options, limits_of

if TYPE_CHECKING:
    from wasm_sandbox.options import Isolation

MISSING = "serve needs Starlette, uvicorn and prometheus-client: pip install 'wasm-sandbox[serve]'"


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port; 0 for a free one.")
@click.option("--token-file", type=Path, metavar="FILE", help="Tokens, in TOML; without one only this machine calls.")
@click.option("--data-dir", type=Path, metavar="DIR", help="Keep sessions there when the server ends.")
@click.option("--concurrency", type=click.IntRange(1), help="Calls at the same time.  [default: 32]")
@click.option("--queue", type=click.IntRange(1), help="Calls of a client that wait.  [default: 256]")
@click.option("--max-body", "body_bytes", type=parse_size, metavar="SIZE", help="Largest request.  [default: 16M]")
@click.option("--max-sessions", "sessions", type=click.IntRange(1), help="Sessions of all clients.  [default: 100]")
@click.option("--drain-seconds", type=click.FloatRange(0), help="Time for calls when it ends.  [default: 30]")
@click.option("--mcp-tools", is_flag=True, help="Offer the stored tools at /mcp, with the stored variables.")
@limit_options
@isolation_option
def serve(
    *,
    host: str,
    port: int,
    token_file: Path | None,
    data_dir: Path | None,
    mcp_tools: bool,
    isolation: Isolation,
    **options: Any,
) -> None:
    """Serve tools, programs, sessions and a playground over HTTP.

    Limits are the ceiling for whoever comes without a token; those of tokens stand in their file. SIGTERM and Ctrl-C
    let calls end first; a second one ends at once.
    """
    try:
        from wasm_sandbox.serve import Settings, Tokens  # lazy: an extra
        from wasm_sandbox.serve import serve as run_server  # lazy: an extra
    except ImportError as error:
        raise CommandError(f"{MISSING} ({error.name} is missing)") from error

    own = {name: options.pop(name) for name in _SETTINGS}
    given = {name: value for name, value in own.items() if value is not None}
    if (body := given.get("body_bytes")) is not None:
        given["bodies_bytes"] = max(4 * body, 64 << 20)
    try:
        settings = Settings(
            host=host,
            port=port,
            tokens=None if token_file is None else Tokens.read(token_file),
            limits=limits_of(options),
            isolation=isolation,
            mcp_tools=mcp_tools,
            data_directory=data_dir,
            **given,
        )
    except ValueError as error:
        raise CommandError(str(error)) from None
    run_server(settings, ready=_tell)


_SETTINGS = ("concurrency", "queue", "body_bytes", "sessions", "drain_seconds")


def _tell(address: str) -> None:
    write(sys.stdout, f"{address}\n")
    sys.stdout.flush()
