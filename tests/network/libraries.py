"""Client libraries that tools use, each with a program that does with it what it is there for, against a real server.

`tests/network/test_libraries.py` runs them, and ``python -m tests.network.libraries_table`` writes the table of
``docs/network.md`` from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme

from tests.network.library_servers import API_KEY, PASSWORD, Services, services
from wasm_sandbox import CodeResult, Image, Limits, Network, Secret, run_code

REQUIREMENTS = ("requests", "httpx", "letta-client", "openai", "anthropic", "boto3", "websockets", "pg8000", "redis")
IMAGE = "tests-network-libraries"


@dataclass(frozen=True)
class Case:
    """A program and what its value must be; ``places`` is a dict of ``host:port`` by the names of services."""

    library: str
    tried: str
    code: str
    expected: Any
    service: str = "api"
    remark: str = ""


CASES = (
    Case(
        "urllib, http.client",
        "HTTPS, kept alive",
        """
import http.client, json, urllib.request
found = [json.load(urllib.request.urlopen(f"https://{api}/a"))["path"]]
kept = http.client.HTTPSConnection(api)
for path in ("/b", "/c"):
    kept.request("GET", path)
    found.append(json.load(kept.getresponse())["path"])
found
""",
        ["/a", "/b", "/c"],
    ),
    Case(
        "asyncio streams",
        "TLS, two at once",
        """
import asyncio
host, port = api.split(":")
async def get(path):
    reader, writer = await asyncio.open_connection(host, int(port), ssl=True)
    writer.write(f"GET {path} HTTP/1.1\\r\\nHost: {api}\\r\\nConnection: close\\r\\n\\r\\n".encode())
    answer = await reader.read()
    writer.close()
    return path.encode() in answer
await asyncio.gather(get("/a"), get("/b"))
""",
        [True, True],
    ),
    Case(
        "requests",
        "HTTPS, a session, a streamed answer",
        """
import requests
with requests.Session() as session:
    found = [session.get(f"https://{api}{path}").json()["path"] for path in ("/a", "/b")]
    with session.get(f"https://{api}/c", stream=True) as answer:
        found.append(b"".join(answer.iter_content(4)).decode())
found
""",
        ["/a", "/b", '{"path": "/c"}'],
    ),
    Case(
        "httpx",
        "HTTPS, sync and async, ten at once",
        """
import asyncio, httpx
found = [httpx.get(f"https://{api}/a").json()["path"]]
async with httpx.AsyncClient(base_url=f"https://{api}") as client:
    answers = await asyncio.gather(*[client.get(f"/{n}") for n in range(10)])
found + [[answer.json()["path"] for answer in answers] == [f"/{n}" for n in range(10)]]
""",
        ["/a", True],
        remark="HTTP/1.1 inside: `http2=True` changes nothing",
    ),
    Case(
        "letta-client",
        "agents, a message, sync and async",
        """
import os
from letta_client import AsyncLetta, Letta
base = f"https://{api}"
client = Letta(api_key=os.environ["API_KEY"], base_url=base)
found = [agent.name for agent in client.agents.list()]
answer = client.agents.messages.create("agent-1", messages=[{"role": "user", "content": "hello"}])
found.append(answer.messages[0].content)
async with AsyncLetta(api_key=os.environ["API_KEY"], base_url=base) as client:
    found += [agent.id async for agent in client.agents.list()]
found
""",
        ["Ada", "Grace", "You said: hello", "agent-1", "agent-2"],
        remark="also as `client` of a tool, with `LETTA_API_KEY` and `LETTA_BASE_URL`",
    ),
    Case(
        "openai",
        "chat, streamed too, sync and async",
        """
import os
from openai import AsyncOpenAI, OpenAI
options = {"model": "m", "messages": [{"role": "user", "content": "one two"}]}
client = OpenAI(api_key=os.environ["API_KEY"], base_url=f"https://{api}/v1")
found = [client.chat.completions.create(**options).choices[0].message.content]
found.append([chunk.choices[0].delta.content for chunk in client.chat.completions.create(stream=True, **options)])
client = AsyncOpenAI(api_key=os.environ["API_KEY"], base_url=f"https://{api}/v1")
stream = await client.chat.completions.create(stream=True, **options)
found + [[chunk.choices[0].delta.content async for chunk in stream]]
""",
        ["ONE TWO", ["ONE", "TWO"], ["ONE", "TWO"]],
        remark="in place of its compiled jiter, the guest's pydantic parses JSON",
    ),
    Case(
        "anthropic",
        "messages, streamed too, sync and async",
        """
import os
from anthropic import Anthropic, AsyncAnthropic
options = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "one two"}]}
client = Anthropic(api_key=os.environ["API_KEY"], base_url=f"https://{api}")
found = [client.messages.create(**options).content[0].text]
with client.messages.stream(**options) as stream:
    found.append(list(stream.text_stream))
