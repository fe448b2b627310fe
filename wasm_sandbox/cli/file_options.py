"""The options about files: what goes into the guest, and where what it made is saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wasm_sandbox.cli.display import complain
from wasm_sandbox.cli.inputs import read_pairs
from wasm_sandbox.cli.options import options_of
from wasm_sandbox.cli.saving import save_below
from wasm_sandbox.errors import InvalidFiles
from wasm_sandbox.files import HostDir

if TYPE_CHECKING:
    from wasm_sandbox import ToolExecutionResult


def _pairs(option: str, values: Sequence[str]) -> list[tuple[str, str]]:
    return read_pairs(option, values, "say what it is on the host", "PATH", may_be_empty=False)


def _files(_ctx: click.Context, _param: click.Parameter, values: Sequence[str]) -> dict[str, bytes] | None:
    files = {}
    for guest, host in _pairs("--file", values):
        try:
            files[guest] = Path(host).read_bytes()
        except (OSError, ValueError) as error:
            raise InvalidFiles(
                f"--file {guest}={host}: cannot be read: {getattr(error, 'strerror', None) or error}"
            ) from None
    return files or None


def _mounts(_ctx: click.Context, _param: click.Parameter, values: Sequence[str]) -> dict[str, HostDir] | None:
    mounts = {}
    for guest, host in _pairs("--mount", values):
        writable = host.endswith(":rw")
        mounts[guest] = HostDir(host.removesuffix(":rw").removesuffix(":ro"), read_only=not writable)
    return mounts or None


file_options = options_of(
    click.option(
        "--file",
        "files",
        multiple=True,
        metavar="GUEST=HOST",
        callback=_files,
        help="Give the guest the file HOST, in memory, as GUEST (an absolute path); may be repeated.",
    ),
    click.option(
        "--output-dir",
        metavar="DIR",
        help="Save there what files the tool created or changed, by their paths in the guest.",
    ),
    click.option(
        "--mount",
        "mounts",
        multiple=True,
        metavar="GUEST=HOST[:rw]",
        callback=_mounts,
        help="Show the guest a directory of the host, to read, or with :rw to change; may be repeated.",
    ),
)


def with_output(files: Mapping[str, bytes] | None, output_dir: str | None) -> Mapping[str, bytes] | None:
    """Files to give the guest: where its files are to be saved it has a file system, if only an empty one."""
    return {} if files is None and output_dir else files


def save_files(result: ToolExecutionResult, output_dir: str | None, *, quiet: bool) -> None:
    """Write a result's files below a directory, or tell that there are some.

    Raises:
        InvalidFiles: if one has a name that is not safe, then none is saved; or if one cannot be written.
    """
    if not result.files:
        return
    if output_dir is None:
        if not quiet:
            complain(f"files written in memory: {', '.join(result.files)}; save them with --output-dir DIR")
        return
    save_below(output_dir, result.files)
