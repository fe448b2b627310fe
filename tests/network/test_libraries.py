"""Client libraries against real servers: the table of docs/network.md holds, and a tool's `client` is a real one."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.network.libraries import CASES, Case, Ground, ground
from tests.network.libraries_table import DOCUMENT, START
from tests.network.library_servers import API_KEY, PASSWORD
from wasm_sandbox import Image, Network, Secret, Tool, run_code, run_tool
from wasm_sandbox.errors import ImageNotFound, PackageError

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    try:
        with ground(tmp_path_factory.mktemp("ground")) as found:
            yield found
    except (PackageError, ImageNotFound) as error:
        pytest.skip(f"no image with the libraries: {error}")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.library)
def test_a_library_works_as_it_is(made: Ground, case: Case) -> None:
    if made.services.ports[case.service] is None:
        pytest.skip(f"no {case.service} is installed here")
    result = made.run(case)
    assert result.error is None, "\n".join(result.stderr or [])
    assert result.value == case.expected
    assert API_KEY not in str(result)
    assert {connection.outcome for connection in result.connections} <= {"closed"}


def test_the_table_names_every_library() -> None:
    table = DOCUMENT.read_text(encoding="utf-8").partition(START)[2].partition("\n\n")[0]
    rows = [re.split(r" *\| *", line)[1:-1] for line in table.splitlines()]
    assert [(row[0], row[2], row[3], row[4]) for row in rows] == [
        (case.library, case.tried, "yes", case.remark) for case in CASES
    ]


def test_the_client_of_a_tool_is_a_real_one(made: Ground) -> None:
    source = """
def ask(text: str) -> list[str]:
    agents = [agent.name for agent in client.agents.list()]
    answer = client.agents.messages.create("agent-1", messages=[{"role": "user", "content": text}])
    return [type(client).__name__, *agents, answer.messages[0].content]
"""
    api = f"localhost:{made.services.ports['api']}"
    key = Secret(API_KEY, hosts=[api])
    allow = [f"GET https://{api}/v1/agents/", f"POST https://{api}/v1/agents/*"]
    network = Network(allow, private=True, ca_file=made.ca_file, secrets={"LETTA_API_KEY": key})
    environment = {"LETTA_BASE_URL": f"https://{api}"}
    tool = Tool.from_source(source)
    result = run_tool(tool, {"text": "hello"}, image=made.image, network=network, env=environment)
    assert result.func_return == ["Letta", "Ada", "Grace", "You said: hello"], result.stderr
    assert result.requests is not None
    assert {(request.method, request.status) for request in result.requests} == {("GET", 200), ("POST", 200)}
    assert API_KEY not in str(result)
    without = run_tool(tool, {"text": "hello"}, image=made.image, env={**environment, "LETTA_API_KEY": "none"})
    assert without.error is not None
    assert "Connection error" in without.error.message


def test_a_mail_arrives_and_a_wrong_password_is_the_librarys_error(made: Ground) -> None:
    made.services.mails.clear()
    (case,) = [case for case in CASES if case.library == "smtplib"]
    assert made.run(case).error is None
    assert [mail["Subject"] for mail in made.services.mails] == ["Hello"]
    mail = f"localhost:{made.services.ports['mail']}"
    inputs = {"mail": mail, "password": PASSWORD[::-1]}
    result = run_code(case.code, inputs, image=made.image, network=made.network(f"tcp://{mail}"))
    assert result.error is not None
    assert result.error.exception_name == "SMTPAuthenticationError"


def test_an_image_without_a_library_says_so(clients: Image) -> None:
    result = run_code("import boto3", image=clients, network="example.com")
    assert result.error is not None
    assert result.error.message == "No module named 'boto3'"
