"""Tokens: who may call, within which limits, in which images, with how much fuel a minute; and places for calls."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.serve.test_bad_input import problem
from tests.support.servers import ALICE, BOB, Running, idle, running, tokens
from tests.support.waiting import wait_until
from wasm_sandbox import Limits
from wasm_sandbox.serve import Settings
from wasm_sandbox.serve.tokens import Budget

ENDLESS = {"code": "while True: pass"}
LINES = {"Accept": "application/x-ndjson"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with tokens."""
    alice = (
        'images = ["default"]\nmetrics = true\n'
        "limits = { memory_bytes = 134217728, timeout_seconds = 5.0, fuel = 200000000 }"
    )
    with running(tokens=tokens(tmp_path_factory.mktemp("tokens"), alice=alice, bob='images = ["nowhere"]')) as started:
        yield started


@pytest.fixture
def alice(guarded: Running) -> Iterator[httpx.Client]:
    """A client with Alice's token."""
    with guarded.client(ALICE) as client:
        yield client


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {ALICE}x"},
        {"Authorization": f"Bearer {ALICE[:-1]}"},
        {"Authorization": f"Basic {ALICE}"},
        {"Authorization": ALICE},
        {"Authorization": "Bearer " + "x" * 10_000},
        {"Authorization": b"Bearer \xff\xfe"},
        {"X-Access-Token": "wrong"},
        {"Authorization": "Bearer wrong", "X-Access-Token": ALICE},
    ],
)
def test_a_wrong_token_is_refused_before_the_body_is_read(guarded: Running, header: dict[str, str | bytes]) -> None:
    with guarded.client() as client:
        for method, path in (("POST", "/v1/code"), ("GET", "/v1/images"), ("GET", "/metrics"), ("POST", "/v1/run")):
            answer = client.request(method, path, json={"code": "1"}, headers=header)  # type: ignore[arg-type]
            problem(answer, "unauthorized")
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert ALICE not in answer.text
    assert not [line for line in guarded.log if line["status"] == 401 and line["bytes_in"]]
    assert ALICE not in guarded.stream.getvalue()


@pytest.mark.parametrize("tokens", [(ALICE, ALICE), (ALICE, BOB), (BOB, "nobody's"), ("nobody's", ALICE)])
def test_of_two_tokens_none_counts(guarded: Running, tokens: tuple[str, str]) -> None:
    """A proxy may have gone by the other one."""
    headers = [("Authorization", f"Bearer {token}") for token in tokens]
    with guarded.client() as client:
        problem(client.get("/v1/images", headers=headers), "unauthorized")


def test_what_says_nothing_of_clients_needs_no_token(guarded: Running) -> None:
    with guarded.client() as client:
        assert [client.get(path).status_code for path in ("/healthz", "/readyz", "/openapi.json")] == [200, 200, 200]


def test_a_token_comes_in_either_header(guarded: Running, alice: httpx.Client) -> None:
    assert alice.post("/v1/code", json={"code": "1"}).json()["value"] == 1
    with guarded.client() as client:
        answer = client.post("/v1/code", json={"code": "2"}, headers={"X-Access-Token": ALICE})
        assert answer.json()["value"] == 2


@pytest.mark.parametrize(
    "limits",
    [{"memory_bytes": 134217729}, {"timeout_seconds": 5.1}, {"fuel": 200000001}, {"fuel": None},
     {"result_bytes": 1 << 30}, {"output_bytes": 1 << 30}, {"files_bytes": 1 << 30}, {"file_count": 100_000}],
)  # fmt: skip
def test_no_limit_is_above_its_ceiling(alice: httpx.Client, limits: dict[str, int | None]) -> None:
    answer = alice.post("/v1/code", json={"code": "1", "limits": limits})
    assert next(iter(limits)) in problem(answer, "over-ceiling")["detail"]
    problem(alice.post("/v1/sessions", json={"limits": limits}), "over-ceiling")


