"""Host functions of a run: from the caller's option to the calls of the run, and from these to its result."""

from __future__ import annotations

import inspect
from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from wasm_sandbox.engine import leaves_guests
from wasm_sandbox.functions import Functions, HostFunction, Parameter, RunCalls
from wasm_sandbox.limits import Limits
from wasm_sandbox.options import RunOptions
from wasm_sandbox.results import CodeResult, ToolExecutionResult, Usage, amend
from wasm_sandbox.tool.definition import Tool

if TYPE_CHECKING:
    from wasm_sandbox.egress import RunConnections

R = TypeVar("R", CodeResult, ToolExecutionResult)

_NONE = Functions()

RunTool = Callable[[Tool, Mapping[str, Any]], ToolExecutionResult]


def functions_of(given: Any, run_tool: RunTool) -> Functions:
    """Host functions of the option ``functions``.

    Args:
        given: value of the option.
        run_tool: runs a tool that is among them.

    Raises:
        TypeError: if it is no list of callables and tools, and no mapping of names of modules to such.
        ValueError: if a name is no name or is there twice in a module, or a type cannot be checked.
    """
    if isinstance(given, Functions):
        return given
    if not given:
        return _NONE
    if isinstance(given, Mapping):
        return Functions({module: _members(members, run_tool) for module, members in given.items()})
    return Functions(_members(given, run_tool))


def _members(given: Any, run_tool: RunTool) -> Sequence[Any]:
    if isinstance(given, str) or not isinstance(given, Sequence | set | frozenset):
        raise TypeError(f"functions must be a list, or map names of modules to lists, not be a {type(given).__name__}")
    return [_of_tool(member, run_tool) if isinstance(member, Tool) else member for member in given]


def _of_tool(tool: Tool, run_tool: RunTool) -> HostFunction:
    """A tool as a host function: each call of it is a run of its own."""

    def call(**kwargs: Any) -> Any:
        result = run_tool(tool, kwargs)
        if (error := result.error) is not None:
            raise RuntimeError(f"{tool.name}: {error.exception_name or error.kind}: {error.message}")
        return result.func_return

    schema = (tool.json_schema or {}).get("parameters") or {}
    required = schema.get("required") or ()
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = sorted(schema.get("properties") or {}, key=lambda name: name not in required)
    parameters = tuple(Parameter(name, kind, Any, name not in required, _LEFT_OUT, False) for name in names)
    return HostFunction(
        tool.name,
        call,
        tool.description or "",
        parameters,
        inspect.Signature.empty,
        is_async=False,
        own_schema=schema or None,
    )


class _LeftOut:
    """Default of a tool's parameter, which only the tool itself knows."""

    def __repr__(self) -> str:
        return "..."


_LEFT_OUT = _LeftOut()


def calls_of(
    functions: Functions,
    options: RunOptions,
    loop: AbstractEventLoop | None = None,
    network: RunConnections | None = None,
    **listeners: Any,
) -> RunCalls:
    """Calls of one run, and its connections.

    Args:
        functions: what the guest may call.
        options: options of the run, checked.
        loop: event loop of the caller, if it has one that is free.
        network: connections that are kept from run to run, of a session; by default those of the options.
        listeners: ``on_display``, ``on_progress``, ``on_call`` of `RunCalls`.
    """
    limits = options["limits"]
    assert isinstance(limits, Limits)
    if network is None and options["network"] is not None:
        from wasm_sandbox.sandbox.networking import connections_of  # lazy: only for runs with a network

        network = connections_of(options, loop)
    elif network is not None:
        from wasm_sandbox.sandbox.networking import ask_on  # lazy: as above

        ask_on(network, loop)

    def is_held() -> bool:
        return options["isolation"] == "thread" and (bool(options["mounts"]) or not leaves_guests())

    return RunCalls(functions, limits, options.get("gate"), loop, network=network, is_apart=is_held, **listeners)


def with_calls(result: R, calls: RunCalls) -> R:
    """A result, which nobody has yet, with the calls of its run."""
    usage = result.usage or Usage.model_construct(fuel=None, wall_seconds=0.0, peak_memory_bytes=0)
    counted = {
        "host_calls": len(calls.calls),
        "host_seconds": calls.seconds,
        "host_bytes_in": calls.bytes_in,
        "host_bytes_out": calls.bytes_out,
    }
    update: dict[str, Any] = {"calls": list(calls.calls), "usage": amend(usage, counted)}
    if isinstance(result, CodeResult):
        update["displays"] = list(calls.displays)
    made = amend(result, update)
    if calls.network is None:
        return made
    from wasm_sandbox.sandbox.networking import with_connections  # lazy: only for runs with a network

    return with_connections(made, calls.network)
