"""The interfaces of SandboxFusion and of E2B: with their own clients, and with requests from their schemas."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest

from tests.serve.test_bad_input import problem
from tests.support.servers import ALICE, BOB, Running, running, tokens

# --- SandboxFusion --------------------------------------------------------------------------------------


def ran(client: httpx.Client, code: str, **more: Any) -> dict[str, Any]:
    """Answer to ``/run_code``."""
    answer = client.post("/run_code", json={"code": code, "language": "python", **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize(
    ("code", "status", "code_of_return", "err"),
    [
        ("print(1)", "Success", 0, ""),
        ("if __name__ == '__main__': print(1)", "Success", 0, ""),
        ("print(1)\nraise SystemExit(0)", "Success", 0, ""),
        ("print(1)\nimport sys; sys.exit(3)", "Failed", 3, ""),
        ("print(1)\nimport os; os._exit(4)", "Failed", 4, None),
        ("print(1)\nassert 1 == 2, 'no'", "Failed", 1, "AssertionError: no\n"),
        ("print(1)\nx = bytearray(1 << 29)", "Failed", 137, "MemoryError\n"),
    ],
)
def test_a_program_has_its_return_code(
    client: httpx.Client, code: str, status: str, code_of_return: int, err: str | None
) -> None:
    found = ran(client, code)
    result = found["run_result"]
    assert (found["status"], result["status"], result["return_code"]) == (status, "Finished", code_of_return)
    assert result["stdout"] == "1\n"
    assert err is None or result["stderr"].endswith(err)


def test_a_program_that_takes_too_long_is_over_its_time(client: httpx.Client) -> None:
    found = ran(client, "print(1, flush=True)\nwhile True: pass", run_timeout=0.3)
    assert (found["status"], found["run_result"]["status"]) == ("Failed", "TimeLimitExceeded")
    assert found["run_result"]["return_code"] is None


@pytest.mark.parametrize("code", ["print(input(), input())", "import sys\nprint(*sys.stdin.read().split())",
                                  "import sys\nprint(*(line.strip() for line in sys.stdin))"])  # fmt: skip
def test_a_program_reads_what_it_is_given(client: httpx.Client, code: str) -> None:
    assert ran(client, code, stdin="é\n2\n")["run_result"]["stdout"] == "é 2\n"
    failed = ran(client, "def f():\n    return 1 / 0\n\nf()", stdin="")["run_result"]["stderr"]
    assert 'File "main.py", line 2, in f\n    return 1 / 0' in failed


def test_files_go_in_and_are_fetched_also_after_a_failure(client: httpx.Client) -> None:
    content = base64.b64encode(b"\xff\x00in").decode()
    code = "data = open('d/in', 'rb').read()\nopen('out', 'wb').write(data[::-1])\n1/0"
    found = ran(client, code, files={"d/in": content, "/empty": None}, fetch_files=["out", "/empty", "nowhere"])
    assert found["files"] == {"out": base64.b64encode(b"ni\x00\xff").decode(), "/empty": ""}
    assert found["status"] == "Failed"
    answer = client.post("/run_code", json={"code": "1", "language": "python", "files": {"a": "?"}})
    problem(answer, "invalid-body")


def test_another_language_is_an_error_of_the_sandbox(client: httpx.Client) -> None:
    answer = client.post("/run_code", json={"code": "1", "language": "cpp"}).json()
    assert (answer["status"], answer["run_result"]) == ("SandboxError", None)
    assert "python" in answer["message"]


def test_cells_share_a_guest_and_each_has_its_output(client: httpx.Client) -> None:
    cells = ["a = 123", "a", "print(a)", "import sys\n_ = sys.stderr.write('message')", "raise RuntimeError('no')",
             "display({'image/png': b'png'}, raw=True) if False else None", "a + 1"]  # fmt: skip
    found = client.post("/run_jupyter", json={"cells": cells, "fetch_files": []}).json()
    assert (found["status"], found["driver"]["status"]) == ("Success", "Finished")
    nothing: dict[str, Any] = {"stdout": "", "stderr": "", "display": [], "error": []}
    shown = [cell | {"error": [{"ename": one["ename"], "evalue": one["evalue"]} for one in cell["error"]]}
             for cell in found["cells"]]  # fmt: skip
    assert shown == [
        nothing,
        {**nothing, "display": [{"text/plain": "123"}]},
        {**nothing, "stdout": "123\n"},
        {**nothing, "stderr": "message"},
        {**nothing, "error": [{"ename": "RuntimeError", "evalue": "no"}]},
        nothing,
        {**nothing, "display": [{"text/plain": "124"}]},
    ]


def test_cells_together_have_a_time_and_each_has_one(client: httpx.Client) -> None:
    for more in ({"cell_timeout": 0.3}, {"total_timeout": 0.4}):
        found = client.post("/run_jupyter", json={"cells": ["1", "while 1: pass", "2"], **more}).json()
        assert (found["status"], found["driver"]["status"], found["cells"]) == ("Failed", "TimeLimitExceeded", [])


def test_limits_are_lowered_to_the_ceilings_and_fuel_is_charged(tmp_path: Any) -> None:
    ceiling = "limits = { timeout_seconds = 0.5, fuel = 50000000, memory_bytes = 67108864 }\nfuel_per_minute = 40000000"
    with running(tokens=tokens(tmp_path, alice=ceiling)) as server, server.client(ALICE) as alice:
        found = ran(alice, "while True: pass", run_timeout=60, memory_limit_MB=4000)
        assert found["run_result"]["status"] == "TimeLimitExceeded"
        for path in ("/run_code", "/run_jupyter"):
            body = {"code": "1", "language": "python", "cells": ["1"]}
            problem(alice.post(path, json=body), "over-budget")
        with server.client() as nobody:
            problem(nobody.post("/run_code", json={"code": "1", "language": "python"}), "unauthorized")


def test_the_client_of_sandbox_fusion_is_served(server: Running) -> None:
    fusion = pytest.importorskip("sandbox_fusion")
    request = fusion.RunCodeRequest(code="print(input())", language="python", stdin="hello", run_timeout=5)
    answer = fusion.run_code(request, endpoint=server.url, max_attempts=1)
    assert (answer.status, answer.run_result.stdout) == (fusion.RunStatus.Success, "hello\n")
    failed = fusion.run_code(fusion.RunCodeRequest(code="1/0", language="python"), endpoint=server.url, max_attempts=1)
    assert fusion.summary_run_code_result(failed, fusion.SummaryMapping(RunFailed="wrong")) == "wrong"
    cells = fusion.run_jupyter(fusion.RunJupyterRequest(cells=["x = 1", "x"]), endpoint=server.url, max_attempts=1)
    assert cells.cells[1].display == [{"text/plain": "1"}]


# --- E2B ------------------------------------------------------------------------------------------------


def lines(client: httpx.Client, code: str, **more: Any) -> list[dict[str, Any]]:
    """Lines of the answer to ``/execute``, without their times."""
    answer = client.post("/execute", json={"code": code, **more})
    assert answer.status_code == 200, answer.text
    found = [json.loads(line) for line in answer.text.splitlines()]
    return [{name: value for name, value in line.items() if name != "timestamp"} for line in found]


def test_output_results_and_errors_are_lines() -> None:
    with running() as server, server.client() as client:
        assert lines(client, "x = 1\nprint('hi')\ndisplay('shown')\n'text'") == [
            {"type": "number_of_executions", "execution_count": 1},
            {"type": "stdout", "text": "hi\n"},
            {"type": "result", "is_main_result": False, "text": "shown"},
            {"type": "result", "is_main_result": True, "text": "text"},
        ]
        count, *warnings, error = lines(client, "import sys\nprint('w', file=sys.stderr)\n1/x*0 + 1/0")
        assert (count["execution_count"], {one["type"] for one in warnings}) == (2, {"stderr"})
        assert "".join(one["text"] for one in warnings) == "w\n"
        assert (error["type"], error["name"], error["value"]) == ("error", "ZeroDivisionError", "division by zero")
        assert error["traceback"].startswith("Traceback (most recent call last):\n")
        assert [line["type"] for line in lines(client, "x = = 1")] == ["number_of_executions", "error"]
        assert lines(client, "import os; os.environ['A'] + str(x)", env_vars={"A": "a"})[-1]["text"] == "a1"


def test_a_context_is_a_session_of_its_owner(tmp_path: Any) -> None:
    with running(tokens=tokens(tmp_path)) as server, server.client(ALICE) as alice, server.client(BOB) as bob:
        made = alice.post("/contexts", json={"cwd": "/work/dir"}).json()
        assert (made["language"], made["cwd"]) == ("python", "/work/dir")
        assert lines(alice, "import os; x = os.getcwd(); x", context_id=made["id"])[-1]["text"] == "/work/dir"
        assert lines(alice, "'x' in globals()")[-1]["text"] == "False"
        assert [one["id"] for one in alice.get("/contexts").json()] == [made["id"], "default"]
        assert bob.get("/contexts").json() == []
        for answer in (
            bob.post("/execute", json={"code": "x", "context_id": made["id"]}),
            bob.post(f"/contexts/{made['id']}/restart"),
            bob.delete(f"/contexts/{made['id']}"),
        ):
            problem(answer, "unknown-session")
        assert alice.post(f"/contexts/{made['id']}/restart").status_code == 200
        assert lines(alice, "'x' in globals(), os.getcwd()", context_id=made["id"])[-1]["name"] == "NameError"
        assert alice.delete(f"/contexts/{made['id']}").status_code == 200
        problem(alice.post("/execute", json={"code": "x", "context_id": made["id"]}), "unknown-session")


@pytest.mark.parametrize(
    "body",
    [{"code": "1", "language": "r"}, {"code": "1", "context_id": "x", "language": "python"}, {"code": 1}, {},
     {"code": "1", "env_vars": {"A": 1}}],
)  # fmt: skip
def test_what_does_not_fit_is_refused(client: httpx.Client, body: dict[str, Any]) -> None:
    problem(client.post("/execute", json=body), "invalid-body")


def test_a_directory_that_cannot_be_made_is_refused_and_no_session_is_left(client: httpx.Client) -> None:
    problem(client.post("/contexts", json={"cwd": "/dev/null/x\0"}), "invalid-body")
    problem(client.post("/contexts", json={"language": "java"}), "invalid-body")
    assert client.get("/v1/sessions").json() == {"sessions": []}


def test_the_client_of_e2b_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    e2b = pytest.importorskip("e2b_code_interpreter")
    from e2b_code_interpreter import code_interpreter_sync

    with running() as server:
        # It knows one port only, which may be taken here.
        monkeypatch.setattr(code_interpreter_sync, "JUPYTER_PORT", int(server.url.rpartition(":")[2]))
        sandbox = e2b.Sandbox.create(debug=True)
        heard: list[str] = []
        execution = sandbox.run_code("y = 2\nprint(y)\ny + 1", on_stdout=lambda message: heard.append(message.line))
        assert (execution.text, execution.logs.stdout, heard) == ("3", ["2\n"], ["2\n"])
        assert sandbox.run_code("1/0").error.name == "ZeroDivisionError"
        context = sandbox.create_code_context(cwd="/tmp/x")
        assert sandbox.run_code("import os; os.getcwd()", context=context).text == "/tmp/x"
        assert [one.id for one in sandbox.list_code_contexts()] == ["default", context.id]
        sandbox.restart_code_context(context)
        sandbox.remove_code_context(context)
        assert sandbox.run_code("y").text == "2"
