"""What an instance exports, as the kind of thing that a test knows it to be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import wasmtime

Exports = Mapping[str, Any]


def function(exports: Exports, name: str) -> wasmtime.Func:
    found = exports[name]
    assert isinstance(found, wasmtime.Func)
    return found


def global_variable(exports: Exports, name: str) -> wasmtime.Global:
    found = exports[name]
    assert isinstance(found, wasmtime.Global)
    return found


def memory_of(exports: Exports, name: str) -> wasmtime.Memory:
    found = exports[name]
    assert isinstance(found, wasmtime.Memory)
    return found
