"""The tools of the README that talk to APIs: as it says, with servers of ours in the place of these."""

from __future__ import annotations

import os
import shlex
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.network import island as islands
from tests.network.conftest import CLIENTS
from tests.network.hostile_servers import hostile_server
from tests.support.documents import ROOT, blocks, commands
from wasm_sandbox import Image, Network, Secret, Tool, run_tool

pytestmark = pytest.mark.long

TOKEN = "ghp-0123456789abcdef"
PAGES = {
    "/v1/current": {"city": "Oslo", "celsius": -3.5, "sky": "snow"},
    "/repos/ada/engine/issues": [{"number": 7, "title": "It stops"}, {"number": 9, "title": "A note is missing"}],
    "/latest/EUR-USD": {"rate": 1.0825},
}
TOOLS: dict[str, tuple[dict[str, Any], Any]] = {
    "weather": ({"city": "Oslo"}, "Oslo: -3.5 degrees, snow"),
    "issues": ({"repository": "ada/engine"}, "#7 It stops, #9 A note is missing"),
    "rates": ({"amount": 100, "pair": "EUR-USD"}, 108.25),
}


def test_the_commands_of_the_readme_print_what_it_shows(clients: Image, tmp_path: Path) -> None:
    if why := islands.why_not():
        pytest.skip(f"no island: {why}")
    (block,) = [block for block in blocks("console") if "examples/network/" in block.text]
    build, *lines = commands(block.text)
    assert build[0] == f"wasm-sandbox image build http {' '.join(CLIENTS)}"  # as `clients` is made
    program = tmp_path / "wasm-sandbox"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m wasm_sandbox "$@"\n')
    program.chmod(0o700)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    with islands.island() as island:
        island.pages(PAGES)
        island.names(
            api_weather_example=[["93.184.216.34"]],
            api_github_example=[["93.184.216.35"]],
            rates_example=[["2606:2800:220:1:248:1893:25c8:1946"]],
        )
        for line, shown in lines:
            command = line.replace("--image http ", f"--image {clients.name} ")
            code, output, errors = island.run_shell(command, ROOT, {**environment, "GITHUB_TOKEN": TOKEN})
            assert (code, output) == (0, shown), (line, errors)
        visits = island.visits()
    assert [visit.address for visit in visits] == [
        "93.184.216.34",
        "93.184.216.35",
        "2606:2800:220:1:248:1893:25c8:1946",
    ]
    assert f"authorization: Bearer {TOKEN}\r\n".encode() in visits[1].received


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_works_as_it_is_and_without_a_policy_fails_in_one_line(
    clients: Image, tmp_path: Path, name: str
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    source = (ROOT / "examples" / "network" / f"{name}.py").read_text()
    args, expected = TOOLS[name]
    with hostile_server(context) as server:
        server.pages = PAGES
        place = f"localhost:{server.server_address[1]}"
        for host in ("api.weather.example", "api.github.example", "rates.example"):
            source = source.replace(host, place)
        tool = Tool.from_source(source)
        secrets = {"GITHUB_TOKEN": Secret(TOKEN, hosts=[place])}
        network = Network([f"GET https://{place}/*"], private=True, ca_file=tmp_path / "ca.pem", secrets=secrets)
        result = run_tool(tool, args, image=clients, network=network)
        assert result.func_return == expected, result.error
        assert TOKEN not in str(result)
        assert (TOKEN.encode() in server.visits[0].received) == (name == "issues")
        visits = len(server.visits)
        refused = run_tool(tool, args, image=clients)
        assert len(server.visits) == visits
    assert refused.error is not None
    assert "this run has no network" in refused.error.message
    assert "\n" not in refused.error.message
