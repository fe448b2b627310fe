"""Pydantic models, as source text, from the JSON schema of a tool's arguments. Nothing of them runs on the host."""

from __future__ import annotations

import ast
import itertools
import json
import re
import unicodedata
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any

from wasm_sandbox.errors import ArgumentSchemaError, HostError, pass_on
from wasm_sandbox.forks import process_lock
from wasm_sandbox.script.arguments import argument_literal
from wasm_sandbox.script.schema_filter import FORMAT_TYPES, MAX_CHARACTERS, TYPES_MODULE, filtered_schema
from wasm_sandbox.script.schema_parts import NEEDS_EXTRA
from wasm_sandbox.tool.bounds import TooCostly
from wasm_sandbox.tool.memo import SizedMemo, text_bytes
from wasm_sandbox.tool.own_stack import TooSlow, on_own_stack
from wasm_sandbox.tool.parsing import parse_module

MAX_SECONDS = 0.25
"""Processor time that generating the models of one schema may take. The bounds of `filtered_schema` make those take
less that are known to be slow; this is for those not known."""

_MEMO_BYTES = 32 << 20
_MAX_NESTING = 200


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


def argument_models(
    schema: Mapping[str, Any],
    suffix: str = "",
    objects: frozenset[str] = frozenset(),
    as_is: frozenset[str] = frozenset(),
) -> ArgumentModels:
    """Generate the models of an argument schema, or take them from this process's cache.

    The generator is ``datamodel-code-generator``; the first call in a process imports it. It sees the
    schema only as `filtered_schema` leaves it: it fetches nothing, and nothing of what it writes is executed here.

    Args:
        schema: The tool's ``args_json_schema``.
        suffix: What the name of every class ends in.
        objects: Properties whose formats make objects; all others arrive as the text that was given, checked.
        as_is: Properties that the models pass on unseen.

    Returns:
        The models; equal schemas, their order included, give the same object.

    Raises:
        ArgumentSchemaError: if no models can be made of the schema, or the generator is not installed.
        HostError: if the system gives no thread to generate them on.
    """
    return models_of(canonical(schema), suffix, objects, as_is)


def models_of(
    schema_text: str,
    suffix: str = "",
    objects: frozenset[str] = frozenset(),
    as_is: frozenset[str] = frozenset(),
) -> ArgumentModels:
    """The models of a schema whose `canonical` text is there already; else as `argument_models`."""
    models = _generated(schema_text, suffix, objects, as_is)
    if isinstance(models, str):
        raise ArgumentSchemaError(models)
    return models


