"""Starting a script in an instance: the interface of the two kinds beside this file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple, Protocol

from wasm_sandbox.engine.binding import capi
from wasm_sandbox.engine.start.kind import StartKind
from wasm_sandbox.files import GivenFiles
from wasm_sandbox.outcome import GuestException
from wasm_sandbox.request import ExecutionRequest


class Ended(NamedTuple):
    """End of a script that was not stopped."""

    exit_code: int
    exception: GuestException | None
    answer: bytes | None = None
    """Answer to a call; None if there is none, or it is longer than allowed."""
    answer_bytes: int = 0
    """Size of the answer."""


class Start(Protocol):
    """Way to start a script, and what a guest needs for it."""

    kind: ClassVar[StartKind]

    def environ(self, environ: Mapping[str, str]) -> Mapping[str, str]:
        """Environment of a run, with the variables that the interpreter needs."""

    def files(self, files: Mapping[str, bytes]) -> GivenFiles:
        """Files of the image, and mounts, that every run finds."""

    def arguments(self, request: ExecutionRequest) -> list[bytes]:
        """Arguments of the process, each with the NUL that ends it."""

    def run(self, instance: capi.Instance, request: ExecutionRequest, code: bytes, is_new: bool) -> Ended:
        """Run a script, or make a call.

        Args:
            instance: instance to run it in; its world has the arguments and the environment.
            request: the script, or the call.
            is_new: whether a call finds a new environment and new random numbers, as a script does.
            code: compiled code of the script from the tool's source on; empty if there is none.

        Raises:
            GuestStopped: if the guest traps or is stopped, also by ``proc_exit``.
        """

    def exception(self, exit_code: int, stderr: bytes, request: ExecutionRequest) -> GuestException | None:
        """Exception of a run that exited, where only standard error tells of it."""
