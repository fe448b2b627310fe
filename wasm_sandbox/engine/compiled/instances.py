"""Instances made ahead: whoever tears one down makes the next, so that a run finds a fresh one ready.

Every instance is used for one run. What waits here has run nothing yet.
"""

from __future__ import annotations

import logging
import os
import threading

import wasmtime

from wasm_sandbox.engine.binding import capi
from wasm_sandbox.engine.memory.base import LinearMemory
from wasm_sandbox.engine.memory.slots import ImageMemory, Slot
from wasm_sandbox.engine.module.metering import FUEL_EXPORT
from wasm_sandbox.errors import HostError

MAX_IDLE = max(4, 2 * (os.cpu_count() or 1))
"""Instances of an image that wait for a run. With memory of ours, each keeps up to `slots.MOST_KEPT_BYTES`."""

USED_EXPORTS = ("sandbox_alloc", "sandbox_run", FUEL_EXPORT)
"""What every run of our own guest asks an instance for."""

_log = logging.getLogger(__name__)


class FreshInstance:
    """An instance that nothing has run in, with its store, and its memories if those are ours."""

    def __init__(self, memory: LinearMemory, pre: wasmtime.InstancePre, slot: Slot | None) -> None:
        self.store, self.slot = wasmtime.Store(memory.engine), slot
        try:
            self.instance = memory.instance(self.store, pre, slot)
        except BaseException:
            self.store.close()
            raise


# Guarantees:
# - an instance that is taken is nobody else's, and is never given out again;
# - what waits here has run nothing.
# Lock: `_lock` guards `_idle` and `_most`; nothing is made or torn down while it is held.
class InstancePool:
    """The instances of one image.

    Args:
        memory: where the memory of instances comes from.
        pre: what they are made of.
        image: what their memory starts as, where it is ours and not in the module.
        ahead: whether instances may be made ahead: not if making one runs code of the guest.
    """

    def __init__(
        self, memory: LinearMemory, pre: wasmtime.InstancePre, image: ImageMemory | None, ahead: bool = True
    ) -> None:
        self._memory, self._pre, self._image = memory, pre, image
        self._most = MAX_IDLE if ahead else 0
        self._idle: list[FreshInstance] = []
        self._lock = threading.Lock()

    @property
    def image(self) -> ImageMemory | None:
        """What the memory of an instance starts as, where it is ours."""
        return self._image

    @property
    def idle(self) -> list[FreshInstance]:
        """The instances that wait for a run."""
        with self._lock:
            return list(self._idle)

    def take(self) -> FreshInstance:
        """A fresh instance, to be given to `replace` after its run.

        Raises:
            HostError: the system gives no memory for one more.
            GuestStopped: the module cannot be instantiated.
        """
        with self._lock:
            if self._idle:
                return self._idle.pop()  # the last one is in the processor's caches
        try:
            slot = self._image.new_slot() if self._image is not None else None
        except OSError as error:
            raise HostError(
                f"the system gives no memory for one more guest ({error.strerror or error}): "
                "run fewer at once, or raise its limit of address space (ulimit -v)"
            ) from error
        return FreshInstance(self._memory, self._pre, slot)

    def replace(self, used: FreshInstance) -> None:
        """Tear down an instance that has been used, and put a fresh one in its place, unless enough are waiting."""
        used.store.close()
        with self._lock:
            if len(self._idle) >= self._most:
                return
        try:
            if used.slot is not None:
                used.slot.restore()
            fresh = FreshInstance(self._memory, self._pre, used.slot)
            fresh.instance.look_up(*USED_EXPORTS)
        except (OSError, capi.GuestStopped) as error:
            _log.warning("no instance can be made ahead: %s", error)
            return
        with self._lock:
            if len(self._idle) < self._most:
                self._idle.append(fresh)
                return
        fresh.store.close()

    def close(self) -> None:
        """Tear down what is waiting, and make nothing ahead any more."""
        with self._lock:
            idle, self._idle, self._most = self._idle, [], 0
        for fresh in idle:
            fresh.store.close()
