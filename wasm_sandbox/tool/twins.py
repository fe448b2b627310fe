"""Async twins of methods that block: the same call, made in a thread where it would hold up the event loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from inspect import cleandoc
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


def async_twin(
    method: Callable[Concatenate[S, P], R], name: str | None = None, blocks: Callable[[S], bool] = lambda _: True
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Async method with the parameters and result of a blocking one.

    The blocking method is looked up on the object by name, so a subclass that overrides it changes both.

    Args:
        method: the blocking method.
        name: name of the twin; by default that of ``method`` with ``_async``.
        blocks: whether a call would block now. Otherwise it is made on the event loop's own thread.
    """
    blocking_name = method.__name__
    name = name or f"{blocking_name}_async"

    @wraps(method)
    async def twin(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        blocking: Callable[P, R] = getattr(self, blocking_name)
        if not blocks(self):
            return blocking(*args, **kwargs)
        import asyncio  # lazy: 20 ms, only for async callers

        return await asyncio.to_thread(blocking, *args, **kwargs)

    twin.__name__ = name
    twin.__qualname__ = f"{method.__qualname__.rpartition('.')[0]}.{name}".lstrip(".")
    twin.__doc__ = f"Async twin of `{blocking_name}`, which it calls in a thread.\n\n{cleandoc(method.__doc__ or '')}"
    return twin
