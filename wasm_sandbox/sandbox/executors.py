"""Where guests run: on a thread of this process, or in a process of their own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Literal, get_args

from wasm_sandbox.errors import UnsupportedIsolation

if TYPE_CHECKING:
    from wasm_sandbox.engine.compiled.loaded import ImageSource
    from wasm_sandbox.outcome import Outcome
    from wasm_sandbox.request import ExecutionRequest

Isolation = Literal["thread", "process"]
"""``"thread"``: WebAssembly alone holds the guest, on a thread of this process. ``"process"``: the same in a worker
process, which has no environment and, where the platform can take them away, no files and no network."""


def check_isolation(isolation: str, *, image: object = None, mounts: object = None) -> None:
    """Refuse a name that is none, and what worker processes cannot do.

    Args:
        isolation: the name.
        image: the image to run in, if it is not the default one.
        mounts: directories of the host, if there are any.

    Raises:
        UnsupportedIsolation: it is not one of `Isolation`; or it is ``"process"``, and there is an image or a mount.
    """
    if isolation not in get_args(Isolation):
        raise UnsupportedIsolation(f'isolation must be "thread" or "process", not {isolation!r}')
    if isolation == "thread":
        return
    if image is not None:
        raise UnsupportedIsolation(
            'isolation="process" runs the default image only: leave out image, or take "thread"; an exported image '
            "can be made the default one with WASM_SANDBOX_IMAGE"
        )
    if mounts:
        raise UnsupportedIsolation(
            'isolation="process" has no mounts, for its workers can open nothing: give files instead, or take "thread"'
        )


def start_guest(
    request: ExecutionRequest,
    isolation: Isolation,
    abandoned: Callable[[], bool] | None = None,
    source: ImageSource | None = None,
) -> tuple[Future[Outcome], Callable[[], None]]:
    """Start a run.

    Args:
        request: the script, its environment and its limits.
        isolation: where the guest runs.
        abandoned: tells that nobody waits any more, for callers that can go without saying so.
        source: of the image to run it in; the default image if not given.

    Returns:
        A future of its outcome, and a function that stops it.

    Raises:
        HostError: this host cannot run guests; the future may raise it, too.
        UnsupportedIsolation: a worker process cannot do what is asked for.
    """
    check_isolation(isolation, image=source, mounts=request.given and request.given.mounts)
    if isolation == "process":
        from wasm_sandbox.workers.pool import process_pool

        return process_pool().start(request, abandoned)
    from wasm_sandbox.engine.engine import process_engine
    from wasm_sandbox.engine.world.surroundings import surroundings_for

    surroundings = surroundings_for(request.limits, abandoned)
    return process_engine().start(request, surroundings, source), surroundings.cancel
