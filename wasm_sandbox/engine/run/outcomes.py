"""Outcome of a call, from the guest as it ended."""

from __future__ import annotations

import time

from wasm_sandbox.engine.run.guest import Guest
from wasm_sandbox.outcome import Ending, Outcome
from wasm_sandbox.request import ExecutionRequest


def outcome_of(guest: Guest, request: ExecutionRequest, ending: Ending, started: float) -> Outcome:
    """Outcome of a call that began at a time of `time.monotonic`."""
    # Of a guest that was stopped no result is wanted: only what it printed, and that soon.
    exited, limits = ending is Ending.EXITED, request.limits
    out, err = guest.streams.stdout, guest.streams.stderr
    stdout = out.contents() if exited else out.head(limits.output_bytes)
    stderr = err.contents()
    is_asked = exited and request.given is not None
    return Outcome(
        ending=ending,
        exit_code=guest.ended.exit_code if exited else 0,
        exception=guest.ended.exception if exited else None,
        detail=guest.detail,
        stdout=stdout,
        stderr=stderr,
        stdout_dropped_bytes=out.written_bytes - len(stdout),
        stderr_dropped_bytes=err.written_bytes - len(stderr),
        fuel=None if limits.fuel is None else guest.fuel_spent(),
        wall_seconds=time.monotonic() - started,
        memory_bytes=guest.memory_bytes(),
        host_calls=guest.world.host_calls,
        files=guest.files.changed_files() if is_asked and guest.files else None,
        answer=guest.ended.answer if exited else None,
        answer_bytes=guest.ended.answer_bytes if request.call else None,
        is_over=not exited or guest.is_over,
    )
