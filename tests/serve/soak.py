"""Many requests of clients that behave and of those that do not, and what the server holds after them.

``python tests/serve/soak.py 20000`` starts a server of its own and prints what it holds as it goes on (Linux).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.servers import command

CLIENTS = 16
ADD = json.dumps({"source": "def add(a: int, b: int) -> int:\n    return a + b", "args": {"a": 1, "b": 2}})
CODE = json.dumps({"code": "sum(range(100))"})
FLOOD = json.dumps({"code": "while True: print('x' * 1000)", "limits": {"timeout_seconds": 5.0}})
SPIN = json.dumps({"code": "while True: pass", "limits": {"timeout_seconds": 5.0}})


@dataclass
class Counts:
    """What a server holds."""

    requests: int
    resident_mib: float
    descriptors: int
    threads: int
    sessions: int
    running: int

    @classmethod
    async def now(cls, requests: int, pid: int, place: tuple[str, int]) -> Counts:
        """Look at a server's process, and at what it says of itself."""
        status = process_status(pid)
        metrics = (await whole(place, request("GET", "/metrics"))).decode()
        told = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if line.startswith("wasm_sandbox_"))
        return cls(
            requests,
            int(status["VmRSS"].split()[0]) / 1024,
            len(os.listdir(f"/proc/{pid}/fd")),
            int(status["Threads"]),
            int(float(told["wasm_sandbox_sessions"])),
            int(float(told["wasm_sandbox_running_calls"])),
        )


def process_status(pid: int) -> dict[str, str]:
    """What the system says of a process."""
    return dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())


def request(method: str, path: str, body: str = "", *, headers: str = "", size: int | None = None) -> bytes:
    """A request's bytes, which say of their body what is asked for."""
    length = len(body) if size is None else size
    kind = "Content-Type: application/json\r\n" if body else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{kind}{headers}"
    return f"{head}Content-Length: {length}\r\n\r\n{body}".encode()


async def whole(place: tuple[str, int], data: bytes) -> bytes:
    """What is answered, until the server closes the connection."""
    reader, writer = await asyncio.open_connection(*place)
    try:
        writer.write(data)
        return await reader.read()
    finally:
        writer.close()


async def good(place: tuple[str, int]) -> None:
    for path, body, part in (("/v1/run", ADD, b'"func_return":3'), ("/v1/code", CODE, b'"value":4950')):
        answer = await whole(place, request("POST", path, body))
        assert part in answer, answer[:500]


async def hangs_up(place: tuple[str, int]) -> None:
    """In the head, in the body, while it runs, in the stream."""
    lines = "Accept: application/x-ndjson\r\n"
    data = random.choice(
        [request("POST", "/v1/code", SPIN), request("POST", "/v1/code", SPIN, headers=lines),
         request("POST", "/v1/code", FLOOD, headers=lines), request("POST", "/v1/code", CODE)[:-5], b"POST /v1"]
    )  # fmt: skip
    _, writer = await asyncio.open_connection(*place)
    writer.write(data)
    await asyncio.sleep(random.random() / 20)
    if random.random() < 0.5:
        writer.transport.abort()
    writer.close()


async def garbage(place: tuple[str, int]) -> None:
    body = random.choice(["{", "[]", '{"code": 1}', "\x00" * 100, "[" * 5000, '{"code": "(' + "(" * 2000 + '"}'])
    data = random.choice(
        [
            request("POST", "/v1/code", body),
            request("POST", "/v1/code", CODE, size=10**12),
            random.randbytes(300) + b"\r\n\r\n",
            request("POST", "/v1/sessions/x/code", CODE),
            request("DELETE", "/v1/run"),
            b"GET / HTTP/9.9\r\n\r\n",
        ]
    )
    try:
        answer = await asyncio.wait_for(whole(place, data), 20)
    except ConnectionError:
        return
    assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 200")), answer[:500]


async def reads_slowly(place: tuple[str, int]) -> None:
    reader, writer = await asyncio.open_connection(*place, limit=1024)
    writer.write(request("POST", "/v1/code", FLOOD, headers="Accept: application/x-ndjson\r\n"))
    for _ in range(5):
        await reader.read(100)
        await asyncio.sleep(0.01)
    writer.transport.abort()


async def keeps_a_session(place: tuple[str, int]) -> None:
    made = json.loads((await whole(place, request("POST", "/v1/sessions", "{}"))).partition(b"\r\n\r\n")[2])
    if made.get("status") == 429:
        return
    path = f"/v1/sessions/{made['id']}"
    await whole(place, request("POST", f"{path}/code", json.dumps({"code": "x = bytearray(1 << 20)"})))
    await whole(place, request("POST", f"{path}/{random.choice(['fork', 'checkpoint', 'dump'])}"))
    await whole(place, request("DELETE", path))


KINDS = (good, good, good, good, hangs_up, hangs_up, garbage, reads_slowly, keeps_a_session)


async def soak(pid: int, url: str, requests: int, samples: int = 10) -> list[Counts]:
    """Counts of a server, while clients of all kinds ask it so often."""
    parts = urlsplit(url)
    place = parts.hostname or "", parts.port or 0
    counts, done, order = [], 0, random.Random(1)
    for sample in range(samples + 1):
        target = requests * (sample + 1) // (samples + 1)

        async def client(target: int = target) -> None:
            nonlocal done
            while done < target:
                done += 1
                await order.choice(KINDS)(place)

        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        for _ in range(200):  # what was left behind comes to its end
            found = await Counts.now(done, pid, place)
            if not found.running:
                break
            await asyncio.sleep(0.05)
        listed = (await whole(place, request("GET", "/v1/sessions"))).partition(b"\r\n\r\n")[2]
        for session in json.loads(listed)["sessions"]:  # forks
            await whole(place, request("DELETE", f"/v1/sessions/{session['id']}"))
        await asyncio.sleep(0.2)
        counts.append(await Counts.now(done, pid, place))
    return counts


def growth(counts: list[Counts]) -> list[str]:
    """What is more at the end than it was after the first part."""
    first, last = counts[0], counts[-1]
    found = []
    if last.resident_mib > first.resident_mib * 1.25 + 40:
        found.append(f"memory: {first.resident_mib:.0f} to {last.resident_mib:.0f} MiB")
    for name, more in (("descriptors", 5), ("threads", 40)):
        if getattr(last, name) > getattr(first, name) + more:
            found.append(f"{name}: {getattr(first, name)} to {getattr(last, name)}")
    found += [f"{name}: {getattr(last, name)}" for name in ("sessions", "running") if getattr(last, name)]
    return found


def main(requests: int) -> None:
    with open(os.devnull, "w") as nowhere, command(stderr=nowhere) as (process, url):
        for counts in (found := asyncio.run(soak(process.pid, url, requests))):
            print(counts)
    print("\n".join(growth(found)) or "level")


if __name__ == "__main__":
    main(int(sys.argv[1]))
