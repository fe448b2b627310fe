"""Tool calls and programs over HTTP: their results are those of the library, whole or as streams of events."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import httpx
import pytest

from tests.support.servers import ADD, Running
from wasm_sandbox import CodeResult, ErrorKind, Tool, ToolExecutionResult, run_code, run_tool


def without_times(result: CodeResult | ToolExecutionResult) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(result.model_dump_json())
    fields["usage"] = None
    return fields


def test_a_tool_call_gives_the_result_of_the_library(client: httpx.Client) -> None:
    answer = client.post("/v1/run", json={"source": ADD, "args": {"a": 1, "b": 41}})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    result = ToolExecutionResult.model_validate_json(answer.content)
    assert without_times(result) == without_times(run_tool(Tool.from_source(ADD), {"a": 1, "b": 41}))
    assert result.usage is not None
    assert result.usage.fuel


def test_a_program_gives_the_result_of_the_library(client: httpx.Client) -> None:
    code = "print('hello')\ndisplay({'x': 1})\nrows[0] + 1"
    answer = client.post("/v1/code", json={"code": code, "inputs": {"rows": [41]}})
    result = CodeResult.model_validate_json(answer.content)
    assert without_times(result) == without_times(run_code(code, {"rows": [41]}))
    assert result.value == 42


def test_a_function_is_chosen_by_its_name_and_has_a_state(client: httpx.Client) -> None:
    source = (
        "def first(agent_state):\n    agent_state['n'] += 1\n    return 'first'\n\ndef second():\n    return 'second'"
    )
    chosen = client.post("/v1/run", json={"source": source, "name": "first", "agent_state": {"n": 1}}).json()
    assert (chosen["func_return"], chosen["agent_state"]) == ("first", {"n": 2})
    assert client.post("/v1/run", json={"source": source}).json()["func_return"] == "second"


def test_files_go_in_and_come_out_and_variables_are_there(client: httpx.Client) -> None:
    code = "import os\nopen('/out', 'wb').write(open('/in', 'rb').read()[::-1])\nos.environ['NAME']"
    files = {"/in": base64.b64encode(bytes(range(256))).decode()}
    result = CodeResult.model_validate_json(
        client.post("/v1/code", json={"code": code, "files": files, "env": {"NAME": "Ada"}}).content
    )
    assert (result.value, result.files) == ("Ada", {"/out": bytes(range(256))[::-1]})


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("1/0", ErrorKind.TOOL_EXCEPTION),
        ("def", ErrorKind.SYNTAX_ERROR),
        ("while True: pass", ErrorKind.OUT_OF_FUEL),
        ("import time; time.sleep(60)", ErrorKind.TIMEOUT),
        ("x = bytearray(200 << 20)", ErrorKind.OUT_OF_MEMORY),
    ],
)
def test_a_run_that_fails_is_a_result_that_says_why(client: httpx.Client, code: str, kind: ErrorKind) -> None:
    limits = {"fuel": 50_000_000, "timeout_seconds": 0.7, "memory_bytes": 64 << 20}
    answer = client.post("/v1/code", json={"code": code, "limits": limits})
    assert (answer.status_code, answer.json()["error"]["kind"]) == (200, kind)


@pytest.mark.parametrize(
    "code",
    ["float('nan')", "'\\ud800'", "{1: {2, 3}, 'b': b'\\xff'}", "10**5000", "a = []\na.append(a)\na", "1j",
     "x = []\nfor _ in range(2000): x = [x]\nx", "print('\\udcff')\ndisplay('\\ud800')", "{float('inf'): 1}"],
)  # fmt: skip
def test_every_value_is_answered_with_json(client: httpx.Client, code: str) -> None:
    answer = client.post("/v1/code", json={"code": code})
    assert answer.status_code == 200
    json.loads(answer.text, parse_int=str, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    streamed = client.post("/v1/code", json={"code": code}, headers={"Accept": "application/x-ndjson"})
    assert streamed.text.splitlines()[-1].startswith('{"kind":"result"')


def test_events_come_while_the_guest_runs_as_lines_of_json(client: httpx.Client) -> None:
    code = "import sys, time\nprint('one', flush=True)\ntime.sleep(0.6)\nprogress(1, 2, 'half')\nprint('two')\n7"
    with client.stream("POST", "/v1/code", json={"code": code}, headers={"Accept": "application/x-ndjson"}) as answer:
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        lines = answer.iter_lines()
        assert json.loads(next(lines)) == {"kind": "stdout", "text": "one\n"}
        came = time.monotonic()
        rest = [json.loads(line) for line in lines]
        assert time.monotonic() - came > 0.4
    assert [event["kind"] for event in rest] == ["progress", "stdout", "result"]
    assert rest[0]["data"] == {"done": 1.0, "total": 2.0}
    assert rest[-1]["result"]["value"] == 7


def test_events_come_as_server_sent_ones(client: httpx.Client) -> None:
    headers = {"Accept": "text/event-stream"}
    answer = client.post("/v1/run", json={"source": ADD, "args": {"a": 1, "b": 2}}, headers=headers)
    assert answer.headers["content-type"].startswith("text/event-stream")
    (message,) = answer.text.strip().split("\n\n")
    name, data = message.split("\n")
    assert name == "event: result"
    assert json.loads(data.removeprefix("data: "))["result"]["func_return"] == 3


def test_a_problem_before_the_first_event_is_an_answer_of_its_own(client: httpx.Client) -> None:
    headers = {"Accept": "application/x-ndjson"}
    answer = client.post("/v1/code", json={"code": "1", "image": "nowhere"}, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:wasm-sandbox:problem:unknown-image")


def test_nothing_of_a_request_is_in_the_log(server: Running, client: httpx.Client) -> None:
    words = ["secretsource", "secretarg", "secretenv", "secretfile", "secretvalue", "secretname"]
    body = {
        "source": f"def secretname(a):\n    '''secretsource'''\n    return 'secretvalue'[{len(words)} - 6:] + a",
        "args": {"a": "secretarg"},
        "env": {"A": "secretenv"},
        "files": {"/secretfile": ""},
    }
    answer = client.post("/v1/run", json=body)
    assert answer.json()["func_return"] == "secretvaluesecretarg"
    assert client.post("/v1/run", json={**body, "secretfield": 1}).status_code == 422
    assert client.get("/v1/sessions/secretid").status_code == 404
    line = next(line for line in server.log if line.get("id") == answer.headers["x-request-id"])
    assert (line["operation"], line["status"], line["outcome"], line["client"]) == ("run", 200, "success", "local")
    assert line["fuel"] == answer.json()["usage"]["fuel"]
    assert "secret" not in server.stream.getvalue()


def test_images_that_come_with_the_package_are_listed_with_what_is_in_them(client: httpx.Client) -> None:
    listed = {image["name"]: image for image in client.get("/v1/images").json()["images"]}
    assert "default" in listed
    assert {"numpy", "pandas"} <= listed["science"]["distributions"].keys()
