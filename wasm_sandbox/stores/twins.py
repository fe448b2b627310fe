"""Async twins of methods that block: the same call, made in a thread."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from inspect import cleandoc
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


def async_twin(
    method: Callable[Concatenate[S, P], R],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Async method with the parameters and result of a blocking one, and its name with ``_async``.

    The blocking method is looked up on the object by name, so a subclass that overrides it changes both.
    """
    name = method.__name__

    @wraps(method)
    async def twin(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        import asyncio  # lazy: 20 ms, only for async callers

        blocking: Callable[P, R] = getattr(self, name)
        return await asyncio.to_thread(blocking, *args, **kwargs)

    twin.__name__ = f"{name}_async"
    twin.__qualname__ = f"{method.__qualname__}_async"
    twin.__doc__ = f"Async twin of `{name}`, which it calls in a thread.\n\n{cleandoc(method.__doc__ or '')}"
    return twin
