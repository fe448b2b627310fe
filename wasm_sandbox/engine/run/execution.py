"""One run: a request and an image in, an outcome out; never an exception for what a guest did."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from wasm_sandbox.engine.compiled.loaded import LoadedImage
from wasm_sandbox.engine.compiled.tool_codes import ToolCode, key_of
from wasm_sandbox.engine.run.compile_ahead import compile_ahead
from wasm_sandbox.engine.run.guest import Guest, Watch
from wasm_sandbox.engine.run.kept import KeptGuest
from wasm_sandbox.engine.run.outcomes import outcome_of
from wasm_sandbox.engine.threads.turns import Turn
from wasm_sandbox.engine.world.surroundings import Elapsed, Surroundings
from wasm_sandbox.events import mark
from wasm_sandbox.outcome import Ending, Outcome
from wasm_sandbox.request import ExecutionRequest


def execute(
    image: LoadedImage,
    watch: Watch,
    request: ExecutionRequest,
    surroundings: Surroundings,
    deliver: Callable[[Outcome], None],
    turn: Turn | None = None,
) -> None:
    """Run a script in a fresh instance of an image, on the calling thread.

    Args:
        image: image of the instance.
        watch: watchdog and trap signals of the engine.
        request: the script, its environment and its limits.
        surroundings: clocks, entropy and the caller's way to cancel.
        deliver: called with the outcome, whatever the guest did. The instance is torn down after that:
            nobody needs to wait for it (a sixth of a short run). At the deadline another thread may call it.
        turn: turn of the run, among those that want to compute.

    Raises:
        HostError: if the system gives no memory for one more guest.
        InvalidFiles: if a mount cannot be opened, or files do not go together with those of the image.
        BaseException: if a host function raised it, by a defect; then nothing is delivered, unless the deadline
            passed before.
    """
    with mark("execute", request):
        codes = image.tool_codes
        key = key_of(request) if codes is not None else None
        started = time.monotonic()
        guest = Guest(image, watch, surroundings, started + request.limits.timeout_seconds)
        run = _Run(guest, request, deliver, started)
        with guest:
            guest.equip(request.given, request.limits, request.peer, request.has_network)
            ending = run.run(turn, codes.find(key) if codes is not None and key else None)
        if codes is not None and key and ending is Ending.EXITED and not guest.ended.exit_code and codes.is_wanted(key):
            with mark("compile ahead"):
                codes.keep(key, compile_ahead(image, request))


def execute_kept(
    kept: KeptGuest,
    request: ExecutionRequest,
    surroundings: Callable[[Elapsed, int], Surroundings],
    deliver: Callable[[Outcome], None],
    turn: Turn | None = None,
) -> None:
    """Run a script in a guest that is kept, on the calling thread.

    Args:
        kept: the guest.
        request: the script and its limits; its peer is for this call.
        surroundings: makes the surroundings, which go on where those of the last call ended.
        deliver: as of `execute`. What is left to be done after it, the next call waits for.
        turn: as of `execute`.

    Raises:
        SnapshotError: if the guest begins at a checkpoint that is none of its image.
        HostError: if the system gives no memory for one more guest.
        BaseException: as `execute`.
    """
    with mark("execute", request), kept.held():
        started = time.monotonic()
        around = surroundings(*kept.clocks)
        guest = kept.begin(around, started + request.limits.timeout_seconds, request)
        try:
            _Run(guest, request, partial(kept.deliver, deliver=deliver), started).run(turn, None)
        finally:
            with mark("checkpoint"):
                kept.end()


def attempt_kept(kept: KeptGuest, request: ExecutionRequest) -> Outcome | None:
    """Make a call of a guest that is kept on the calling thread, if it is a short one that needs nothing of the host.

    Returns:
        Its outcome; None if it has to be made on a thread for guests (`execute_kept`). Nothing has happened then.

    Raises:
        BaseException: what a signal handler raises; the guest is what it was before the call then, or after it.
    """
    with mark("execute", request):
        return kept.attempt(request)


# Guarantees: the outcome is delivered at most once: by a look of the watchdog inside `Guest.call`, or after it by the
# run's own thread, which knows then that no look is under way. Locks: none of its own; a look holds `_Entry.lock`.
class _Run:
    """A run under way, shared by its own thread and the watchdog."""

    def __init__(
        self, guest: Guest, request: ExecutionRequest, deliver: Callable[[Outcome], None], started: float
    ) -> None:
        self.guest, self._request, self._deliver = guest, request, deliver
        self._started = started
        self._deadline = started + request.limits.timeout_seconds
        self._is_delivered = False

    def run(self, turn: Turn | None, code: ToolCode | None) -> Ending:
        """Run the script, deliver the outcome, and return how the script ended."""
        guest, request = self.guest, self._request
        ending = guest.call(request, self._deadline, turn=turn, code=code, when_late=self._deliver_late)
        if not self._is_delivered:
            self._hand_over(ending)
            time.sleep(0)  # whoever waits for it gets the interpreter lock now
        return ending

    def _deliver_late(self) -> None:
        """Deliver at the deadline, on the watchdog's thread.

        To stop, the guest needs one more turn on a processor, and among many that compute it may wait long for
        that. Nobody needs to wait with it: its next safepoint is a trap, whenever that is.
        """
        if not self._is_delivered:
            self._hand_over(Ending.DEADLINE)

    def _hand_over(self, ending: Ending) -> None:
        """Deliver the outcome; the guest may still be about to stop."""
        outcome = outcome_of(self.guest, self._request, ending, self._started)
        self._is_delivered = True
        with mark("deliver", outcome):
            self._deliver(outcome)
