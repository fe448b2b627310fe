"""Pydantic models, as source text, from the JSON schema of a tool's arguments. Nothing of them runs on the host."""

from __future__ import annotations

import ast
import json
import os
import sys
import threading
import time
import unicodedata
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from types import FrameType
from typing import Any

from wasm_sandbox.errors import ArgumentSchemaError
from wasm_sandbox.script.schema_filter import MAX_CHARACTERS, plain_schema
from wasm_sandbox.tool.parsing import parse_module

MAX_SECONDS = 10.0
"""Processor time that generating the models of one schema may take."""


@dataclass(frozen=True)
class ArgumentModels:
    """The models of one argument schema.

    Attributes:
        source: The text that defines them; it imports only what the guest has.
        class_name: The model of the arguments as a whole.
        fields: Argument name to the name of its field in that model.
        allows_extra: Whether the model takes arguments without a field.
        binds: Global names that the text binds, without those that scripts have anyway.
    """

    source: str
    class_name: str
    fields: Mapping[str, str] = field(hash=False)
    allows_extra: bool
    binds: frozenset[str]

    def expression(self, argument: str, instance: str) -> str:
        """Python source that reads an argument from an instance of the model."""
        if argument in self.fields:
            return f"{instance}.{self.fields[argument]}"
        return f"{instance}.model_extra[{argument!r}]"


def argument_models(schema: Mapping[str, Any], suffix: str = "") -> ArgumentModels:
    """Generate the models of an argument schema, or take them from this process's cache.

    The generator is ``datamodel-code-generator``; the first call in a process imports it. It sees the
    schema only as `plain_schema` leaves it: it fetches nothing, and nothing of what it writes is executed here.

    Args:
        schema: The tool's ``args_json_schema``.
        suffix: What the name of every class ends in.

    Returns:
        The models; equal schemas, their order included, give the same object.

    Raises:
        ArgumentSchemaError: if no models can be made of the schema, or the generator is not installed.
    """
    models = _generated(_canonical(schema), suffix)
    if isinstance(models, str):
        raise ArgumentSchemaError(models)
    return models


def _canonical(schema: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(schema, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentSchemaError(f"args_json_schema is not JSON: {error}") from None
    if len(text) > MAX_CHARACTERS:
        raise ArgumentSchemaError(f"args_json_schema takes {len(text)} characters, at most {MAX_CHARACTERS} are read")
    return text


_one_at_a_time = threading.Lock()
if hasattr(os, "register_at_fork"):  # a child of a process that is generating would wait for ever
    os.register_at_fork(after_in_child=_one_at_a_time._at_fork_reinit)  # type: ignore[attr-defined]  # typeshed lacks it


@lru_cache(maxsize=256)
def _generated(schema_text: str, suffix: str) -> ArgumentModels | str:
    """The models, or why there are none: that too may have taken long to find out."""
    try:
        schema = plain_schema(json.loads(schema_text))
        with _one_at_a_time:
            import datamodel_code_generator.parser.jsonschema  # noqa: F401  # lazy: an extra; not on the schema's time

            with warnings.catch_warnings(), _time_limit(MAX_SECONDS):
                warnings.simplefilter("ignore")  # what the generator thinks of a schema is not for the host's log
                return _checked(*_generate(schema, suffix), schema)
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] != "datamodel_code_generator":
            raise
        raise ArgumentSchemaError(
            "a tool with an args_json_schema needs the extra 'schema', which is not installed: "
            "pip install 'wasm-sandbox[schema]'"
        ) from None
    except ArgumentSchemaError as error:
        return str(error)
    except _TooSlow:
        return f"the models of args_json_schema take more than {MAX_SECONDS:g} seconds to generate; simplify it"
    except Exception as error:  # the generator's own, of many classes
        return f"no models can be made of args_json_schema: {type(error).__name__}: {str(error)[:500]}"


def _generate(schema: dict[str, Any], suffix: str) -> tuple[str, str, dict[str, str]]:
    """The text, the name of the class that stands for the whole schema, and its fields."""
    from datamodel_code_generator.enums import DataModelType  # lazy: an extra
    from datamodel_code_generator.format import DatetimeClassType, Formatter, PythonVersion  # lazy: an extra
    from datamodel_code_generator.model import get_data_model_types  # lazy: an extra
    from datamodel_code_generator.parser.jsonschema import JsonSchemaParser  # lazy: an extra

    python = PythonVersion.PY_313  # the guest's
    kinds = get_data_model_types(DataModelType.PydanticV2BaseModel, target_python_version=python)
    parser = JsonSchemaParser(
        json.dumps(schema),
        data_model_type=kinds.data_model,
        data_model_root_type=kinds.root_model,
        data_model_field_type=kinds.field_model,
        data_type_manager_type=kinds.data_type_manager,
        dump_resolve_reference_action=kinds.dump_resolve_reference_action,
        target_python_version=python,
        target_datetime_class=DatetimeClassType.Datetime,  # pydantic's own schemas say date-time of naive ones too
        aliases=_fields_for_odd_names(schema),
        class_name_suffix=suffix or None,
        use_annotated=True,
        field_constraints=True,
        use_standard_collections=True,
        allow_remote_refs=False,
        formatters=[Formatter.BUILTIN],  # the others read settings from the working directory
    )
    text = parser.parse(disable_future_imports=True)  # its flags would reach the tool's source
    if not isinstance(text, str):
        raise ArgumentSchemaError("args_json_schema falls into several modules")
    main = next(model for model in parser.results if model.reference.path == "#")
    fields = {item.original_name: item.name for item in main.fields}
    return text, main.class_name, {name: fields[name] or "" for name in schema["properties"]}


def _fields_for_odd_names(schema: Any) -> dict[str, str]:
    """A name for the field of each property, anywhere, whose own name Python reads as another."""
    found: dict[str, str] = {}
    pending = [schema]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            for name in node:
                if unicodedata.normalize("NFKC", name) != name:
                    found.setdefault(name, f"field_{len(found)}")
            pending += node.values()
        elif isinstance(node, list):
            pending += node
    return found


def _known_here(text: str) -> str:
    """The text with letters that only the guest's newer Unicode has made plain ones, so that it parses here too."""
    return text if text.isascii() else "".join("x" if unicodedata.category(c) == "Cn" else c for c in text)


def _checked(text: str, class_name: str, fields: dict[str, str], schema: dict[str, Any]) -> ArgumentModels:
    """The models, if the text is what the rest of the script relies on."""
    body = parse_module(_known_here(text)).body
    text.encode()
    classes = {node.name for node in body if isinstance(node, ast.ClassDef)}
    imported = {
        alias.asname or alias.name
        for node in body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname or node.module not in ("typing", "pydantic")
    }
    if _known_here(class_name) not in classes or not all(_known_here(name).isidentifier() for name in fields.values()):
        raise ArgumentSchemaError("the generated models of args_json_schema lack the one of the arguments")
    allows_extra = schema.get("additionalProperties", False) is not False
    return ArgumentModels(text.rstrip(), class_name, fields, allows_extra, frozenset(classes | imported))


class _TooSlow(BaseException):
    """Not an ``Exception``, so that the generator lets it pass."""


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Stop Python code of this thread, at its next call of anything, once it has used its processor time.

    The limits of `plain_schema` keep schemas fast that are known to be slow; this is for those not known.
    """
    end = time.thread_time() + seconds
    calls = 0

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls
        calls += 1
        if calls % 1024 == 0 and time.thread_time() > end:
            raise _TooSlow

    previous = sys.getprofile()
    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(previous)
