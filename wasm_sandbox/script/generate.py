"""The execution script: one Python source text that calls a tool and prints its framed result.

Two shapes exist. The *plain* one is the text that agent servers have always run. The *guarded* one is for
tools that it cannot serve: those that rebind or delete a name which the script needs, those with
positional-only parameters, and those of which only the call shows whether to await their result.
"""

from __future__ import annotations

import base64
import builtins
import keyword
import re
import typing
import unicodedata
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import accumulate
from textwrap import indent
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from wasm_sandbox.decode.frame import MARKER
from wasm_sandbox.errors import BadArguments, UnsupportedToolError
from wasm_sandbox.script import blocks
from wasm_sandbox.script.arguments import ValuesApart, argument_literal, argument_literals, pickled_agent_state
from wasm_sandbox.script.blocks import RESULT_VAR_NAME, WORD
from wasm_sandbox.script.schema_filter import OBJECTS
from wasm_sandbox.tool.source import ToolSource, detect_async, parse_function_arguments, read_source

if TYPE_CHECKING:
    from wasm_sandbox.script.argument_models import ArgumentModels

__all__ = [
    "RESULT_VAR_NAME",
    "ExecutionScript",
    "ToolDefinition",
    "ToolReading",
    "UnsupportedToolError",
    "detect_async",
    "generate_script",
    "parse_function_arguments",
    "read_tool",
]

_LONG_BYTES = 4096
_ON_FAILURE = "except Exception as e:\n"
_SERIALIZERS = re.compile("erializ|computed_field|core_schema")
"""What a source mentions that has serializers of its own."""
_ARGUMENTS = f"{RESULT_VAR_NAME}_arguments"
_NONE_MARSHALLED = b"N"
_DELIVER = f"{RESULT_VAR_NAME}_deliver"


class ToolDefinition(Protocol):
    """What the script needs to know of a tool; ``wasm_sandbox.Tool`` has it."""

    @property
    def name(self) -> str: ...
    @property
    def source_code(self) -> str: ...
    @property
    def json_schema(self) -> dict[str, Any] | None: ...
    @property
    def args_json_schema(self) -> dict[str, Any] | None: ...


class ExecutionScript(NamedTuple):
    """A script, and where the tool's own source stands in it.

    Attributes:
        text: The whole source; it can be encoded as UTF-8.
        tool_first_line: The line of ``text``, counted from 1, at which the tool's source starts.
        tool_line_count: How many lines the tool's source takes. Its line n is line
            ``tool_first_line + n - 1`` of ``text``, which may differ from the tool's only by a moved
            ``from __future__`` import.
        injects_agent_state: Whether the tool has a parameter ``agent_state``. If it has not, what the
            envelope says about the agent state means nothing.
        argument_lines: The lines that check the arguments, of a tool with an argument schema before its source, of one
            whose annotations are built from behind it: what is raised there is not the tool's exception.
        values: What ``text`` fetches instead of spelling it out, for our own guest only; nothing, unless asked for.
    """

    text: str
    tool_first_line: int
    tool_line_count: int
    injects_agent_state: bool
    argument_lines: tuple[range, ...] = ()
    values: tuple[bytes, ...] = ()


class ToolReading(NamedTuple):
    """What a tool's texts come to, which may take a quarter of a second.

    Attributes:
        source: what its source shows.
        models: the models of its argument schema, if it has one.
        refusal: why the arguments do not fit that schema, if they do not.
    """

    source: ToolSource
    models: ArgumentModels | None = None
    refusal: BadArguments | None = None


def read_tool(tool: ToolDefinition, args: Mapping[str, Any]) -> ToolReading:
    """Read a tool's source and its argument schema, and check the arguments against that.

    Raises:
        UnsupportedToolError: if the tool's name is no Python name, its source is no text, or no models can be
            made of its argument schema.
    """
    _check_tool(tool)
    source = read_source(tool.source_code, tool.name)
    if not tool.args_json_schema:
        return ToolReading(source)
    given = {name: value for name, value in args.items() if name not in source.injected}
    try:
        return ToolReading(source, _models(tool.args_json_schema, source, given))
    except BadArguments as error:
        return ToolReading(source, refusal=error)


