"""What the models of an argument schema cost: the first time in a process, for a new schema, and from the cache.

Run with ``python -m pytest benchmarks/bench_schema.py``.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from wasm_sandbox import Tool
from wasm_sandbox.script.argument_models import argument_models
from wasm_sandbox.script.generate import generate_script


def order_schema(number: int = 0) -> dict[str, Any]:
    """A schema of middling size: four definitions, twenty properties."""
    text: dict[str, Any] = {"type": "string", "maxLength": 80, "description": "some text"}
    address = {f"line{i}": text for i in range(6)} | {"country": {"enum": ["DE", "FR", "JP"]}}
    line = {"sku": {"type": "string", "pattern": "^[A-Z]+$"}, "quantity": {"type": "integer", "minimum": 1}}
    order = {
        "lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}},
        "ship_to": {"$ref": "#/$defs/Address"},
        "bill_to": {"anyOf": [{"$ref": "#/$defs/Address"}, {"type": "null"}], "default": None},
        "parent": {"$ref": "#/$defs/Order"},
        "placed": {"type": "string", "format": "date-time"},
        f"note{number}": text,
    }
    objects = {"Address": address, "Line": line, "Order": order}
    definitions = {name: {"type": "object", "properties": found, "required": []} for name, found in objects.items()}
    return {
        "title": "PlaceOrder",
        "type": "object",
        "properties": {"order": {"$ref": "#/$defs/Order"}, "dry_run": {"type": "boolean", "default": False}},
        "required": ["order"],
        "$defs": definitions,
    }


ARGS = {"order": {"lines": [{"sku": "A", "quantity": 2}], "parent": {}}}


def bench_first_schema_of_a_process(benchmark: BenchmarkFixture) -> None:
    """The whole of a fresh process: the interpreter, this library, the generator's import, one schema."""
    program = f"from wasm_sandbox.script.argument_models import argument_models; argument_models({order_schema()!r})"
    benchmark.pedantic(subprocess.run, ([sys.executable, "-c", program],), {"check": True}, rounds=5)


def bench_new_schema(benchmark: BenchmarkFixture) -> None:
    numbers = itertools.count(1)
    argument_models(order_schema())
    benchmark.pedantic(argument_models, setup=lambda: ((order_schema(next(numbers)),), {}), rounds=20)


def bench_cached_schema(benchmark: BenchmarkFixture) -> None:
    schema = order_schema()
    argument_models(schema)
    benchmark(argument_models, schema)


@pytest.mark.parametrize("with_schema", [False, True], ids=["json_schema", "args_json_schema"])
def bench_script(benchmark: BenchmarkFixture, with_schema: bool) -> None:
    """A whole script, once everything is cached."""
    properties = {"order": {"type": "object"}, "dry_run": {"type": "boolean"}}
    tool = Tool(
        name="place",
        source_code="def place(order, dry_run=False):\n    return len(order)",
        json_schema={"name": "place", "parameters": {"type": "object", "properties": properties}},
        args_json_schema=order_schema() if with_schema else None,
    )
    benchmark(generate_script, tool, ARGS)
