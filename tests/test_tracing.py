"""Spans of runs (section 13, W32): how they went, and nothing of what went in or came out."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import timeit
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from tests.support.backends import IdleSandbox
from wasm_sandbox import ErrorKind, Limits, Tool, WasmToolSandbox, run_tool
from wasm_sandbox.tracing import trace_method

EXPORTER = InMemorySpanExporter()


@pytest.fixture(scope="module", autouse=True)
def provider() -> Iterator[None]:
    """The process has one provider, and it can be set only once; others may have set theirs."""
    made = trace.get_tracer_provider()
    if not isinstance(made, TracerProvider):
        made = TracerProvider()
        trace.set_tracer_provider(made)
    processor = SimpleSpanProcessor(EXPORTER)
    made.add_span_processor(processor)
    yield
    processor.shutdown()


@pytest.fixture(autouse=True)
def spans() -> InMemorySpanExporter:
    EXPORTER.clear()
    return EXPORTER


def sandbox(source: str, args: dict[str, Any] | None = None, **keywords: Any) -> WasmToolSandbox:
    tool = Tool.from_source(source)
    return WasmToolSandbox(tool.name, args or {}, None, None, tool_object=tool, **keywords)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def all_text(spans: InMemorySpanExporter) -> str:
    return "".join(span.to_json() for span in spans.get_finished_spans())


@pytest.mark.parametrize("is_sync", [False, True])
async def test_a_run_is_a_span_with_the_script_inside_it(spans: InMemorySpanExporter, is_sync: bool) -> None:
    """Section 13: class and method name the span; success is status OK, the value is not recorded."""
    made = sandbox("def add(a: int) -> int:\n    return a + 1", {"a": 1})
    result = made.run_sync() if is_sync else await made.run()
    script, run = spans.get_finished_spans()
    method = "run_sync" if is_sync else "run"
    assert (script.name, run.name) == ("WasmToolSandbox.generate_execution_script", f"WasmToolSandbox.{method}")
    assert script.parent is not None
    assert run.context is not None
    assert script.parent.span_id == run.context.span_id
    assert result.usage is not None
    assert attributes(run) == {
        "code.function.name": f"wasm_sandbox.sandbox.wasm.WasmToolSandbox.{method}",
        "gen_ai.tool.name": "add",
        "wasm_sandbox.outcome": "success",
        "wasm_sandbox.fuel": result.usage.fuel,
        "wasm_sandbox.wall_seconds": result.usage.wall_seconds,
        "wasm_sandbox.peak_memory_bytes": result.usage.peak_memory_bytes,
    }
    assert [span.status.status_code for span in (script, run)] == [StatusCode.OK] * 2


async def test_generating_a_script_alone_is_a_span_too(spans: InMemorySpanExporter) -> None:
    tool = Tool.from_source("def f():\n    return 1")
    await IdleSandbox("f", {}, None, None, tool_object=tool).generate_execution_script(None)
    (span,) = spans.get_finished_spans()
    assert span.name == "IdleSandbox.generate_execution_script"
    assert (
        attributes(span)["code.function.name"]
        == "wasm_sandbox.sandbox.base.AsyncToolSandboxBase.generate_execution_script"
    )


@pytest.mark.parametrize(
    ("body", "args", "kind"),
    [
        ("raise type('Custom', (Exception,), {})(x)", {"x": "s3cret"}, ErrorKind.TOOL_EXCEPTION),
        ("while True: pass", {"x": "s3cret"}, ErrorKind.OUT_OF_FUEL),
        ("pass", {"x": "s3cret", "n": "s3cret"}, ErrorKind.BAD_ARGUMENTS),
    ],
)
def test_a_failed_run_has_its_kind_and_not_the_words_of_the_tool(
    spans: InMemorySpanExporter, body: str, args: dict[str, Any], kind: ErrorKind
) -> None:
    """W32: a tool chooses names and texts of its exceptions, and refusals may quote arguments."""
    made = sandbox(f"def f(x: str, n: int = 0):\n    {body}\n", args, limits=Limits(fuel=300_000_000))
    assert made.run_sync().error is not None
    run = spans.get_finished_spans()[-1]
    assert run.status.status_code is StatusCode.ERROR
    assert attributes(run)["error.type"] == attributes(run)["wasm_sandbox.outcome"] == kind.value
    assert "s3cret" not in all_text(spans)
    assert "Custom" not in all_text(spans)


async def test_an_exception_of_the_caller_is_recorded_by_type_and_raised(spans: InMemorySpanExporter) -> None:
    made = sandbox("def f():\n    return 1")
    wrong: Any = {"TOKEN": ["s3cret"]}
    with pytest.raises(ValueError, match="TOKEN"):
        await made.run(additional_env_vars=wrong)
    (run,) = spans.get_finished_spans()
    assert run.status.status_code is StatusCode.ERROR
    assert attributes(run)["error.type"] == "wasm_sandbox.errors.InvalidEnvironment"
    (event,) = run.events
    assert (event.name, dict(event.attributes or {})) == (
        "exception",
        {"exception.type": "wasm_sandbox.errors.InvalidEnvironment"},
    )


async def test_cancelling_is_recorded_and_goes_on(spans: InMemorySpanExporter) -> None:
    """Section 13: CancelledError explicitly (status ERROR, type, task name) and re-raised."""
    task = asyncio.create_task(sandbox("def f():\n    while True: pass").run(), name="the-task")
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    run = spans.get_finished_spans()[-1]
    assert run.status.status_code is StatusCode.ERROR
    assert attributes(run)["wasm_sandbox.outcome"] == "cancelled"
    assert attributes(run)["error.type"] == "asyncio.exceptions.CancelledError"
    (event,) = run.events
    assert dict(event.attributes or {})["asyncio.task.name"] == "the-task"


async def test_no_value_and_no_source_is_in_any_span(spans: InMemorySpanExporter) -> None:
    """W32: argument values, agent state, variables, source, output and result stay out."""
    source = """
