"""The command's ``--network``: hosts, or a file with a policy and secrets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.network.conftest import Servers
from wasm_sandbox.cli.app import cli
from wasm_sandbox.decode.frame import MARKER

VALUE = "sk-live/4eC39HqLyjWDar+jtT1zdp7dc"


def command(*arguments: str, text: str | None = None) -> Result:
    return CliRunner().invoke(cli, arguments, input=text)


@pytest.fixture
def policy(servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("API_KEY", VALUE)
    file = tmp_path / "net.toml"
    file.write_text(
        f'allow = ["localhost:{servers.https}"]\nprivate = true\nca_file = {json.dumps(servers.ca_file)}\n'
        f'[secrets.API_KEY]\nhosts = ["localhost:{servers.https}"]\n'
    )
    return str(file)


ASK = """
import os, urllib.request
request = urllib.request.Request({url!r} + "/json", headers={{"Authorization": os.environ["API_KEY"]}})
text = urllib.request.urlopen(request).read().decode()
"""


def test_a_tool_reaches_what_a_file_allows(servers: Servers, policy: str, tmp_path: Path) -> None:
    file = tmp_path / "tool.py"
    body = ASK.format(url=servers.inputs["https"]).strip().replace("\n", "\n    ")
    file.write_text(f"def ask() -> str:\n    {body}\n    return text\n")
    result = command("run", str(file), "--network", policy)
    assert result.exit_code == 0, result.output
    assert "*" * len(VALUE) in result.output
    assert VALUE not in result.output
    told = json.loads(command("run", str(file), "--network", policy, "--json").output)
    assert [request["status"] for request in told["requests"]] == [200]


@pytest.mark.parametrize("ending", ["print(text)", f"print(text)\nrepr({MARKER!r})"], ids=["plain", "framed"])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_script_reaches_what_a_file_allows(servers: Servers, policy: str, ending: str, options: list[str]) -> None:
    text = ASK.format(url=servers.inputs["https"]) + ending
    result = command("exec", "-", "--network", policy, *options, text=text)
    assert result.exit_code == 0, result.output
    assert "*" * len(VALUE) in result.output
    assert VALUE not in result.output


def test_a_repl_reaches_what_a_file_allows(servers: Servers, policy: str) -> None:
    url = servers.inputs["https"]
    result = command(
        "repl", "--network", policy, text=f"import urllib.request\nurllib.request.urlopen({url!r}).status\n"
    )
    assert "200" in result.output


def test_a_host_that_is_not_allowed_is_refused_in_words(servers: Servers) -> None:
    text = f"import urllib.request\nurllib.request.urlopen({servers.inputs['https']!r})"
    result = command("exec", "-", "--network", "api.example.com,*.example.org", text=text)
    assert result.exit_code == 1
    assert "the network policy does not allow localhost" in result.output


@pytest.mark.parametrize(("value", "words"), [("missing.toml", "missing.toml"), ("a b", "'a b' is no name of a host")])
def test_a_wrong_network_is_a_wrong_option(value: str, words: str) -> None:
    result = command("exec", "-", "--network", value, text="1")
    assert result.exit_code == 2
    assert "--network: " in result.output
    assert words in result.output