def generate_script(
    tool: ToolDefinition,
    args: Mapping[str, Any],
    *,
    agent_state: Any = None,
    agent_id: str | None = None,
    markers: bool = True,
    top_level_await: bool = False,
    marker: bytes = MARKER,
    apart: ValuesApart | None = None,
    functions: Collection[str] | None = None,
    releases: bool = False,
    reading: ToolReading | None = None,
) -> ExecutionScript:
    """Write the script that runs one tool call.

    A source that this Python cannot parse is passed on as it is: the guest's Python may be newer, and if
    that cannot parse it either, the guest reports the error with the tool's own line.

    Args:
        tool: The tool; its source is only read, never executed.
        args: Argument name to value. Names that the tool's JSON schema lacks are dropped; those that its
            argument schema lacks, if it has one, are refused.
        agent_state: A pydantic model, a dataclass, a mapping or ``None``; shipped only to a tool that has a
            parameter of that name.
        agent_id: What a parameter ``agent_id`` receives if the agent state has no ``id``.
        markers: Whether the script writes the framed result to stdout. If not, its last line is an
            expression: the pickled envelope in base64.
        top_level_await: Whether the script may await at module level, as in a notebook.
        marker: The 16 bytes that open the frame.
        apart: Takes big values out of the text, into `ExecutionScript.values`: the same lines do the same, in our
            own guest only.
        functions: names of host functions, None if there are none. Those that the source mentions are global names in
            the script, and all can be imported from their modules.
        releases: whether the script gives the memory of its request back, in a guest that is called again. It does
            that when it has fetched the last of ``apart``'s values, so there is one more.
        reading: what `read_tool` gave for the tool, if it was called before.

    Returns:
        The script.

    Raises:
        BadArguments: if an argument or the agent state cannot be handed to the tool.
        UnsupportedToolError: if the tool's name is no Python name, its source is no text, or no models can be
            made of its argument schema.
    """
    if len(marker) != len(MARKER):
        raise ValueError(f"a marker has {len(MARKER)} bytes, not {len(marker)}")
    source, models, refusal = reading or read_tool(tool, args)
    if refusal is not None:
        raise refusal
    # The injected value wins over an argument of that name.
    given = {name: value for name, value in args.items() if name not in source.injected}
    is_derived = bool(getattr(tool, "derived", False))
    checks: list[str] = []
    if models is None:
        values = argument_literals(tool.json_schema, given, apart, derived=is_derived)
        if is_derived:
            _check_given(tool, source, values)
    else:
        checks = [
            models.source,
            f"args_object = {models.class_name}(**{_dict_literal(_unconverted(models, given, apart))})",
        ]
        values = {name: models.expression(name, "args_object") for name in _passed_on(tool.json_schema, given)}
    _check_distinct(values)
    state = pickled_agent_state(agent_state) if "agent_state" in source.injected else None
    called = _mentioned(tool.source_code, functions or ()) - {tool.name.partition(".")[0]}
    explains = _SERIALIZERS.search(tool.source_code) is not None
    builds = is_derived and models is None and source.builds and bool(values)
    call = _Call(
        tool.name,
        source,
        values,
        models,
        state is not None,
        markers,
        top_level_await,
        marker,
        called,
        explains,
        builds,
    )

    before = [f"from __future__ import {', '.join(source.futures)}"] if source.futures else []
    before.append(blocks.IMPORTS)
    if source.kind != "sync":
        before.append("import asyncio")
    before += [blocks.CLIENT_IMPORT, *checks[:1], *_agent_state_blocks(source, state, apart), blocks.CLIENT]
    if "agent_id" in source.injected:
        before.append(f"agent_id = {_agent_id(agent_state, agent_id)!r}")
    before += checks[1:]
    before += _guest_blocks(functions, called, apart if releases else None)
    if explains:
        before.append(blocks.EXPLAINER)
    if call.needs_guard:
        before.append(_guard(call))
        after = [f"{'await ' if top_level_await else ''}{_DELIVER}({tool.name})"]
        if builds:
            after.insert(0, f"{blocks.BIND}({tool.name})")
    else:
        arguments, after = _plain_call(call)
        before += arguments
    starts = [*accumulate(map(_line_count, before), initial=1)]
    behind = starts[-1] + _line_count(source.text)
    checking = [range(*starts[i : i + 2]) for i, block in enumerate(before) if block in checks]
    if builds:
        checking.append(range(behind, behind + 1))
    return ExecutionScript(
        text="\n".join([*before, *([source.text] if source.text else []), *after]) + "\n",
        tool_first_line=starts[-1],
        tool_line_count=_line_count(source.text),
        injects_agent_state="agent_state" in source.injected,
        argument_lines=tuple(checking),
        values=tuple(apart.data) if apart else (),
    )


