"""How hostile tools are run: in the real guest, through the public functions; and under which conditions.

The whole suite can be run under harder ones, in one process (``-p no:xdist``):

- ``HOSTILE_LOOP_METER=1``: the longest gap of all event loops is measured, and told at the end;
- ``HOSTILE_RECURSION_LIMIT=1000000``: with that recursion limit of the host;
- ``HOSTILE_IMAGE=science``: the tools of `run_body` run in that image;
- ``HOSTILE_STACK_BYTES=262144``: each test on a thread with so much native stack; those that need the main thread
  are skipped.
"""

from __future__ import annotations

import os
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.loop_meter import LoopMeter, meter_every_loop
from wasm_sandbox import Limits, Tool, ToolExecutionResult, run_tool
from wasm_sandbox.engine import process_engine
from wasm_sandbox.images import default_source, image_of

METER = LoopMeter() if os.environ.get("HOSTILE_LOOP_METER") else None
RECURSION_LIMIT = int(os.environ.get("HOSTILE_RECURSION_LIMIT", "0"))
IMAGE = os.environ.get("HOSTILE_IMAGE") or None
STACK_BYTES = int(os.environ.get("HOSTILE_STACK_BYTES", "0"))

RunBody = Callable[..., ToolExecutionResult]


@pytest.fixture(scope="session")
def run_body() -> RunBody:
    """``run_body(body, top="", args={}, **limits)``: a tool ``f`` with these statements, and its result."""

    def run(body: str, top: str = "", args: dict[str, Any] | None = None, **limits: Any) -> ToolExecutionResult:
        names = ", ".join(args or {})
        source = f"{textwrap.dedent(top)}\ndef f({names}):\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"
        limits = {"timeout_seconds": 30.0, **limits}
        tool = Tool.from_source(source) if args else Tool(name="f", source_code=source)  # a schema for the arguments
        return run_tool(tool, args, limits=Limits(**limits), image=IMAGE)

    run("return 1")  # the image is loaded: no test's time holds it
    return run


@pytest.fixture(scope="session")
def least_memory() -> int:
    """Smallest memory limit, in bytes, with which the image of `run_body` runs."""
    image = image_of(IMAGE)
    return process_engine().image(image.source if image else default_source()).needed_bytes


@pytest.fixture(autouse=True, scope="session")
def hard_conditions() -> Iterator[None]:
    """What the variables of the environment ask for, for the whole process."""
    limit = sys.getrecursionlimit()
    with pytest.MonkeyPatch.context() as patch:
        if METER is not None:
            meter_every_loop(METER, patch)
        sys.setrecursionlimit(RECURSION_LIMIT or limit)
        yield
        sys.setrecursionlimit(limit)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Call a test on a thread with a small stack, if that is asked for."""
    if METER is not None:
        METER.now = pyfuncitem.nodeid
    if not STACK_BYTES or "no_thread_starts" in pyfuncitem.fixturenames:
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    errors: list[BaseException] = []

    def call() -> None:
        try:
            pyfuncitem.obj(**arguments)
        except BaseException as error:
            errors.append(error)

    before = threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=call)
    try:
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    if errors:
        if "main thread" in str(errors[0]):
            pytest.skip("needs the main thread")
        raise errors[0]
    return True


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if METER is not None:
        gap = f"longest gap of an event loop: {METER.longest * 1000:.1f} ms, in {METER.name or 'none'}"
        terminalreporter.write_line(gap)
