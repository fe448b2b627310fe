"""Pool of instances made ahead: whoever tears one down makes the next, so that a run finds a fresh one ready.

Every instance is used for one run, or kept by one session. What waits here has run nothing yet.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import ExitStack

import wasmtime

from wasm_sandbox.engine.binding import capi
from wasm_sandbox.engine.memory.base import LinearMemory
from wasm_sandbox.engine.memory.slots import ImageMemory, Slot
from wasm_sandbox.engine.module.metering import FUEL_EXPORT
from wasm_sandbox.errors import HostError

MAX_IDLE = max(4, 2 * (os.cpu_count() or 1))
"""Most idle instances of an image. With memory of ours, each keeps up to `slots.MOST_KEPT_BYTES`."""

USED_EXPORTS = ("sandbox_alloc", "sandbox_run", FUEL_EXPORT)
"""Exports that every run of our own guest uses."""

_log = logging.getLogger(__name__)


class PooledInstance:
    """Instance with its store, and its memories if those are ours; when it is made, nothing has run in it.

    Raises:
        GuestStopped: if the module cannot be instantiated.
    """

    def __init__(self, memory: LinearMemory, pre: wasmtime.InstancePre, slot: Slot | None) -> None:
        self.store, self.slot = wasmtime.Store(memory.engine), slot
        self._is_freed = False
        try:
            self.instance = memory.instance(self.store, pre, slot)
        except BaseException:
            self.free()
            raise

    def free(self) -> None:
        """Tear the instance down; its memories stay if those are ours."""
        if not self._is_freed:
            self._is_freed = True
            capi.delete_store(self.store)

    def close(self) -> None:
        """Tear the instance down, and unmap its memories if those are ours."""
        self.free()
        if self.slot is not None:
            self.slot.close()


# Guarantees:
# - an instance that is taken is nobody else's, and is never given out again;
# - what waits here has run nothing.
# Locks: `_lock` guards `_idle` and `_most`; nothing is made or torn down, and no lock taken, while it is held.
class InstancePool:
    """Pool of the instances of one image.

    Args:
        memory: provider of the instances' memory.
        pre: module of the image, linked.
        image: initial memory of an instance, where it is ours and not in the module.
        ahead: whether instances may be made ahead: not if making one runs code of the guest.
    """

    def __init__(
        self, memory: LinearMemory, pre: wasmtime.InstancePre, image: ImageMemory | None, ahead: bool = True
    ) -> None:
        self._memory, self._pre, self._image = memory, pre, image
        self._most = MAX_IDLE if ahead else 0
        self._idle: list[PooledInstance] = []
        self._lock = threading.Lock()

    @property
    def image(self) -> ImageMemory | None:
        """Initial memory of an instance, where it is ours and not in the module."""
        return self._image

    @property
    def idle(self) -> list[PooledInstance]:
        """Instances that wait for a run."""
        with self._lock:
            return list(self._idle)

    def take(self) -> PooledInstance:
        """Take a fresh instance, to be given to `replace` after its use.

        Raises:
            HostError: if the system gives no memory for one more.
            GuestStopped: if the module cannot be instantiated.
        """
        with self._lock:
            if self._idle:
                return self._idle.pop()  # the last one is in the processor's caches
        return self.fresh()

    def fresh(self) -> PooledInstance:
        """Make an instance of its own, for a session: none of its pages was touched, and it is closed after its use.

        Raises:
            HostError: if the system gives no memory for one more.
            GuestStopped: if the module cannot be instantiated.
        """
        return PooledInstance(self._memory, self._pre, self._new_slot())

    def _new_slot(self) -> Slot | None:
        try:
            return self._image.new_slot() if self._image is not None else None
        except OSError as error:
            raise HostError(
                f"the system gives no memory for one more guest ({error.strerror or error}): "
                "run fewer at once, or raise its limit of address space (ulimit -v)"
            ) from error

    def replace(self, used: PooledInstance) -> None:
        """Tear down a used instance, and make a fresh one with its memories, unless the pool is full."""
        used.free()
        with self._lock:
            is_full = len(self._idle) >= self._most
        if is_full:
            used.close()
            return
        fresh = None
        try:
            if used.slot is not None:
                used.slot.restore()
            fresh = PooledInstance(self._memory, self._pre, used.slot)
            fresh.instance.look_up(*USED_EXPORTS)
        except (OSError, capi.GuestStopped) as error:
            _log.warning("no instance can be made ahead: %s", error)
            (fresh or used).close()
            return
        with self._lock:
            if len(self._idle) < self._most:
                self._idle.append(fresh)
                return
        fresh.close()

    def close(self) -> None:
        """Tear down the idle instances, and make none ahead any more."""
        with self._lock:
            idle, self._idle, self._most = self._idle, [], 0
        with ExitStack() as stack:  # all of them, also if a signal handler raises meanwhile
            for fresh in idle:
                stack.callback(fresh.close)
