"""How the tests of the engine room run a script in the real guest."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from wasm_sandbox.engine.engine import process_engine
from wasm_sandbox.engine.world.surroundings import LiveSurroundings
from wasm_sandbox.limits import Limits
from wasm_sandbox.outcome import Outcome
from wasm_sandbox.request import ExecutionRequest

RunScript = Callable[..., Outcome]


@pytest.fixture(scope="session")
def run_script() -> RunScript:
    """``run_script(source, environ={}, **limits) -> Outcome``"""

    def run(script: str, environ: dict[str, str] | None = None, **limits: float) -> Outcome:
        limits = {"timeout_seconds": 30.0, **limits}
        request = ExecutionRequest(script, environ or {}, Limits.model_validate(limits))
        return process_engine().start(request, LiveSurroundings()).result()

    return run


@pytest.fixture(scope="session")
def stdout_of(run_script: RunScript) -> Callable[..., str]:
    """``stdout_of(source, ...) -> text`` of a script that must end well."""

    def run(script: str, environ: dict[str, str] | None = None, **limits: float) -> str:
        outcome = run_script(script, environ, **limits)
        assert (outcome.ending.name, outcome.exit_code) == ("EXITED", 0), (
            outcome.detail,
            outcome.stderr.decode(),
        )
        return outcome.stdout.decode()

    return run
