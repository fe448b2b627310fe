"""Packages made for tests, as directories and as wheels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from wasm_sandbox.images.wheels import Distribution, write_wheel


def make_wheel(
    directory: Path,
    name: str,
    version: str,
    *,
    requires: Sequence[str] = (),
    files: Mapping[str, bytes] | None = None,
    compiled: bool = False,
) -> Path:
    """A wheel that pip and uv take; a compiled one is for Linux on x86_64 and has a module with no source."""
    stem = f"{name.replace('-', '_')}-{version}"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    contents = {f"{stem}.dist-info/METADATA": metadata.encode(), f"{name.replace('-', '_')}.py": b"VALUE = 1\n"}
    contents |= files or {}
    if compiled:
        contents[f"{name.replace('-', '_')}/_native.cpython-313-x86_64-linux-gnu.so"] = b"\x7fELF"
    directory.mkdir(parents=True, exist_ok=True)
    path = write_wheel(directory, Distribution(name, version, tuple(requires), contents))
    if compiled:
        path = path.rename(directory / f"{stem}-cp313-cp313-manylinux2014_x86_64.whl")
    return path


def make_package(directory: Path, files: Mapping[str, str]) -> Path:
    """A package's directory with these files; ``__init__.py`` is empty if it is not among them."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in {"__init__.py": "", **files}.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return directory