client = AsyncAnthropic(api_key=os.environ["API_KEY"], base_url=f"https://{api}")
async with client.messages.stream(**options) as stream:
    found.append([text async for text in stream.text_stream])
found
""",
        ["ONE TWO", ["ONE", "TWO"], ["ONE", "TWO"]],
        remark='as openai; its secret needs `headers=["x-api-key"]`',
    ),
    Case(
        "boto3",
        "objects of S3",
        """
import boto3
s3 = boto3.client("s3", endpoint_url=f"https://{api}", region_name="eu-north-1", aws_access_key_id="AKIA",
                  aws_secret_access_key="not-a-secret")
s3.put_object(Bucket="shelf", Key="a/b.txt", Body=b"hello" * 1000)
answer = s3.get_object(Bucket="shelf", Key="a/b.txt")
[answer["Body"].read() == b"hello" * 1000, s3.head_object(Bucket="shelf", Key="a/b.txt")["ContentLength"]]
""",
        [True, 5000],
        remark="it signs requests inside, so its key is handed in and no `Secret`; transfers in threads are not there",
    ),
    Case(
        "websockets",
        "messages, small and large",
        """
from websockets.asyncio.client import connect
found = []
async with connect(f"wss://{api}/chat") as socket:
    for message in ("one", "two" * 1000, b"three"):
        await socket.send(message)
        found.append(await socket.recv())
[found[0], len(found[1]), found[2]]
""",
        ["ONE", 3000, b"THREE"],
        remark="its asyncio client; the one with threads needs threads",
    ),
    Case(
        "smtplib",
        "STARTTLS, a password, a mail",
        """
import smtplib
from email.message import EmailMessage
host, port = mail.split(":")
message = EmailMessage()
message["From"], message["To"], message["Subject"] = "ada@example.com", "grace@example.com", "Hello"
message.set_content("Hello, Grace.")
with smtplib.SMTP(host, int(port)) as server:
    server.starttls()
    server.login("ada", password)
    found = server.send_message(message)
found
""",
        {},
        "mail",
        remark="`tcp://`, as all below: passwords are handed in, for nothing is read or replaced there",
    ),
    Case(
        "pg8000",
        "PostgreSQL: TLS, SCRAM, a transaction",
        """
import ssl, pg8000.native
host, port = postgres.split(":")
db = pg8000.native.Connection("ada", host=host, port=int(port), password=password, database="postgres",
                              ssl_context=ssl.create_default_context())
db.run("create temporary table engines (name text, wheels int)")
db.run("begin")
db.run("insert into engines values (:name, :wheels)", name="Difference", wheels=25_000)
db.run("commit")
found = db.run("select name, wheels from engines")
db.close()
found
""",
        [["Difference", 25_000]],
        "postgres",
    ),
    Case(
        "redis",
        "a password, a pipeline, sync and async",
        """
import redis, redis.asyncio
host, port = store.split(":")
with redis.Redis(host=host, port=int(port), password=password, decode_responses=True) as client:
    client.set("a", "one")
    found = [client.get("a"), client.pipeline().incr("n").incr("n").execute()]
async with redis.asyncio.Redis(host=host, port=int(port), password=password) as client:
    found.append(await client.get("a"))
    await client.flushall()
found
""",
        ["one", [1, 2], b"one"],
        "redis",
    ),
)


@dataclass(frozen=True)
class Ground:
    """Servers, and what their clients run in."""

    services: Services
    image: Image
    ca_file: Path

    def run(self, case: Case) -> CodeResult:
        """Run a program against its server."""
        ports = self.services.ports
        host = f"localhost:{ports[case.service]}"
        entry = host if case.service == "api" else f"tcp://{host}"
        names = {"api": "api", "mail": "mail", "postgres": "postgres", "redis": "store"}
        inputs = {names[case.service]: host, **({} if case.service == "api" else {"password": PASSWORD})}
        return run_code(
            case.code, inputs, image=self.image, network=self.network(entry), limits=Limits(timeout_seconds=60)
        )

    def network(self, *allow: str) -> Network:
        """A policy, and the key of the APIs as a secret for them."""
        api = f"localhost:{self.services.ports['api']}"
        secret = Secret(API_KEY, hosts=[api], headers=["authorization", "x-api-key"])
        return Network(list(allow), private=True, ca_file=self.ca_file, secrets={"API_KEY": secret})


@contextmanager
def ground(directory: Path) -> Iterator[Ground]:
    """The servers, and an image with all libraries.

    Raises:
        PackageError: if that cannot be had here.
    """
    image = Image.build(list(REQUIREMENTS), name=IMAGE)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    with services(authority) as made:
        yield Ground(made, image, directory / "ca.pem")