def f(text: str, agent_state):
    # s3cret-comment
    import sys
    print(text)
    print(text, file=sys.stderr)
    agent_state.memo = text
    return text
"""
    made = sandbox(source, {"text": "s3cret"}, sandbox_env_vars={"A": "s3cret"})
    state = {"id": "agent-1", "memo": "s3cret", "secrets": {"B": "s3cret"}}
    result = await made.run(state, {"C": "s3cret"})
    assert result.func_return == "s3cret"
    assert "s3cret" not in all_text(spans)


async def test_runs_at_once_have_spans_of_their_own(spans: InMemorySpanExporter) -> None:
    with trace.get_tracer("test").start_as_current_span("outer") as outer:
        await asyncio.gather(*(sandbox("def f(n: int):\n    return n", {"n": n}).run() for n in range(3)))
    runs = [span for span in spans.get_finished_spans() if span.name == "WasmToolSandbox.run"]
    assert [span.parent.span_id for span in runs if span.parent] == [outer.get_span_context().span_id] * 3


def test_methods_keep_what_they_are() -> None:
    assert asyncio.iscoroutinefunction(WasmToolSandbox.run)
    assert asyncio.iscoroutinefunction(WasmToolSandbox.generate_execution_script)
    assert WasmToolSandbox.run.__doc__ is not None
    assert getattr(IdleSandbox, "__abstractmethods__", frozenset()) == frozenset()


def test_without_the_library_a_run_neither_fails_nor_imports_it() -> None:
    script = """
import sys, timeit
sys.modules["opentelemetry"] = None  # as if it were not installed
from wasm_sandbox import Tool, run_tool
from wasm_sandbox.tracing import trace_method
print(run_tool(Tool.from_source("def f():\\n    return 1")).func_return, "opentelemetry.trace" in sys.modules)
class C:
    @trace_method
    def method(self): pass
print(min(timeit.repeat(C().method, number=1000, repeat=5)) / 1000 < 2e-5)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "1 False\nTrue\n"


def test_an_installed_library_that_nobody_uses_is_not_imported() -> None:
    script = "import sys; from wasm_sandbox import WasmToolSandbox; print('opentelemetry' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_span_costs_little_beside_a_run() -> None:
    class Quick:
        @trace_method
        def method(self) -> None: ...

    assert min(timeit.repeat(Quick().method, number=100, repeat=5)) / 100 < 0.002


def test_the_one_liner_is_traced_as_well(spans: InMemorySpanExporter) -> None:
    run_tool(Tool.from_source("def f():\n    return 1"))
    assert spans.get_finished_spans()[-1].name == "WasmToolSandbox.run_sync"


def test_a_span_counts_connections_and_says_which_rule_was_missing(spans: InMemorySpanExporter) -> None:
    source = "def f():\n    import urllib.request\n    urllib.request.urlopen('http://example.com/')"
    sandbox(source, network="example.org").run_sync()
    told = attributes(spans.get_finished_spans()[-1])
    assert (told["wasm_sandbox.connections"], told["wasm_sandbox.requests"]) == (1, 0)
    assert "add 'example.com:80' to allow" in told["wasm_sandbox.network_refusals"][0]
