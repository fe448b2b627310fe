"""A server of the Model Context Protocol: code and stored tools for agents, over stdio and HTTP (extra ``mcp``).

May import: values, faces, stores, web.
Imported by: cli, serve.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasm_sandbox.doors import door

if TYPE_CHECKING:
    from wasm_sandbox.mcp.answers import Refused as Refused
    from wasm_sandbox.mcp.calls import BoxCalls as BoxCalls
    from wasm_sandbox.mcp.calls import Calls as Calls
    from wasm_sandbox.mcp.calls import Program as Program
    from wasm_sandbox.mcp.http import Endpoint as Endpoint
    from wasm_sandbox.mcp.http import http_app as http_app
    from wasm_sandbox.mcp.http import serve_http as serve_http
    from wasm_sandbox.mcp.service import Service as Service
    from wasm_sandbox.mcp.stdio import serve_stdio as serve_stdio
    from wasm_sandbox.mcp.tokens import Tokens as Tokens

_HOMES = {
    "BoxCalls": "calls",
    "Calls": "calls",
    "Endpoint": "http",
    "Program": "calls",
    "Refused": "answers",
    "Service": "service",
    "Tokens": "tokens",
    "http_app": "http",
    "serve_http": "http",
    "serve_stdio": "stdio",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - a face lists itself once


__getattr__ = door(__name__, _HOMES)
