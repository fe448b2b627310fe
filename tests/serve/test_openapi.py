"""The document of the interface: whole, valid, and true of the running server, as schemathesis sees it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.servers import ALICE, running, tokens
from wasm_sandbox.serve.app import App
from wasm_sandbox.serve.settings import Settings


def test_every_operation_and_every_reference_of_the_document_is_there(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    listed = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert listed == {(one.method, one.path) for one in App(Settings()).operations}
    known = document["components"]["schemas"]
    text = json.dumps(document)
    names = {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= known.keys()


# Not that all data is accepted that fits a schema: of what is Python and what is no session no schema can tell.
# Names of sessions that schemathesis makes up are never there; what it makes with those that are is in test_sessions.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,negative_data_rejection,missing_required_header,unsupported_method,ignored_auth"
)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_server_does_what_the_document_says(tmp_path: Path) -> None:
    ceiling = "limits = { timeout_seconds = 1.0, fuel = 10000000, memory_bytes = 67108864 }\nmetrics = true"
    with running(tokens=tokens(tmp_path, alice=ceiling)) as server:
        command = [
            "schemathesis", "run", f"{server.url}/openapi.json", "--header", f"Authorization: Bearer {ALICE}",
            "--checks", CHECKS, "--max-examples", "4", "--seed", "1", "--phases", "coverage,fuzzing",
            "--request-timeout", "20", "--generation-database", "none", "--no-color",
        ]  # fmt: skip
        done = subprocess.run(
            [str(Path(sys.executable).with_name(command[0])), *command[1:]],
            capture_output=True, text=True, timeout=280, check=False, cwd=tmp_path,
            env={**os.environ, "PYTHONUTF8": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert not [line for line in server.log if line["event"] == "defect"]
