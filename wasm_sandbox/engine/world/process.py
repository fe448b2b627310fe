"""Capability of the process: environment, arguments, exit."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import ClassVar

from wasm_sandbox.engine.world.preview1 import SUCCESS, Imported
from wasm_sandbox.engine.world.world import World


class Process:
    """Capability of the process: environment, arguments and exit.

    Args:
        world: world of the guest.
        environ: entries of the environment, as `entries` makes them.
        arguments: arguments of a command, each with the NUL that ends it; our own guest has none.
    """

    functions: ClassVar[Mapping[str, Imported]]

    def __init__(self, world: World, environ: Sequence[bytes] = (), arguments: Sequence[bytes] = ()) -> None:
        self._world, self.environ, self.arguments = world, environ, arguments

    def close(self) -> None:
        """Do nothing: nothing is held."""

    def proc_exit(self, code: int) -> int:
        return self._world.exit(code)

    def environ_sizes_get(self, count: int, size: int) -> int:
        return self._give_sizes(self.environ, count, size)

    def environ_get(self, pointers: int, block: int) -> int:
        return self._give_texts(self.environ, pointers, block)

    def args_sizes_get(self, count: int, size: int) -> int:
        return self._give_sizes(self.arguments, count, size)

    def args_get(self, pointers: int, block: int) -> int:
        return self._give_texts(self.arguments, pointers, block)

    def _give_sizes(self, texts: Sequence[bytes], count: int, size: int) -> int:
        self._world.store(count, struct.pack("<I", len(texts)))
        self._world.store(size, struct.pack("<I", sum(map(len, texts))))
        return SUCCESS

    def _give_texts(self, texts: Sequence[bytes], pointers: int, block: int) -> int:
        addresses, at = [], block
        for text in texts:
            addresses.append(at)
            at += len(text)
        self._world.span(block, at - block)
        self._world.store(pointers, struct.pack(f"<{len(addresses)}I", *addresses))
        self._world.store(block, b"".join(texts))
        return SUCCESS


Process.functions = {
    "args_get": Process.args_get,
    "args_sizes_get": Process.args_sizes_get,
    "environ_get": Process.environ_get,
    "environ_sizes_get": Process.environ_sizes_get,
    "proc_exit": Process.proc_exit,
}


def entries(variables: Mapping[str, str]) -> list[bytes]:
    """Entries ``NAME=value`` of a WASI environment, each with the NUL that ends it.

    Names and values must have been checked.
    """
    return [f"{name}={value}\0".encode() for name, value in variables.items()]
