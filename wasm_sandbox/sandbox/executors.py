"""Executors of guests: a thread of this process, or a worker process."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from wasm_sandbox import engine, images, workers
from wasm_sandbox.options import Isolation, check_isolation

if TYPE_CHECKING:
    from wasm_sandbox.engine import ImageSource
    from wasm_sandbox.outcome import Outcome
    from wasm_sandbox.request import ExecutionRequest


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
    check_isolation(isolation, image=source, mounts=request.given and request.given.mounts)
    if isolation == "process":
        return workers.process_pool().start(request, abandoned)
    surroundings = engine.surroundings_for(request.limits, abandoned)
    try:
        future = engine.process_engine().start(request, surroundings, source or images.default_source())
    except BaseException:  # a signal handler's, when the guest may be on its way
        surroundings.cancel()
        raise
    return future, surroundings.cancel
