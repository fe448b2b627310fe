"""Executors of guests, a thread of this process or a worker process, and the requests that they take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from wasm_sandbox import engine, images, workers
from wasm_sandbox.options import Isolation, check_isolation
from wasm_sandbox.request import ExecutionRequest
from wasm_sandbox.script.cells import CellScript

if TYPE_CHECKING:
    from wasm_sandbox.engine import ImageSource
    from wasm_sandbox.functions import RunCalls
    from wasm_sandbox.limits import Limits
    from wasm_sandbox.outcome import Outcome
    from wasm_sandbox.script.generate import ExecutionScript


def start_guest(
    request: ExecutionRequest,
    isolation: Isolation,
    abandoned: Callable[[], bool] | None = None,
    source: ImageSource | None = None,
) -> tuple[Future[Outcome], Callable[[], None]]:
    """Start a run.

    Args:
        request: the script, its environment and its limits.
        isolation: executor of the guest.
        abandoned: whether nobody waits any more, for callers that can go without saying so.
        source: source of the image to run it in; by default the default image.

    Returns:
        A future of the outcome, and a function that stops the run.

    Raises:
        HostError: if this host cannot run guests; the future may raise it, too.
        UnsupportedIsolation: if a worker process cannot do what is asked for.
    """
    check_isolation(isolation, request.given and request.given.mounts)
    source = source or images.default_source()
    if isolation == "process":
        return workers.process_pool().start(request, abandoned, source=source)
    surroundings = engine.surroundings_for(request.limits, abandoned)
    try:
        future = engine.process_engine().start(request, surroundings, source)
    except BaseException:  # a signal handler's, when the guest may be on its way
        surroundings.cancel()
        raise
    return future, surroundings.cancel


def environ_of(environ: Mapping[str, str], calls: RunCalls | None) -> Mapping[str, str]:
    """Environment of a guest, with placeholders of the secrets of its network."""
    return environ if calls is None or calls.network is None else {**environ, **calls.network.environ}


def request_of(
    script: ExecutionScript | CellScript,
    environ: Mapping[str, str],
    limits: Limits,
    calls: RunCalls | None,
    **rest: Any,
) -> ExecutionRequest:
    """Request to run a script, beside the calls and the connections of its run.

    Args:
        script: what is run.
        environ: environment of the guest, without the placeholders of secrets.
        limits: limits of the run.
        calls: other end of the guest's channel, if there is one.
        rest: further fields of the request.
    """
    return ExecutionRequest(
        script.text,
        environ_of(environ, calls),
        limits,
        values=script.values,
        call=script.call if isinstance(script, CellScript) else b"",
        peer=calls,
        has_network=calls is not None and calls.network is not None,
        **rest,
    )