def _guest_blocks(
    functions: Collection[str] | None, called: frozenset[str], released: ValuesApart | None
) -> Iterator[str]:
    """Blocks that ask our own guest for host functions, and that give the memory of its request back."""
    if functions is not None:
        names = ", ".join(map(repr, sorted(called)))
        yield f"globals().update(__import__('_sandbox_live').functions({names}))"
    if released is not None:
        released.data.append(_NONE_MARSHALLED)
        yield f"__import__('_sandbox_guest').value({len(released.data) - 1})"


_PREDEFINED = frozenset({*dir(builtins), *typing.__all__, "os", "sys", "base64", "client", "Letta", "AgentState"})
"""Names that a tool may read without defining them."""

_READ_BY_SCRIPTS = frozenset({*dir(builtins), "asyncio", "base64", "hashlib", "os", "pickle", "struct", "sys", "Letta"})
"""Names that some part of a script reads after the models."""

_WRAPPER_LOCALS = frozenset(
    {
        *("_async_wrapper", "_function_result", "_TempResultWrapper", "_wrapped", "_serialized_result"),
        *("BaseModel", "ConfigDict", "Any", "e"),
    }
)
"""What the plain text of an async call binds around the call."""


class _Call(NamedTuple):
    """One call of the tool: everything that its text depends on."""

    tool_name: str
    source: ToolSource
    values: Mapping[str, str]
    models: ArgumentModels | None
    has_agent_state: bool
    markers: bool
    top_level_await: bool
    marker: bytes
    functions: frozenset[str] = frozenset()
    """Names of host functions, which are global names before the tool's source."""
    explains: bool = False
    """Whether the tool may have serializers of its own."""
    builds: bool = False
    """Whether the guest builds the arguments as the annotations say."""

    @property
    def tool_root(self) -> str:
        return self.tool_name.partition(".")[0]

    @property
    def needs_guard(self) -> bool:
        source = self.source
        return (
            self.builds
            or source.changes_globals
            or source.kind == "unknown"
            or bool(source.positional_only)
            or not (source.rebinds | self.functions).isdisjoint(self.names_read_after_the_tool)
            or (source.kind == "async" and self.tool_root in _WRAPPER_LOCALS)
        )

    @property
    def names_read_after_the_tool(self) -> frozenset[str]:
        names = {"Exception", "ImportError", "agent_state", "pickle", "print", "str"}
        names |= {"hashlib", "len", "struct", "sys"} if self.markers else {"base64"}
        names |= {"asyncio"} if self.source.kind == "async" else set()
        return frozenset(names | ({"_agent_state_as", "dict"} if self.has_agent_state else set()))

    def may_be_global(self, name: str) -> bool:
        """Whether an argument can be assigned to a global of its name without changing anything else."""
        canonical = unicodedata.normalize("NFKC", name)  # as Python reads it
        taken = self.names_read_after_the_tool | self.source.binds | self.functions | {self.tool_root}
        if self.source.kind == "async":
            taken |= _WRAPPER_LOCALS
        if self.models is not None:
            taken |= {"args_object", *self.models.binds}
        return (
            _is_variable_name(name)
            and not canonical.startswith("__")
            and not canonical.startswith(RESULT_VAR_NAME)
            and canonical not in taken
            and not (canonical in _PREDEFINED and canonical in self.source.reads)
        )


