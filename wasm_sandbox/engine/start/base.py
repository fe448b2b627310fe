"""How a script is started in an instance: the interface of the two kinds beside this file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple, Protocol

from wasm_sandbox.engine.binding import capi
from wasm_sandbox.engine.start.kind import StartKind
from wasm_sandbox.files import GivenFiles
from wasm_sandbox.outcome import GuestException
from wasm_sandbox.request import ExecutionRequest


class Ended(NamedTuple):
    """How a script ended that was not stopped."""

    exit_code: int
    exception: GuestException | None


class Start(Protocol):
    """How a script is started, and what a guest needs for it."""

    kind: ClassVar[StartKind]

    def environ(self, environ: Mapping[str, str]) -> Mapping[str, str]:
        """The environment of a run, with what the interpreter needs to know."""

    def files(self, files: Mapping[str, bytes]) -> GivenFiles:
        """What every run finds: the files of the image, and mounts."""

    def arguments(self, request: ExecutionRequest) -> list[bytes]:
        """The arguments of the process, each with the NUL that ends it."""

    def run(self, instance: capi.Instance, request: ExecutionRequest, code: bytes) -> Ended:
        """Run a script.

        Args:
            instance: where; its arguments and environment are there.
            request: the script.
            code: the code of the script from the tool's source on, if there is any.

        Raises:
            GuestStopped: if it traps or is stopped, as by its exit.
        """

    def exception(self, exit_code: int, stderr: bytes, request: ExecutionRequest) -> GuestException | None:
        """What ended a run that exited, where only its standard error tells."""
