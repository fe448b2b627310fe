"""What docs/serve.md says of the server is so."""

from __future__ import annotations

import re
from pathlib import Path

import httpx

from wasm_sandbox.serve import Settings, Tokens
from wasm_sandbox.serve.app import App
from wasm_sandbox.serve.problems import TITLES

TEXT = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```text\n(.*?)```", TEXT, re.DOTALL)


def test_its_requests_are_answered_as_it_shows(client: httpx.Client) -> None:
    shown = re.findall(r"\$ curl \S+?(/\S+) --json '(.*?)'\n(\{.*?), \.\.\.\}", BLOCKS[0].replace(',"text":"42"', ""))
    assert len(shown) == 2
    for path, body, start in shown:
        answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert answer.text.startswith(start.rstrip())


def test_its_table_of_problems_is_whole() -> None:
    rows = re.findall(r"^\| (\d{3}) \| (.*?) \|", TEXT, re.MULTILINE)
    told = {name: int(status) for status, names in rows for name in re.findall(r"`([a-z-]+)`", names)}
    assert told == {name: status for name, (status, _) in TITLES.items()}


def test_its_token_file_can_be_read(tmp_path: Path) -> None:
    (block,) = [block for block in BLOCKS if block.startswith("[[tokens]]")]
    (tmp_path / "tokens.toml").write_text(block)
    (client,) = Tokens.read(tmp_path / "tokens.toml").clients
    assert (client.name, client.max_sessions, client.limits.timeout_seconds) == ("grader", 5, 10.0)


def test_it_names_every_path() -> None:
    for operation in App(Settings()).operations:
        last = operation.path.rpartition("/")[2]
        first = operation.path.removeprefix("/").partition("/")[0]
        is_told = f"{operation.path}`" in TEXT or f"/{last}`" in TEXT or last == "{session_id}"
        assert is_told or (first == "contexts" and "`/contexts`" in TEXT), operation.path
