"""Metrics: in Prometheus' format, true, and of label sets that no client can widen."""

from __future__ import annotations

import re

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.servers import ADD, running
from wasm_sandbox.serve.metrics import CALLS, LIMITS, OUTCOMES, Metrics
from wasm_sandbox.serve.problems import TITLES


def samples(client: httpx.Client) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Name and labels of each sample -> its value."""
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(answer.text)
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for family in families for one in family.samples}


def test_metrics_tell_what_was_done_and_their_labels_are_closed() -> None:
    with running() as server, server.client() as client:
        fuel = client.post("/v1/run", json={"source": ADD, "args": {"a": 1, "b": 2}}).json()["usage"]["fuel"]
        client.post("/v1/code", json={"code": "while 1: pass", "limits": {"fuel": 5_000_000}})
        client.post("/v1/code", json={"code": "1/0"})
        for image in ("a", "b", "c" * 100):
            client.post("/v1/code", json={"code": "1", "image": image})
        client.get("/nowhere/at/all")
        client.post("/v1/sessions", json={})
        found = samples(client)
        assert len(found) == len(samples(client))  # asking makes none
    prefix = "wasm_sandbox"
    tool = (f"{prefix}_calls_total", (("call", "tool"), ("image", "default"), ("outcome", "success")))
    assert found[tool] == 1
    assert found[f"{prefix}_limits_total", (("limit", "fuel"),)] == 1
    assert found[f"{prefix}_problems_total", (("problem", "unknown-image"),)] == 3
    assert found[f"{prefix}_problems_total", (("problem", "not-found"),)] == 1
    assert found[f"{prefix}_sessions", ()] == 1
    assert found[f"{prefix}_run_seconds_count", ()] == 3
    assert found[f"{prefix}_queue_seconds_count", ()] == 6
    assert found[f"{prefix}_start_seconds_count", ()] >= 3
    assert found[f"{prefix}_fuel_total", ()] > fuel + 5_000_000 - 1
    assert found[f"{prefix}_body_bytes_total", (("direction", "in"),)] > 100
    allowed = {
        "call": {*CALLS}, "outcome": {*OUTCOMES}, "limit": {*LIMITS.values()}, "problem": {*TITLES},
        "direction": {"in", "out"},
    }  # fmt: skip
    for name, labels in found:
        for label, text in labels:
            if name.startswith(prefix) and label in allowed:
                assert text in allowed[label]
    assert not [labels for _, labels in found if ("image", "a") in labels or ("image", "c" * 100) in labels]


def test_no_client_makes_a_label() -> None:
    """An image that was built after the server began has none of its own."""
    metrics = Metrics(["web"], lambda: 0, lambda: 0, lambda: 0)
    for name in (None, "web", "new", "x" * 1000):
        metrics.ended("code", name, None)
    found = set(re.findall(r'wasm_sandbox_calls_total{.*image="(.*?)"', metrics.text().decode()))
    assert found == {"default", "web", "other"}