def test_limits_that_are_not_asked_for_are_at_most_the_ceiling(alice: httpx.Client) -> None:
    told = alice.post("/v1/sessions", json={"limits": {"output_bytes": 5}}).json()["limits"]
    usual = Limits()
    asked = {"memory_bytes": 134217728, "timeout_seconds": 5.0, "fuel": 200000000, "output_bytes": 5}
    assert told == {**usual.model_dump(), **asked}
    assert alice.post("/v1/code", json=ENDLESS).json()["error"]["kind"] == "out_of_fuel"


def test_only_images_of_the_list_are_used(guarded: Running, alice: httpx.Client) -> None:
    assert (
        "default"
        in problem(alice.post("/v1/code", json={"code": "1", "image": "nowhere"}), "image-forbidden")["detail"]
    )
    assert [image["name"] for image in alice.get("/v1/images").json()["images"]] == ["default"]
    assert alice.post("/v1/code", json={"code": "1", "image": "default"}).status_code == 200
    with guarded.client(BOB) as bob:
        for body in ({"code": "1"}, {"code": "1", "image": "default"}):
            problem(bob.post("/v1/code", json=body), "image-forbidden")
        problem(bob.post("/v1/sessions", json={}), "image-forbidden")
        problem(bob.post("/v1/code", json={"code": "1", "image": "nowhere"}), "unknown-image")


def test_metrics_are_read_with_the_token_for_them(guarded: Running, alice: httpx.Client) -> None:
    assert "wasm_sandbox_calls_total" in alice.get("/metrics").text
    with guarded.client(BOB) as bob:
        problem(bob.get("/metrics"), "forbidden-metrics")


# --- Fuel -----------------------------------------------------------------------------------------------


def test_a_budget_refills_evenly_and_debts_are_worked_off_first() -> None:
    now = [0.0]
    budget = Budget(600, clock=lambda: now[0])
    assert budget.wait_seconds() == 0
    budget.charge(700)
    assert budget.wait_seconds() == pytest.approx(10.1)
    now[0] = 10.2
    assert budget.wait_seconds() == 0
    now[0] = 1000
    assert budget.left() == 600  # never more than that of a minute


def test_whoever_has_used_up_the_fuel_of_a_minute_waits_and_nobody_else(tmp_path: Path) -> None:
    with (
        running(tokens=tokens(tmp_path, alice="fuel_per_minute = 6000000")) as server,
        server.client(ALICE) as alice,
        server.client(BOB) as bob,
    ):
        spent = alice.post("/v1/code", json={**ENDLESS, "limits": {"fuel": 10_000_000}}).json()
        assert spent["error"]["kind"] == "out_of_fuel"
        for path, body in (("/v1/code", {"code": "1"}), ("/v1/run", {"source": "def f(): pass"})):
            for headers in ({}, LINES):
                answer = alice.post(path, json=body, headers=headers)
                assert problem(answer, "over-budget")["kind"] == "out_of_fuel"
                assert 20 <= int(answer.headers["retry-after"]) <= 60
        path = alice.post("/v1/sessions", json={}).headers["location"]
        problem(alice.post(f"{path}/code", json={"code": "1"}), "over-budget")
        assert bob.post("/v1/code", json={"code": "1"}).json()["value"] == 1


@pytest.mark.parametrize("headers", [{}, LINES])
def test_hanging_up_saves_no_fuel(tmp_path: Path, headers: dict[str, str]) -> None:
    with running(tokens=tokens(tmp_path, alice="fuel_per_minute = 100000000")) as server, server.client(ALICE) as alice:
        with pytest.raises(httpx.ReadTimeout):
            alice.post("/v1/code", json=ENDLESS, headers=headers, timeout=0.5)
        idle(server)
        problem(alice.post("/v1/code", json={"code": "1"}), "over-budget")


# --- Places ---------------------------------------------------------------------------------------------


