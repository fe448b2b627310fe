"""Network of a run: from the caller's option to the connections of the run, and from these to its result."""

from __future__ import annotations

import contextvars
import inspect
import sys
from asyncio import AbstractEventLoop, run_coroutine_threadsafe
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, TypeVar

from wasm_sandbox.egress import RunConnections, RunSecrets
from wasm_sandbox.errors import HostError
from wasm_sandbox.functions import Deny, private_loop, thread_pool
from wasm_sandbox.network import Network
from wasm_sandbox.options import RunOptions
from wasm_sandbox.request import Connections
from wasm_sandbox.results import CodeResult, Request, ToolError, ToolExecutionResult

R = TypeVar("R", CodeResult, ToolExecutionResult)

MAX_DEPTH = 50
"""Depth to which a value is looked through for secrets."""


def connections_of(
    options: RunOptions,
    loop: AbstractEventLoop | None = None,
    is_kept: bool = False,
    placeholders: Mapping[str, str] = MappingProxyType({}),
) -> RunConnections | None:
    """Connections of the option ``network``; None if there is no network.

    Args:
        options: options of the run, checked.
        loop: event loop of the caller, if it has one that is free, for an async ``on_request``.
        is_kept: whether they outlive a run, as those of a session.
        placeholders: what the guest has in place of secrets already; hostile.

    Raises:
        HostError: if what a network needs is not installed.
        InvalidNetwork: if answers are to be replayed from a file that is no cassette.
    """
    network = options["network"]
    if network is None:
        return None
    assert isinstance(network, Network)
    if sys.modules.get("h11") is None and find_spec("h11") is None:
        raise HostError("a network needs h11, which is not installed: pip install 'wasm-sandbox[network]'")
    made = RunConnections(network, RunSecrets(network.secrets, network.replay is not None, placeholders), is_kept)
    ask_on(made, loop)
    return made


def ask_on(connections: RunConnections, loop: AbstractEventLoop | None) -> None:
    """Let an async ``on_request`` run on the event loop of the caller, if it has one that is free."""
    gate = connections.network.on_request
    connections.ask = None if gate is None else _asking(gate, loop)


def _asking(gate: Callable[[Request], Any], loop: AbstractEventLoop | None) -> Callable[[Request], Future[str | None]]:
    """Gate of the caller, asked beside the guest: a plain function on a thread, an async one on the event loop."""
    context = contextvars.copy_context()

    def ask(request: Request) -> Future[str | None]:
        decided: Future[str | None] = Future()

        def settle(future: Future[Any]) -> None:
            if future.cancelled() or future.exception() is not None:
                decided.set_result("the request was not allowed")
            elif inspect.isawaitable(answer := future.result()):
                run_coroutine_threadsafe(_awaited(answer), loop or private_loop()).add_done_callback(settle)
            else:
                decided.set_result(_reason(answer))

        if inspect.iscoroutinefunction(gate):
            run_coroutine_threadsafe(_awaited(gate(request)), loop or private_loop()).add_done_callback(settle)
        else:
            thread_pool().submit(context.copy().run, gate, request).add_done_callback(settle)
        return decided

    return ask


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _reason(decision: object) -> str | None:
    if decision is None:
        return None
    return decision.reason if isinstance(decision, Deny) else "the request was not allowed"


def with_connections(result: R, network: Connections) -> R:
    """A result with the connections of its run, and without the values of secrets; what was recorded is written.

    Raises:
        InvalidNetwork: if it cannot be written.
    """
    network.save()
    update: dict[str, Any] = {"connections": list(network.connections), "requests": list(network.requests)}
    fields = ("stdout", "stderr", "func_return", "agent_state", "value", "text", "displays")
    for field in fields:
        if (found := getattr(result, field, None)) is not None:
            update[field] = _scrubbed(found, network)
    if (error := result.error) is not None:
        shown = {name: network.scrub(value) for name in _TEXTS if (value := getattr(error, name)) is not None}
        update["error"] = error.model_copy(update=shown)
    return result.model_copy(update=update)


_TEXTS = tuple(name for name in ToolError.model_fields if name != "kind")


def _scrubbed(value: Any, network: Connections, depth: int = 0) -> Any:
    """A value with its texts and bytes scrubbed, as far as it is made of plain containers."""
    if type(value) is str:
        return network.scrub(value)
    if type(value) is bytes:
        return network.scrub_bytes(value)
    if depth > MAX_DEPTH:
        return value
    if type(value) is dict:
        return {_scrubbed(k, network, depth + 1): _scrubbed(v, network, depth + 1) for k, v in value.items()}
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(_scrubbed(item, network, depth + 1) for item in value)
    return value
