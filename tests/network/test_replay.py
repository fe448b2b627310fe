"""Runs that are recorded against servers, and answered again without any."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.network.conftest import Servers
from wasm_sandbox import InvalidNetwork, Limits, Network, Sandbox, Secret, run_code
from wasm_sandbox.options import Isolation

VALUE = "sk-live/4eC39HqLyjWDar+jtT1zdp7dc"

CODE = """
import http.client, json, os, urllib.request

def ask(url, body=None):
    request = urllib.request.Request(url, body, {"Authorization": "Bearer " + os.environ["API_KEY"]})
    with urllib.request.urlopen(request) as answer:
        return answer.status, json.loads(answer.read())

kept = http.client.HTTPConnection(http_host)
paths = []
for path in ("/json?a=1", "/json?a=2"):
    kept.request("GET", path)
    paths.append(json.loads(kept.getresponse().read())["path"])
[ask(https + "/json?b=1"), ask(https + "/json", b"some data"), paths]
"""


def network(servers: Servers, **options: object) -> Network:
    secrets = {"API_KEY": Secret(VALUE, [f"localhost:{servers.https}"])}
    return servers.network(secrets=secrets, **options)


def inputs(servers: Servers) -> dict[str, str]:
    return {**servers.inputs, "http_host": f"localhost:{servers.http}"}


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_recorded_run_gives_the_same_without_servers(servers: Servers, isolation: Isolation, tmp_path: Path) -> None:
    path = tmp_path / "tape.json"
    given = inputs(servers)
    first = run_code(CODE, given, network=network(servers, record=path), isolation=isolation)
    assert first.error is None, first.error
    assert VALUE not in path.read_text()
    allow = [f"localhost:{servers.http}", f"localhost:{servers.https}"]
    replayed = Network(allow, replay=path, secrets=network(servers).secrets)
    limits = Limits(deterministic=True)
    second = run_code(CODE, given, network=replayed, isolation=isolation, limits=limits)
    third = run_code(CODE, given, network=replayed, isolation=isolation, limits=limits)
    assert second.error is None, second.error
    assert first.value == second.value == third.value
    assert second.usage is not None
    assert third.usage is not None
    assert second.usage.fuel == third.usage.fuel
    assert not any(connection.address for connection in second.connections)
    assert [request.url for request in second.requests] == [request.url for request in first.requests]


def test_a_request_that_was_not_recorded_fails_in_words(servers: Servers, tmp_path: Path) -> None:
    path = tmp_path / "tape.json"
    run_code(CODE, inputs(servers), network=network(servers, record=path))
    code = CODE.replace("some data", "other data")
    result = run_code(code, inputs(servers), network=network(servers, replay=path))
    assert result.error is not None
    assert "no answer is recorded for POST https://localhost" in result.error.message


def test_a_session_is_recorded_over_its_calls(servers: Servers, tmp_path: Path) -> None:
    path = tmp_path / "tape.json"
    code = "import urllib.request\nanswer = urllib.request.urlopen(url)\nanswer.read()\nanswer.status"
    for options in ({"record": path}, {"replay": path}):
        with Sandbox(network=network(servers, **options)).session() as session:
            for number in (1, 2):
                result = session.run_code(code, {"url": f"{servers.inputs['http']}/json?n={number}"})
                assert result.value == 200, result.error


def test_what_is_no_cassette_is_refused_before_the_run(servers: Servers, tmp_path: Path) -> None:
    (tmp_path / "tape.json").write_text("{}")
    with pytest.raises(InvalidNetwork, match=r"tape\.json is no cassette"):
        run_code("1", network=network(servers, replay=tmp_path / "tape.json"))


def test_any_protocol_cannot_be_recorded(servers: Servers, tmp_path: Path) -> None:
    made = servers.network(allow=[f"tcp://localhost:{servers.http}"], record=tmp_path / "tape.json")
    code = "import socket\nsocket.create_connection(('localhost', port))"
    result = run_code(code, {"port": servers.http}, network=made)
    assert result.error is not None
    assert "only HTTP can be recorded" in result.error.message