def canonical(schema: Mapping[str, Any]) -> str:
    """An argument schema as JSON text, which tells it from others.

    Raises:
        ArgumentSchemaError: if it is no JSON, or too large.
    """
    _check_size(schema)
    try:
        text = json.dumps(schema, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentSchemaError(f"args_json_schema is not JSON: {error}") from None
    if len(text) > MAX_CHARACTERS:
        raise ArgumentSchemaError(f"args_json_schema takes {len(text)} characters, at most {MAX_CHARACTERS} are read")
    return text


def _check_size(schema: Mapping[str, Any]) -> None:
    """Refuse what is too large or too deep for the writer of JSON, which recurses in C."""
    characters = depth = 0
    level: list[Any] = [schema]
    while level:
        depth += 1
        characters += 2 * len(level) + sum(len(value) for value in level if isinstance(value, str))
        if depth > _MAX_NESTING:
            raise ArgumentSchemaError(
                f"args_json_schema is not JSON: it is nested more than {_MAX_NESTING} levels deep"
            )
        if characters > 4 * MAX_CHARACTERS:
            raise ArgumentSchemaError(
                f"args_json_schema takes more than {characters} characters, at most {MAX_CHARACTERS} are read"
            )
        inner: list[Any] = []
        for value in level:
            if isinstance(value, Mapping):
                inner += [*value.keys(), *value.values()]
            elif isinstance(value, list | tuple):
                inner += value
        level = inner


# Guarantees:
# - models are generated by one thread of the process at a time, and memoised for equal schemas (LRU, by size),
#   failures included;
# - a missing generator is not memoised: it may be installed later.
# Locks: `_one_at_a_time` is held while the generator is imported and while it runs: `MAX_SECONDS` of CPU
# time at most. It is made anew in the child of a fork.
_one_at_a_time = process_lock()

MODELS: SizedMemo[tuple[str, str, frozenset[str], frozenset[str]], ArgumentModels | str] = SizedMemo(_MEMO_BYTES)
"""Models of schemas, or why there are none: that too may have taken long to find out."""


def _generated(schema_text: str, suffix: str, objects: frozenset[str], as_is: frozenset[str]) -> ArgumentModels | str:
    """The models, or why there are none."""
    key = (schema_text, suffix, objects, as_is)
    found = MODELS.get(key)
    if found is None:
        with _one_at_a_time:
            found = MODELS.get(key) or _generate(schema_text, suffix, objects, as_is)
        written = found if isinstance(found, str) else found.source + "".join([*found.fields, *found.binds])
        MODELS.put(key, found, text_bytes(schema_text) + 2 * text_bytes(written))
    return found


def _generate(schema_text: str, suffix: str, objects: frozenset[str], as_is: frozenset[str]) -> ArgumentModels | str:
    def work() -> ArgumentModels:
        choices: dict[str, list[Any]] = {}
        schema = filtered_schema(json.loads(schema_text), objects, choices, as_is)
        return _checked(*generate_code(schema, suffix, choices), schema)

    try:
        _load_generator()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the generator thinks of a schema is not for the host's log
            return on_own_stack(work, MAX_SECONDS)
    except ImportError as error:
        pass_on(error)
        if error.name is None or error.name.partition(".")[0] != "datamodel_code_generator":
            raise
        raise ArgumentSchemaError(NEEDS_EXTRA) from None
    except HostError:
        raise
    except ArgumentSchemaError as error:
        return str(error)
    except TooCostly:
        return "args_json_schema has too many properties in one object, or too long names; describe less of it"
    except TooSlow:
        return f"the models of args_json_schema take more than {MAX_SECONDS:g} seconds to generate; simplify it"
    except Exception as error:  # the generator's own, of many classes
        pass_on(error)
        return f"no models can be made of args_json_schema: {type(error).__name__}: {str(error)[:500]}"


@cache
def _load_generator() -> None:
    """Have the generator load what it loads at its first use, which is no schema's fault."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        generate_code({"type": "object", "properties": {"x": {"type": "string"}}}, "")


def generate_code(
    schema: dict[str, Any], suffix: str, choices: Mapping[str, list[Any]] = MappingProxyType({})
) -> tuple[str, str, dict[str, str]]:
    """The text, the name of the class that stands for the whole schema, and its fields."""
    from datamodel_code_generator.enums import DataModelType  # lazy: an extra
    from datamodel_code_generator.format import DatetimeClassType, Formatter, PythonVersion  # lazy: an extra
    from datamodel_code_generator.model import get_data_model_types  # lazy: an extra
    from datamodel_code_generator.parser.jsonschema import JsonSchemaParser  # lazy: an extra

    python = PythonVersion.PY_313  # the guest's
    kinds = get_data_model_types(DataModelType.PydanticV2BaseModel, target_python_version=python)
    aliases = get_data_model_types(  # of definitions that are no object: values arrive bare
        DataModelType.PydanticV2BaseModel, target_python_version=PythonVersion.PY_311, use_type_alias=True
    )
    parser = JsonSchemaParser(
        json.dumps(schema),
        data_model_type=kinds.data_model,
        data_model_root_type=aliases.root_model,
        data_model_field_type=kinds.field_model,
        data_type_manager_type=kinds.data_type_manager,
        dump_resolve_reference_action=kinds.dump_resolve_reference_action,
        target_python_version=python,
        target_datetime_class=DatetimeClassType.Datetime,  # pydantic's own schemas say date-time of naive ones too
        aliases=_fields_for_odd_names(schema),
        class_name_suffix=suffix or None,
        use_annotated=True,
        use_type_alias=True,
        field_constraints=True,
        use_standard_collections=True,
        allow_remote_refs=False,
        formatters=[Formatter.BUILTIN],  # the others read settings from the working directory
    )
    text = parser.parse(disable_future_imports=True)  # its flags would reach the tool's source
    if not isinstance(text, str):
        raise ArgumentSchemaError("args_json_schema falls into several modules")
    imported = _TYPES_IMPORT.search(text)
    if imported is not None and '"' not in text[: imported.start()]:  # not in a text of the schema's
        text = text[: imported.start()] + _types_source(imported[1], choices) + text[imported.end() :]
    main = next(model for model in parser.results if model.reference.path == "#")
    fields = {item.original_name: item.name for item in main.fields}
    return text, main.class_name, {name: fields[name] or "" for name in schema["properties"]}


_TYPES_IMPORT = re.compile(rf"^from {TYPES_MODULE} import (\(.*?\)|[^(\n]*)$", re.MULTILINE | re.DOTALL)

_TEXT_OF = """\
def _text_of(kind):
    from pydantic import AfterValidator, TypeAdapter
    from typing import Annotated
    check = TypeAdapter(kind).validate_python
    return Annotated[str, AfterValidator(lambda text: (check(text), text)[1])]"""

_ONE_OF = """\
def _one_of(values):
    from pydantic import AfterValidator
    from typing import Annotated, Any
    def same(a, b):
        if isinstance(a, (list, tuple)):
            return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
        if isinstance(a, dict):
            return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
        return a == b and isinstance(a, bool) == isinstance(b, bool)
    def check(value):
        if not any(same(value, one) for one in values):
            raise ValueError(f"Input should be one of {values!r}"[:500])
        return value
    return Annotated[Any, AfterValidator(check)]"""


def _types_source(imported: str, choices: Mapping[str, list[Any]]) -> str:
    """Definitions of the types of formats and of enumerations, in place of their import."""
    names = re.findall(r"\w+", imported)
    texts = {name: FORMAT_TYPES[name.removeprefix("Text_").replace("_", "-")] for name in names if name not in choices}
    used = {name: choices[name] for name in names if name in choices}
    helpers = [_TEXT_OF] * bool(texts) + [_ONE_OF] * bool(used)
    lines = [f"{name} = _text_of({_imported(kind)})" for name, kind in texts.items()]
    lines += [f"{name} = _one_of({argument_literal({}, values)})" for name, values in used.items()]
    return "\n".join([*helpers, *lines])


def _imported(kind: str) -> str:
    module, _, name = kind.rpartition(".")
    return f"__import__({module!r}).{name}" if module else name


def _fields_for_odd_names(schema: Any) -> dict[str, str]:
    """A name for the field of each property, anywhere, whose own name Python reads as another.

    It is none of the schema, and none of those that the generator makes of one: they begin with ``field``.
    """
    names: dict[str, None] = {}
    pending = [schema]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            names.update(dict.fromkeys(node))
            pending += node.values()
        elif isinstance(node, list):
            pending += node
    free = (name for number in itertools.count() if (name := f"odd_{number}") not in names)
    return {name: next(free) for name in names if unicodedata.normalize("NFKC", name) != name}


def known_here(text: str) -> str:
    """The text with letters that only the guest's newer Unicode has made plain ones, so that it parses here too."""
    return text if text.isascii() else "".join("x" if unicodedata.category(c) == "Cn" else c for c in text)


def _checked(text: str, class_name: str, fields: dict[str, str], schema: dict[str, Any]) -> ArgumentModels:
    """The models, if the text is what the rest of the script relies on."""
    body = parse_module(known_here(text)).body
    text.encode()
    classes = {node.name for node in body if isinstance(node, ast.ClassDef)}
    imported = {
        alias.asname or alias.name
        for node in body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname or node.module not in ("typing", "pydantic")
    }
    if known_here(class_name) not in classes or not all(known_here(name).isidentifier() for name in fields.values()):
        raise ArgumentSchemaError("the generated models of args_json_schema lack the one of the arguments")
    allows_extra = schema.get("additionalProperties", False) is not False
    assigned = {
        target.id
        for node in body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assigned |= {node.name for node in body if isinstance(node, ast.FunctionDef)}
    return ArgumentModels(text.rstrip(), class_name, fields, allows_extra, frozenset(classes | imported | assigned))
