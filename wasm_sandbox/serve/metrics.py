"""Metrics in Prometheus' format: every label is of a closed set, so that no client can make new ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from wasm_sandbox import CodeResult, ErrorKind, ToolExecutionResult
from wasm_sandbox.events import Mark
from wasm_sandbox.serve.problems import TITLES
from wasm_sandbox.serve.tokens import DEFAULT_IMAGE

OTHER = "other"
CALLS = ("tool", "code", "session_tool", "session_code", "fusion", "e2b", "mcp", "probe")
LIMITS = {
    ErrorKind.OUT_OF_FUEL: "fuel",
    ErrorKind.TIMEOUT: "time",
    ErrorKind.OUT_OF_MEMORY: "memory",
    ErrorKind.STACK_OVERFLOW: "stack",
    ErrorKind.CORRUPTED_RESULT: "result",
}
ABANDONED = "abandoned"
"""Outcome of a call that its client did not wait for."""
OUTCOMES = ("success", *(str(kind) for kind in ErrorKind), ABANDONED)

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 180)


class Metrics:
    """What the server did.

    Args:
        images: names of images that get a label of their own.
        running: number of calls under way.
        waiting: number of calls that wait.
        sessions: number of sessions.
    """

    def __init__(
        self,
        images: Iterable[str],
        running: Callable[[], int],
        waiting: Callable[[], int],
        sessions: Callable[[], int],
    ) -> None:
        self._images = frozenset({DEFAULT_IMAGE, *images})
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        prefix = "wasm_sandbox"
        self._calls = Counter(
            f"{prefix}_calls", "Calls that have ended.", ["call", "outcome", "image"], registry=registry
        )
        self._limits = Counter(f"{prefix}_limits", "Calls that a limit ended.", ["limit"], registry=registry)
        self._refused = Counter(f"{prefix}_problems", "Requests answered by a problem.", ["problem"], registry=registry)
        self._queue = Histogram(f"{prefix}_queue_seconds", "Wait for a place.", buckets=_SECONDS, registry=registry)
        self._start = Histogram(
            f"{prefix}_start_seconds",
            "Making of a guest (not in worker processes).",
            buckets=_SECONDS,
            registry=registry,
        )
        self._run = Histogram(f"{prefix}_run_seconds", "Run of a guest.", buckets=_SECONDS, registry=registry)
        self._fuel = Counter(f"{prefix}_fuel", "Units of fuel that guests used.", registry=registry)
        self._bytes = Counter(f"{prefix}_body_bytes", "Bytes of bodies.", ["direction"], registry=registry)
        self._host_calls = Counter(f"{prefix}_host_calls", "Calls of host functions.", registry=registry)
        for name, words, count in (
            ("running_calls", "Calls under way.", running),
            ("waiting_calls", "Calls that wait.", waiting),
            ("sessions", "Sessions.", sessions),
        ):
            Gauge(f"{prefix}_{name}", words, registry=registry).set_function(count)
        # What may come is there from the start, so that a rate can be taken of the first one.
        for limit in LIMITS.values():
            self._limits.labels(limit)
        for problem in TITLES:
            self._refused.labels(problem)

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self._registry)

    def waited(self, seconds: float) -> None:
        """Count a wait for a place."""
        self._queue.observe(seconds)

    def ended(self, call: str, image: str | None, result: CodeResult | ToolExecutionResult | None) -> None:
        """Count a call that has ended; ``result`` is None if nobody waited for it."""
        outcome = ABANDONED if result is None else "success" if result.error is None else str(result.error.kind)
        name = image or DEFAULT_IMAGE
        self._calls.labels(call, outcome, name if name in self._images else OTHER).inc()
        if result is None:
            return
        if result.error is not None and (limit := LIMITS.get(result.error.kind)):
            self._limits.labels(limit).inc()
        if (usage := result.usage) is not None:
            self._run.observe(usage.wall_seconds)
            self._fuel.inc(usage.fuel or 0)
            self._host_calls.inc(usage.host_calls)

    def refused(self, problem: str) -> None:
        """Count a request that was answered by a problem."""
        self._refused.labels(problem).inc()

    def came(self, size: int) -> None:
        """Count bytes of a request's body."""
        self._bytes.labels("in").inc(size)

    def went(self, size: int) -> None:
        """Count bytes of an answer's body."""
        self._bytes.labels("out").inc(size)

    def started(self, seconds: float) -> None:
        """Count the making of a guest."""
        self._start.observe(seconds)


class Starts:
    """Listener to marks, which counts the making of guests.

    Args:
        metrics: metrics of the server.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def began(self, mark: Mark) -> None:
        """Take no note of begins."""

    def ended(self, mark: Mark) -> None:
        """Count it, if a guest was made."""
        if mark.name == "take":
            self._metrics.started((mark.ended_ns - mark.began_ns) / 1e9)
