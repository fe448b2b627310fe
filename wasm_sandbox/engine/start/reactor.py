"""Start of a script in our own guest: a call of an instance that stands where its start-up left it."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import ClassVar

import wasmtime

from wasm_sandbox.engine.binding import capi
from wasm_sandbox.engine.start.base import Ended
from wasm_sandbox.engine.start.kind import StartKind
from wasm_sandbox.events import mark
from wasm_sandbox.files import GivenFiles
from wasm_sandbox.outcome import GuestException
from wasm_sandbox.request import ExecutionRequest

MAX_REPORT_BYTES = 1 << 20

_WELL = Ended(0, None)


class Reactor:
    """Start of a script in a module that exports ``sandbox_run``; see ``runtime/``."""

    kind: ClassVar[StartKind] = StartKind.REACTOR

    def environ(self, environ: Mapping[str, str]) -> Mapping[str, str]:
        return environ

    def files(self, files: Mapping[str, bytes]) -> GivenFiles:
        return GivenFiles(files, {})

    def arguments(self, request: ExecutionRequest) -> list[bytes]:
        return []

    def run(self, instance: capi.Instance, request: ExecutionRequest, code: bytes, is_new: bool) -> Ended:
        if request.call:
            return self._called(instance, request, is_new)
        if len(request.script) + sum(map(len, request.values)) > request.limits.memory_bytes:  # perhaps gigabytes
            raise _too_long()
        with mark("place"):
            address = instance.place(request.encode(code))
        if not address:
            raise _too_long()
        with mark("guest"):
            exit_code = instance.call("sandbox_run", address)
        if exit_code == 0:
            return _WELL
        return Ended(exit_code, read_report(instance))

    @staticmethod
    def _called(instance: capi.Instance, request: ExecutionRequest, is_new: bool) -> Ended:
        size = len(request.call)
        with mark("place"):
            address = instance.place(request.call) if size <= request.limits.memory_bytes else 0
        if not address:
            raise _too_long()
        with mark("guest"):
            found = instance.call("sandbox_call", address, size, is_new)
        if not found:
            return Ended(1, read_report(instance))
        (size,) = struct.unpack("<I", instance.read(found, 4))
        answer = instance.read(found + 4, size) if size <= request.limits.result_bytes else None
        return Ended(0, None, answer, size)

    def exception(self, exit_code: int, stderr: bytes, request: ExecutionRequest) -> GuestException | None:
        return None  # it has reported it


def _too_long() -> capi.GuestStopped:
    code = wasmtime.TrapCode.ALLOCATION_TOO_LARGE.value
    return capi.GuestStopped(code, "the script does not fit the guest's memory")


def read_report(instance: capi.Instance) -> GuestException | None:
    """Exception that the guest reports, read as hostile: bounded, checked, decoded with replacement.

    Raises:
        GuestStopped: if the guest traps, or the report is outside of its memory.
    """
    address = instance.call("sandbox_report")
    if not address:
        return None
    texts, room = [], MAX_REPORT_BYTES
    for _ in range(3):
        (size,) = struct.unpack("<I", instance.read(address, 4))
        texts.append(instance.read(address + 4, min(size, room)).decode("utf-8", "replace"))
        room -= min(size, room)
        address += 4 + size
    return GuestException(*texts)
