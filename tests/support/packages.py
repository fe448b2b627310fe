"""Packages made for tests, as directories and as wheels."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from wasm_sandbox.images.wheels import record


def make_wheel(
    directory: Path,
    name: str,
    version: str,
    *,
    requires: Sequence[str] = (),
    files: Mapping[str, bytes] | None = None,
    compiled: bool = False,
    requires_python: str = "",
) -> Path:
    """A wheel that pip and uv take; a compiled one is for Linux on x86_64 and has a module with no source."""
    stem = f"{name.replace('-', '_')}-{version}"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += f"Requires-Python: {requires_python}\n" if requires_python else ""
    metadata += "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    tag = "cp313-cp313-manylinux2014_x86_64" if compiled else "py3-none-any"
    about = f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n"
    contents = {
        f"{stem}.dist-info/METADATA": metadata.encode(),
        f"{name.replace('-', '_')}.py": b"VALUE = 1\n",
        **(files or {}),
        f"{stem}.dist-info/WHEEL": about.encode(),
    }
    if compiled:
        contents[f"{name.replace('-', '_')}/_native.cpython-313-x86_64-linux-gnu.so"] = b"\x7fELF"
    contents[f"{stem}.dist-info/RECORD"] = record(contents, f"{stem}.dist-info/RECORD")
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for place, data in contents.items():
            archive.writestr(place, data)
    return path


def make_package(directory: Path, files: Mapping[str, str]) -> Path:
    """A package's directory with these files; ``__init__.py`` is empty if it is not among them."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in {"__init__.py": "", **files}.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return directory


def uv_on_path(monkeypatch: pytest.MonkeyPatch) -> str:
    """The command uv, on the path from now on; skips where it is not installed."""
    beside = os.path.dirname(sys.executable)
    monkeypatch.setenv("PATH", beside, prepend=os.pathsep)
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    return uv