def _check_tool(tool: ToolDefinition) -> None:
    if not all(_is_variable_name(part) for part in tool.name.split(".")):
        raise UnsupportedToolError(f"the tool's name {tool.name!r} is no Python name; give it the name of its function")
    if not isinstance(tool.source_code, str):
        raise UnsupportedToolError(
            f"the source of tool {tool.name!r} is no text but {type(tool.source_code).__name__}; give it as str",
            in_source=True,
        )
    if "\0" in tool.source_code:
        line = tool.source_code.partition("\0")[0].count("\n") + 1
        raise UnsupportedToolError(
            f"the source of tool {tool.name!r} has a NUL byte in line {line}, which no Python source can; remove it",
            in_source=True,
        )
    try:
        tool.source_code.encode()
    except UnicodeEncodeError:
        raise UnsupportedToolError(
            f"the source of tool {tool.name!r} has a lone surrogate, which no file can hold; escape it",
            in_source=True,
        ) from None


def _mentioned(source: str, names: Collection[str]) -> frozenset[str]:
    """Those of some names that are words of a source."""
    return frozenset(WORD.findall(source)).intersection(names) if names else frozenset()


def _passed_on(json_schema: Mapping[str, Any] | None, args: Mapping[str, Any]) -> list[str]:
    """The arguments that the JSON schema names; all of them if it names none at all."""
    parameters = (json_schema or {}).get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
    return [name for name in args if not isinstance(properties, Mapping) or name in properties]


def _models(args_json_schema: Mapping[str, Any], source: ToolSource, args: Mapping[str, Any]) -> ArgumentModels:
    """The models, so named that they hide no name from the script or the tool.

    Raises:
        BadArguments: if the arguments do not fit what the schema says beyond the models.
        UnsupportedToolError: if no models can be made of it.
    """
    required = args_json_schema.get("required")
    if source.injected and isinstance(required, list):  # what is injected need not be given
        required = [name for name in required if name not in source.injected]
        args_json_schema = {**args_json_schema, "required": required}
    from wasm_sandbox.script.argument_models import canonical, models_of  # lazy: only for tools with a schema
    from wasm_sandbox.script.schema_check import argument_check  # lazy: only for tools with a schema

    schema_text = canonical(args_json_schema)
    check = argument_check(schema_text)
    as_is = check.as_is(args)
    objects = frozenset(name for name, names in source.annotations.items() if not names.isdisjoint(OBJECTS))
    models = models_of(schema_text, objects=objects, as_is=as_is)
    check.check(args, as_is)
    reads = _PREDEFINED if source.changes_globals else source.reads & _PREDEFINED
    if models.binds.isdisjoint(_READ_BY_SCRIPTS | reads):
        return models
    return models_of(schema_text, suffix="Schema", objects=objects, as_is=as_is)


def _unconverted(models: ArgumentModels, args: Mapping[str, Any], apart: ValuesApart | None) -> dict[str, str]:
    """Literals of arguments that the models will check and convert."""
    for name in args:
        if name not in models.fields and not models.allows_extra:
            known = ", ".join(models.fields) or "none"
            raise BadArguments(f"the tool's args_json_schema has no such property (it has: {known})", name)
    return {name: argument_literal({}, value, name, apart=apart) for name, value in args.items()}


