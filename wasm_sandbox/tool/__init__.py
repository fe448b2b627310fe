"""What a tool is: its definition, its source, its annotations, its schema. Pure.

May import: values.
Imported by: faces, script, sandbox, stores, cli, bench, engine, images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasm_sandbox.doors import door

if TYPE_CHECKING:
    from wasm_sandbox.tool.bounds import TooCostly as TooCostly
    from wasm_sandbox.tool.parsing import parse_module as parse_module
    from wasm_sandbox.tool.parsing import read_json as read_json

_HOMES = {"TooCostly": "bounds", "parse_module": "parsing", "read_json": "parsing"}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - a face lists itself once


__getattr__ = door(__name__, _HOMES)
