"""Compiling a snapshot, for this machine or another one, and other CPythons."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import wasmtime

from wasm_sandbox.engine.binding.configuration import WASM_STACK_BYTES, engine_configuration
from wasm_sandbox.engine.binding.version import wasmtime_version
from wasm_sandbox.engine.compiled.preparation import ONCE_ONLY
from wasm_sandbox.engine.module import binary as wasm_binary
from wasm_sandbox.engine.module.binary import MalformedModule
from wasm_sandbox.engine.module.image_file import with_memory
from wasm_sandbox.engine.module.metering import Metering, meter
from wasm_sandbox.engine.module.snapshot import Snapshot, without_data
from wasm_sandbox.engine.threads.green import check_processes
from wasm_sandbox.engine.world.preview1 import WASI_MODULE
from wasm_sandbox.errors import ImageError

COMPILE_SECONDS = 1800.0

_FLAGS = (
    "-O", "opt-level=2",
    "-C", "collector=drc",
    "-W", f"threads=n,branch-hinting=y,max-wasm-stack={WASM_STACK_BYTES},async-stack-size={WASM_STACK_BYTES}",
)  # fmt: skip
"""Options of the wasmtime command for `engine_configuration`, and for what this library's wasmtime has besides."""

_OWN_MEMORY_FLAGS = ("-O", "memory-init-cow=n")


def check_compiler(command: str | None, target: str) -> str:
    """Find the ``wasmtime`` command, which compiles for another kind of machine.

    wasmtime's Python package compiles for the kind of machine that it runs on, the command for all of them.

    Args:
        command: path of the command; by default it is looked for on ``PATH``.
        target: name of the other machine, for messages.

    Raises:
        ImageError: if there is none, or not of the version of the Python package.
    """
    found = shutil.which(command or "wasmtime")
    major = wasmtime_version().partition(".")[0]
    if found is None:
        raise ImageError(
            f"to compile for {target} on this machine, the wasmtime command of version {major} is needed "
            f"({command or 'wasmtime'} is not there): install it, from "
            "https://github.com/bytecodealliance/wasmtime/releases, or export on a machine of that kind"
        )
    said = _run(found, "--version")
    version = re.search(r"wasmtime(?:-cli)? (\d+)\.", said)
    if version is None or version[1] != major:
        raise ImageError(
            f"{found} is {said.strip()[:60]!r}, and version {major} is needed, as of wasmtime's package here"
        )
    return found


def compile_for(snapshot: Snapshot, triple: str, command: str | None) -> bytes:
    """Compile for the baseline processor of a kind of machine; the content of the image's file.

    Args:
        snapshot: the guest, pre-initialised.
        triple: target triple of the kind of machine.
        command: ``wasmtime`` command to compile with; ``None`` for this process, which only knows its own kind.

    Raises:
        ImageError: if it does not compile.
    """
    if "-linux-" in triple:  # where linear memory is ours (`kept.is_supported`)
        code = _compiled(meter(without_data(snapshot.built)), triple, command, own_memory=True)
        return with_memory(bytes(32), code, snapshot.memory)  # no key: no other image is made from it
    return _compiled(meter(snapshot.module(ONCE_ONLY)), triple, command, own_memory=False)


def _compiled(module: bytes, triple: str, command: str | None, own_memory: bool) -> bytes:
    if command is None:
        configuration = engine_configuration(own_memory)
        try:
            configuration.target = triple  # named, it is the basic processor of its kind, not the one at hand
            return bytes(wasmtime.Module(wasmtime.Engine(configuration), module).serialize())
        except wasmtime.WasmtimeError as error:
            raise ImageError(f"the image does not compile for {triple}: {error}") from error
    with tempfile.TemporaryDirectory(prefix="wasm-sandbox-export-") as temporary:
        source, compiled = Path(temporary) / "image.wasm", Path(temporary) / "image.cwasm"
        source.write_bytes(module)
        _run(
            command,
            "compile",
            "--target",
            triple,
            *_FLAGS,
            *(_OWN_MEMORY_FLAGS if own_memory else ()),
            "-o",
            str(compiled),
            str(source),
        )
        return compiled.read_bytes()


def _run(*command: str) -> str:
    check_processes()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=COMPILE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ImageError(f"{command[0]} cannot be run: {error}") from error
    if done.returncode:
        raise ImageError(f"{command[0]} failed: {done.stderr.strip()[-500:]}")
    return done.stdout


def compile_command(engine: wasmtime.Engine, path: Path, metering: Metering) -> bytes:
    """Compile a WASI command.

    Raises:
        ImageError: if the module is no WASI command, or imports more than WASI preview 1.
    """

    content = _read(path)
    _check_exports(path, content)  # before minutes may go into compiling it
    try:
        module = wasmtime.Module(engine, meter(content, metering))
    except (MalformedModule, wasmtime.WasmtimeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ImageError(f"{path}: cannot be compiled: {reason}") from None
    for wanted in module.imports:
        if wanted.module != WASI_MODULE or not isinstance(wanted.type, wasmtime.FuncType):
            raise ImageError(f"{path}: imports {wanted.module}.{wanted.name}; only {WASI_MODULE} is served")
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    try:
        linker.instantiate_pre(module)  # only for its check of every import's type; runs get our own functions
    except wasmtime.WasmtimeError as error:
        raise ImageError(f"{path}: does not fit {WASI_MODULE}: {str(error).strip().splitlines()[0]}") from None
    start = next(export.type for export in module.exports if export.name == "_start")
    if not isinstance(start, wasmtime.FuncType) or start.params or start.results:
        raise ImageError(f"{path}: its _start is no function without parameters and results")
    return bytes(module.serialize())


def _check_exports(path: Path, content: bytes) -> None:
    try:
        bodies = dict(wasm_binary.sections(content))
        kinds = {export.name: export.kind for export in wasm_binary.read_exports(bodies.get(wasm_binary.EXPORT, b"\0"))}
    except (wasm_binary.MalformedModule, UnicodeDecodeError) as error:
        raise ImageError(f"{path}: is no WebAssembly module: {error}") from None
    if "_start" not in kinds or kinds.get("memory") != wasm_binary.EXPORT_MEMORY:
        raise ImageError(f"{path}: is no WASI command: it must export _start and memory")
    if wasm_binary.START in bodies:
        raise ImageError(f"{path}: has a start function, which would run before any limit holds; a command has none")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from None