def _is_variable_name(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(unicodedata.normalize("NFKC", name))


def _check_given(tool: ToolDefinition, source: ToolSource, values: Mapping[str, str]) -> None:
    """Refuse a call without an argument that the tool's signature requires."""
    required = (tool.json_schema or {}).get("parameters", {}).get("required", ())
    if missing := [name for name in required if name not in values and name not in source.injected]:
        others = f" (and so are {', '.join(map(repr, missing[1:]))})" if missing[1:] else ""
        raise BadArguments(f"it is required, and missing{others}; pass it", missing[0])


def _check_distinct(names: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(unicodedata.normalize("NFKC", name), name)
        if other != name:
            raise BadArguments(f"Python reads its name as that of {other!r}; rename one", name)


def _dict_literal(values: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{name!r}: {value}" for name, value in values.items()) + "}"


def _plain_call(call: _Call) -> tuple[list[str], list[str]]:
    """The blocks before and after the tool's source."""
    assigned = {name: value for name, value in call.values.items() if call.may_be_global(name)}
    kept = {name: value for name, value in call.values.items() if name not in assigned}
    before = [f"{name} = {value}" for name, value in assigned.items()]
    if kept:
        before.append(f"{_ARGUMENTS} = {_dict_literal(kept)}")
    keywords = [f"{name}={name}" for name in (*assigned, *call.source.injected)]
    if kept:
        keywords.append(f"**{_ARGUMENTS}")
    expression = f"{call.tool_name}({', '.join(keywords)})"
    state = "_agent_state_as(dict, agent_state)" if call.has_agent_state else "agent_state"
    envelope = f'{{\n    "results": _serialized_result,\n    "agent_state": {state}\n}}'
    serialize = blocks.SERIALIZE
    if call.explains:
        serialize = serialize.replace(_ON_FAILURE, f"{_ON_FAILURE}    {blocks.EXPLAIN}(_function_result, e)\n")
    if call.source.kind == "async":
        body = f"_function_result = await {expression}\n{serialize}\nreturn {envelope}"
        run = "await _async_wrapper()" if call.top_level_await else "asyncio.run(_async_wrapper())"
        result = f"async def _async_wrapper():\n{indent(body, '    ')}\n{RESULT_VAR_NAME} = {run}"
    else:
        result = f"_function_result = {expression}\n{serialize}\n{RESULT_VAR_NAME} = {envelope}"
    output = blocks.FRAME.format(RV=RESULT_VAR_NAME, marker=call.marker) if call.markers else blocks.BASE64
    return before, [result, blocks.PICKLE, output]


def _guard(call: _Call) -> str:
    """The block before the tool's source that holds everything the script will need after it."""
    positional, named = _bound_by_kind(call)
    settle = "await settled(value)" if call.top_level_await else "asyncio.run(settled(value))"
    state = "agent_state, _agent_state_as" if call.has_agent_state else "agent_state, None"
    head = blocks.GUARD_HEAD
    if call.explains:
        explained = f"        {_ON_FAILURE}            explain(value, e)\n"
        head = head.replace(f"        {_ON_FAILURE}", explained) + f"\n    explain = {blocks.EXPLAIN}\n"
    return "\n".join(
        [
            head,
            *([blocks.GUARD_BIND] if call.builds else []),
            f"    {'async ' if call.top_level_await else ''}def deliver(tool):",
            "        value = tool(*positional, **named)",
            "        if inspect.isawaitable(value):",
            f"            value = {settle}",
            blocks.GUARD_PICKLE,
            blocks.GUARD_FRAME.format(marker=call.marker) if call.markers else blocks.GUARD_BASE64,
            "",
            f"    builtins.{_DELIVER} = deliver",
            f"{blocks.GUARD}([{', '.join(positional)}], {_dict_literal(named)}, {state})",
        ]
    )


def _bound_by_kind(call: _Call) -> tuple[list[str], dict[str, str]]:
    """Source of the values to pass by position, and of those to pass by name."""
    named = {**call.values, **{name: name for name in call.source.injected}}
    positional: list[str] = []
    missing: str | None = None
    for name in call.source.positional_only:
        if name not in named:
            missing = missing or name
        elif missing is not None:
            raise BadArguments(f"it is positional-only, so {missing!r} must be given too", name)
        else:
            positional.append(named.pop(name))
    return positional, named


def _agent_state_blocks(source: ToolSource, state: bytes | None, apart: ValuesApart | None) -> list[str]:
    if "agent_state" not in source.injected:
        return ["agent_state = None"]
    if state is None:
        value = "None"
    else:
        data = (apart.source(state) if apart else None) or _bytes_source(state)
        value = f"_agent_state_as(AgentState, pickle.loads({data}))"
    return [blocks.AGENT_STATE, f"agent_state = {value}"]


def _bytes_source(data: bytes) -> str:
    """Bytes as source: readable, unless four characters a byte (of letters beyond ASCII) would cost the guest much."""
    literal = repr(data)
    if len(data) < _LONG_BYTES or len(literal) < 1.4 * len(data):
        return literal
    packed = base64.b64encode(zlib.compress(data, level=1)).decode()
    return f"__import__('zlib').decompress(base64.b64decode({packed!r}))"


def _agent_id(agent_state: Any, agent_id: str | None) -> str | None:
    found = agent_state.get("id") if isinstance(agent_state, Mapping) else getattr(agent_state, "id", None)
    return str(found) if found else agent_id


def _line_count(text: str) -> int:
    return text.count("\n") + text.count("\r") - text.count("\r\n") + 1 if text else 0