@pytest.mark.long
def test_calls_beyond_the_queue_are_refused_and_those_in_it_are_not() -> None:
    with running(concurrency=1, queue=2) as server, server.client() as client, ThreadPoolExecutor(8) as pool:
        code = {"code": "import time; time.sleep(0.4)\n1"}
        answers = [future.result() for future in [pool.submit(client.post, "/v1/code", json=code) for _ in range(6)]]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert (len(refused), [answer.json()["value"] for answer in answers if answer not in refused]) == (3, [1, 1, 1])
        for answer in refused:
            problem(answer, "queue-full")
            assert answer.headers["retry-after"] == "1"
        assert (server.app.admission.running, server.app.admission.waiting) == (0, 0)


@pytest.mark.long
def test_whoever_waits_too_long_is_refused() -> None:
    with running(concurrency=1, queue_seconds=0.2) as server, server.client() as client, ThreadPoolExecutor(2) as pool:
        first = pool.submit(client.post, "/v1/code", json={"code": "import time; time.sleep(0.8)\n1"})
        while not server.app.admission.running:
            time.sleep(0.01)
        problem(client.post("/v1/code", json={"code": "1"}), "queue-full")
        assert first.result().json()["value"] == 1
        assert (server.app.admission.running, server.app.admission.waiting) == (0, 0)


@pytest.mark.long
def test_a_client_with_many_calls_does_not_keep_others_waiting(tmp_path: Path) -> None:
    with running(tokens=tokens(tmp_path), concurrency=1) as server, ThreadPoolExecutor(12) as pool:
        order: list[str] = []

        def call(name: str, token: str, seconds: float = 0.2) -> None:
            with server.client(token) as client:
                code = f"import time; time.sleep({seconds})"
                assert client.post("/v1/code", json={"code": code}).status_code == 200
            order.append(name)

        admission = server.app.admission
        many = [pool.submit(call, "alice", ALICE, 4.0)]
        wait_until(lambda: admission.running == 1, seconds=30)
        many += [pool.submit(call, "alice", ALICE) for _ in range(7)]
        wait_until(lambda: admission.waiting == 7, seconds=30)
        bob = pool.submit(call, "bob", BOB)
        wait_until(lambda: admission.waiting == 8 or bob.done(), seconds=30)
        before = len(order)
        for future in [bob, *many]:
            future.result()
        assert order.index("bob") <= before + 2  # after who runs and, perhaps, who was told first to begin


def test_a_token_has_no_more_calls_under_way_than_its_own(tmp_path: Path) -> None:
    with running(tokens=tokens(tmp_path, alice="max_calls = 2")) as server, ThreadPoolExecutor(6) as pool:
        code, most = {"code": "import time; time.sleep(0.15)"}, 0
        with server.client(ALICE) as alice:
            futures = [pool.submit(alice.post, "/v1/code", json=code) for _ in range(6)]
            while not all(future.done() for future in futures):
                most = max(most, server.app.admission.running)
                time.sleep(0.005)
        assert (most, {future.result().status_code for future in futures}) == (2, {200})


@pytest.mark.long
def test_whoever_hangs_up_in_the_queue_leaves_it() -> None:
    with running(concurrency=1) as server, server.client() as client:
        thread = threading.Thread(
            target=client.post, args=("/v1/code",), kwargs={"json": {"code": "import time\ntime.sleep(0.8)"}}
        )
        thread.start()
        while not server.app.admission.running:
            time.sleep(0.01)
        with server.client() as other, pytest.raises(httpx.ReadTimeout):
            other.post("/v1/code", json={"code": "1"}, timeout=0.2)
        while server.app.admission.waiting:
            time.sleep(0.01)
        thread.join()
        assert server.app.admission.running == 0


# --- Where it listens -----------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com", ""])
def test_nobody_else_is_listened_to_without_tokens(host: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--token-file"):
        Settings(host=host)
    Settings(host=host, tokens=tokens(tmp_path))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.7", "::1", "[::1]", "localhost"])
def test_this_machine_is(host: str) -> None:
    Settings(host=host)
