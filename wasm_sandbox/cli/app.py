"""The ``wasm-sandbox`` command: its group of verbs, what becomes of their errors, and how it ends."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

import wasm_sandbox
from wasm_sandbox.cli.bench import bench
from wasm_sandbox.cli.display import complain, write
from wasm_sandbox.cli.images import cache_verbs, image_verbs
from wasm_sandbox.cli.inputs import EXIT_BAD_USAGE, EXIT_HOST, EXIT_INTERRUPTED, CommandError, HostUnfit
from wasm_sandbox.cli.mcp import mcp
from wasm_sandbox.cli.repl import repl
from wasm_sandbox.cli.run import doctor, execute, run, script, warm
from wasm_sandbox.cli.serve import serve
from wasm_sandbox.cli.stores import environment_verbs, tool_verbs
from wasm_sandbox.errors import (
    HostError,
    ImageNotFound,
    InvalidEnvironment,
    InvalidFiles,
    PackageError,
    StoreError,
    UnsupportedIsolation,
)

TRACEBACK_VARIABLE = "WASM_SANDBOX_TRACEBACK"
"""Set it to see the traceback of an internal error."""


class _Verbs(click.Group):
    """Group of verbs; what the library raises for the host's sake becomes one line and an exit code."""

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


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(wasm_sandbox.__version__, prog_name="wasm-sandbox")
def cli() -> None:
    """Run untrusted Python in a CPython on WASI: no files of yours, no network, hard limits.

    \b
    Exit codes: 0 success; 1 the tool failed; 2 bad usage, or arguments that do not fit;
    3 a limit was reached; 4 this host cannot run guests (see wasm-sandbox doctor);
    130 interrupted.
    """


for _verb in (run, execute, repl, script, mcp, serve, warm, doctor, bench):
    cli.add_command(_verb)
for _verbs in (tool_verbs, environment_verbs, image_verbs, cache_verbs):
    cli.add_command(_verbs)


# --- The entry point ------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what others write: click its help, rich its tables
    try:
        code = _run(arguments)
    except KeyboardInterrupt:
        # At once: a guest, or a compiler thread, must not be waited for. Nothing needs tidying up: the
        # cache is only ever changed by renaming complete files, and its lock ends with the process.
        _flush()
        os._exit(EXIT_INTERRUPTED)
    sys.exit(code)


def _run(arguments: Sequence[str] | None) -> int:
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
            write(sys.stderr, traceback.format_exc())  # it may quote a tool
            return 1
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
