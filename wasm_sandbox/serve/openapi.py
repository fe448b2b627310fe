"""Document of the interface (OpenAPI 3.1), made of the operations and of the shapes that bodies are checked by."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

import wasm_sandbox
from wasm_sandbox.serve.bodies import JSON
from wasm_sandbox.serve.operations import Operation
from wasm_sandbox.serve.problems import MEDIA_TYPE, TITLES, ProblemDocument
from wasm_sandbox.serve.shapes import Told
from wasm_sandbox.serve.streams import NDJSON, SSE

_ALWAYS = ("misdirected", "forbidden-origin", "internal")
_WITH_TOKEN = ("unauthorized",)
_WITH_BODY = (
    "bad-request", "slow-request", "body-too-large", "unsupported-media-type", "invalid-body", "overloaded"
)  # fmt: skip
_WITH_WORK = ("queue-full", "draining", "host-unfit")


def openapi_document(operations: Sequence[Operation]) -> dict[str, Any]:
    """Document of the interface.

    Args:
        operations: what the server answers to.
    """
    schemas, definitions = _schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "wasm-sandbox",
            "version": wasm_sandbox.__version__,
            "description": "Untrusted Python in guests of WebAssembly.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


Schemas = dict[tuple[type[BaseModel], JsonSchemaMode], dict[str, Any]]


def _schemas(operations: Sequence[Operation]) -> tuple[Schemas, dict[str, Any]]:
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        (ProblemDocument, "serialization"), (Told, "serialization")
    ]  # fmt: skip
    for operation in operations:
        if isinstance(operation.takes, type):
            wanted.append((operation.takes, "validation"))
        if isinstance(operation.gives, type) and issubclass(operation.gives, BaseModel):
            wanted.append((operation.gives, "serialization"))
    found, shared = models_json_schema(list(dict.fromkeys(wanted)), ref_template="#/components/schemas/{model}")
    return cast(Schemas, found), shared.get("$defs", {})


def _operation(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": _responses(operation, schemas),
        "security": [] if operation.is_open else [{"token": []}, {}],
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", operation.path)
    ]
    parameters += [
        {"name": name, "in": "query", "required": False, "schema": schema} for name, schema in operation.query.items()
    ]
    if parameters:
        made["parameters"] = parameters
    if isinstance(operation.takes, str):
        made["requestBody"] = {"required": True, "content": {operation.takes: {"schema": {}}}}
    elif operation.takes is not None:
        schema = schemas[operation.takes, "validation"]
        made["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
    return made


def _responses(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    success: dict[str, Any] = {"description": "Success"}
    if isinstance(operation.gives, str):
        success["content"] = {operation.gives: {}}
    elif operation.gives is str:
        success["content"] = {JSON: {"schema": {"type": "string"}}}
    elif operation.gives is not None:
        success["content"] = {JSON: {"schema": schemas[operation.gives, "serialization"]}}  # type: ignore[index]
    if operation.streams:
        told = schemas[Told, "serialization"]
        success["content"] |= {NDJSON: {"itemSchema": told}, SSE: {"itemSchema": told}}
    names = [*_ALWAYS, *operation.problems]
    names += () if operation.is_open else _WITH_TOKEN
    names += () if operation.takes is None else _WITH_BODY
    names += _WITH_WORK if operation.method == "POST" else ()
    problem = {MEDIA_TYPE: {"schema": schemas[ProblemDocument, "serialization"]}}
    responses: dict[str, Any] = {str(operation.status): success}
    for status in sorted({TITLES[name][0] for name in names}):
        titles = [TITLES[name][1] for name in dict.fromkeys(names) if TITLES[name][0] == status]
        responses[str(status)] = {"description": "; ".join(titles), "content": problem}
    return responses
