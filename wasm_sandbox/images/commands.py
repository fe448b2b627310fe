"""pip and uv as processes: what of their configuration counts, and what they may take of this host."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from wasm_sandbox.errors import PackageError

if sys.platform == "linux":
    import resource

MAX_DISK_BYTES = 2 << 30
"""Of all that is downloaded, and that uv unpacks, for one image."""
MAX_PROCESS_BYTES = 2 << 30
"""Of data of one installer's process (on Linux): it reads the metadata of a wheel whole."""
_MAX_SAID = 4 << 20
_LOOK_SECONDS = 0.1

_PIP_OPTIONS = frozenset(
    {
        "cache-dir", "cert", "client-cert", "default-timeout", "extra-index-url", "find-links", "index-url",
        "keyring-provider", "no-cache-dir", "no-index", "proxy", "retries", "timeout", "trusted-host",
        "uploaded-prior-to", "use-deprecated", "use-feature",
    }
)  # fmt: skip
_UV_OPTIONS = frozenset(
    {
        "CONFIG_FILE", "CREDENTIALS_DIR", "DEFAULT_INDEX", "EXCLUDE_NEWER", "EXTRA_INDEX_URL", "FIND_LINKS",
        "HTTP_CONNECT_TIMEOUT", "HTTP_RETRIES", "HTTP_TIMEOUT", "INDEX", "INDEX_STRATEGY", "INDEX_URL",
        "INSECURE_HOST", "KEYRING_PROVIDER", "NATIVE_TLS", "NO_CONFIG", "NO_INDEX", "OFFLINE", "REQUEST_TIMEOUT",
        "SYSTEM_CERTS",
    }
)  # fmt: skip
"""What says where the index is and how it is reached. The rest would have other things installed (requirement,
constraint, override), or have them built (no-binary), or have it done by another Python."""


class Said(NamedTuple):
    """How a command ended."""

    code: int
    output: str
    errors: str

    @property
    def text(self) -> str:
        return f"{self.output}\n{self.errors}"


def run(command: Sequence[str], name: str, environment: Mapping[str, str], directory: Path, deadline: float) -> Said:
    """Run an installer.

    Args:
        command: what to run.
        name: what messages call it.
        environment: all of its environment variables.
        directory: where it keeps its files; what is in it is bounded.
        deadline: when it must have ended, on the monotonic clock.

    Raises:
        PackageError: if it cannot be started, or takes too much time or disk.
    """
    places = {variable: str(directory) for variable in ("TMPDIR", "TEMP", "TMP")}
    output, errors = directory / "stdout", directory / "stderr"
    try:
        with output.open("wb") as to_output, errors.open("wb") as to_errors:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=to_output, stderr=to_errors, env={**environment, **places}
            )
            with process:
                try:
                    _bound(process.pid)
                    _wait(process, name, directory, deadline)
                finally:
                    process.kill()
        return Said(process.returncode, _read(output), _read(errors))
    except OSError as error:
        raise PackageError(f"{name} cannot be started: {error.strerror or error}") from None


def _bound(process: int) -> None:
    if sys.platform == "linux":
        with suppress(OSError, ValueError):  # it has ended, or has a lower bound of its own
            resource.prlimit(process, resource.RLIMIT_DATA, (MAX_PROCESS_BYTES, MAX_PROCESS_BYTES))


def _wait(process: subprocess.Popen[bytes], name: str, directory: Path, deadline: float) -> None:
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK_SECONDS)
            return
        if time.monotonic() > deadline:
            raise PackageError(f"{name} did not end in time")
        if _size(directory) > MAX_DISK_BYTES:
            raise PackageError(f"{name} downloads or unpacks more than {MAX_DISK_BYTES >> 20} MiB")


def _size(directory: Path) -> int:
    """Bytes of all files below a directory, which may change at any time."""
    size = 0
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    size += _size(Path(entry.path))
                else:
                    size += entry.stat(follow_symlinks=False).st_size
    return size


def _read(path: Path) -> str:
    """The end of what was printed."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _MAX_SAID))
        return file.read().decode("utf-8", "replace")


def pip_environment(listed: str) -> dict[str, str]:
    """This process's environment, with what counts of pip's configuration in variables, and no configuration file.

    Args:
        listed: output of ``pip config list``.
    """
    settings: dict[str, str] = {}
    lines = [line.partition("=") for line in listed.splitlines()]
    for section in ("global", "download", ":env:"):  # the later one wins, as in pip
        for key, _, value in lines:
            option = key.removeprefix(f"{section}.")
            if option != key and option in _PIP_OPTIONS:
                with suppress(ValueError, SyntaxError):
                    settings[option] = str(ast.literal_eval(value))
    variables = {f"PIP_{option.upper().replace('-', '_')}": value for option, value in settings.items()}
    return {**_without("PIP_"), **variables, "PIP_CONFIG_FILE": os.devnull}


def pip_listing_environment() -> dict[str, str]:
    """This process's environment for ``pip config list``: no variable that has something else done.

    A file that names another Python has pip started anew in that one, unless a variable names this one.
    """
    kept = {f"PIP_{option.upper().replace('-', '_')}" for option in _PIP_OPTIONS} | {"PIP_CONFIG_FILE"}
    variables = {name: os.environ[name] for name in kept if name in os.environ}
    return {**_without("PIP_"), **variables, "PIP_PYTHON": sys.executable}


def uv_environment() -> dict[str, str]:
    """This process's environment, with what counts of uv's variables."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.removeprefix("UV_") in _UV_OPTIONS or name.startswith("UV_INDEX_")
    }
    return {**_without("UV_"), **kept}


def _without(prefix: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(prefix)}
