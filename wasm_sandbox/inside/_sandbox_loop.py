"""asyncio without sockets: WASI preview 1 has no socket pair, so the stock event loop cannot start."""

import asyncio
import asyncio.base_events
import sys
import time


class _SleepingSelector:
    """A selector with nothing to select on: it only waits for the next timer."""

    def select(self, timeout=None):
        if timeout is None:
            raise RuntimeError("deadlock: every task waits, no timer is set, and there is no I/O in the sandbox")
        if timeout > 0:
            time.sleep(timeout)
        return []

    def get_map(self):
        return {}

    def close(self):
        pass


class SandboxEventLoop(asyncio.base_events.BaseEventLoop):
    """Timers, tasks, futures and queues; no sockets, pipes, signals or threads."""

    def __init__(self):
        super().__init__()
        self._selector = _SleepingSelector()

    def _process_events(self, event_list):
        pass

    def _write_to_self(self):
        pass


class SandboxEventLoopPolicy(asyncio.DefaultEventLoopPolicy):
    _loop_factory = SandboxEventLoop


def install():
    """Make `SandboxEventLoop` the loop of `asyncio.run`, `Runner` and `new_event_loop`."""
    asyncio.DefaultEventLoopPolicy._loop_factory = SandboxEventLoop  # of one that is set later, or made by the library
    asyncio.set_event_loop_policy(SandboxEventLoopPolicy())
    asyncio.EventLoop = asyncio.SelectorEventLoop = SandboxEventLoop
    if unix_events := sys.modules.get("asyncio.unix_events"):
        unix_events.SelectorEventLoop = unix_events._UnixSelectorEventLoop = SandboxEventLoop
