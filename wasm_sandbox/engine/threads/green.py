"""Green threads of gevent and eventlet: what they may not replace, and how a caller waits beside them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import BuiltinFunctionType
from typing import Any

from wasm_sandbox.errors import HostError


def check_threads() -> None:
    """Refuse threads that are green ones, which no deadline of a guest could interrupt.

    Raises:
        HostError: if `threading` is patched.
    """
    if not isinstance(threading.get_ident, BuiltinFunctionType):
        raise HostError(
            "guests need native threads, and this process has replaced them by green ones: leave threads as they are "
            "(gevent: monkey.patch_all(thread=False, subprocess=False); eventlet: monkey_patch(thread=False)); a call "
            "then lets other greenlets go on while it waits"
        )


def check_processes() -> None:
    """Refuse child processes that only a green thread can start.

    Raises:
        HostError: if `subprocess` is patched.
    """
    popen = getattr(sys.modules.get("subprocess"), "Popen", None)
    if popen is not None and popen.__module__.startswith("gevent."):  # eventlet's can be used on any thread
        raise HostError(
            "a process has to be started, and this process can start one from green threads only: leave subprocess as "
            "it is (gevent: monkey.patch_all(thread=False, subprocess=False))"
        )


def wait_beside_green_threads() -> Callable[[Callable[[], object]], Any] | None:
    """What does something on a native thread while the other green threads of the calling one go on.

    Returns:
        A function that takes what to do, and returns when it is done; None if the calling thread has no green ones.
    """
    if "gevent" in sys.modules:
        hub = sys.modules["gevent._hub_local"].get_hub_if_exists()
        if hub is not None:
            return hub.threadpool.apply  # type: ignore[no-any-return]  # gevent has no types here
    if "eventlet.hubs" in sys.modules and hasattr(sys.modules["eventlet.hubs"]._threadlocal, "hub"):
        from eventlet import tpool  # lazy: only where it is in use

        return tpool.execute  # type: ignore[no-any-return]  # eventlet has no types
    return None
