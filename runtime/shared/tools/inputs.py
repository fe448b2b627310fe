"""List what goes into the guest module of a flavour: every file that a build uses, with its sha256.

Usage: inputs.py REPOSITORY FLAVOUR      (writes the list to standard output, as JSON)
"""

import hashlib
import json
import pathlib
import sys
from collections.abc import Iterator

NOT_USED = {
    "artifact", "licenses", "plain.cdx.json", "science.cdx.json", "toolchain.txt", "tools/licences.py", "tools/lock.py",
    "profile/make.sh", "profile/requirements.txt", "profile/training",
}  # fmt: skip
"""Where all flavours share, or in a flavour: products, and what a build does not read. Anything else is an input."""

GUEST_PYTHON = "_sandbox_*.py"
"""In ``wasm_sandbox/inside``: frozen into the module."""


def inputs(repository: pathlib.Path, flavour: str) -> dict[str, str]:
    """Path of each file, as seen from the repository's root -> sha256."""
    runtime = repository / "runtime"
    files = [*runtime.glob("build.sh"), *(repository / "wasm_sandbox" / "inside").glob(GUEST_PYTHON)]
    for directory in (runtime / "shared", runtime / flavour):
        files += _used(directory, directory)
    named = {file.relative_to(repository).as_posix(): file for file in files}
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in sorted(named.items())}


def _used(top: pathlib.Path, directory: pathlib.Path) -> Iterator[pathlib.Path]:
    for path in directory.iterdir():
        if path.relative_to(top).as_posix() in NOT_USED or path.name == "__pycache__":
            continue
        if path.is_dir():
            yield from _used(top, path)
        else:
            yield path


def differences(recorded: dict[str, str], found: dict[str, str]) -> list[str]:
    """What is to be said of each file that is not as recorded."""
    lines = []
    for name in sorted(recorded.keys() | found.keys()):
        if name not in found:
            lines.append(f"{name} is gone")
        elif name not in recorded:
            lines.append(f"{name} is new")
        elif recorded[name] != found[name]:
            lines.append(f"{name} has changed")
    return lines


if __name__ == "__main__":
    print(json.dumps(inputs(pathlib.Path(sys.argv[1]), sys.argv[2])))
