"""What a client of the SDK sees of the server, both in one process: tools, sessions, bad input, cancelled calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from mcp import Client

from tests.mcp.conversations import text_of
from wasm_sandbox import AsyncSandbox, Tool
from wasm_sandbox.directories import DATA_VARIABLE
from wasm_sandbox.mcp import BoxCalls, Service
from wasm_sandbox.stores import LocalUser, SandboxConfigManager, ToolManager

DOUBLE = '''
def double(n: int) -> int:
    """Double a number.

    Args:
        n: the number.
    """
    progress(1, 2, "half of it")
    return 2 * n
'''


@pytest.fixture(autouse=True)
def data_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    return tmp_path


@asynccontextmanager
async def connected(
    mode: str = "legacy", max_sessions: int = 16, **options: Any
) -> AsyncIterator[tuple[Client, BoxCalls]]:
    calls = BoxCalls(AsyncSandbox(**options), max_sessions=max_sessions)
    async with Client(Service(calls).server, mode=mode) as client:
        yield client, calls


async def run(client: Client, code: str, **arguments: Any) -> Any:
    result = await client.call_tool("run_python", {"code": code, **arguments})
    return result.structured_content


def store(source: str, **changes: Any) -> Tool:
    return ToolManager().create_or_update_tool(Tool.from_source(source).model_copy(update=changes), LocalUser())


# --- Tools ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_code_is_run_with_inputs(mode: str) -> None:
    async with connected(mode) as (client, _):
        found = await run(client, "print(len(rows))\nsum(rows)", inputs={"rows": [1, 2, 3]})
    assert (found["value"], found["stdout"], found["status"]) == (6, "3\n", "success")


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_stored_tool_is_there_by_its_own_name_and_schema(mode: str) -> None:
    tool = store(DOUBLE)
    async with connected(mode) as (client, _):
        tools = {found.name: found for found in (await client.list_tools()).tools}
        assert set(tools) == {"run_python", "reset", "double"}
        assert tool.json_schema is not None
        assert tools["double"].input_schema == {**tool.json_schema["parameters"], "type": "object"}
        assert tools["double"].description == "Double a number."
        result = await client.call_tool("double", {"n": 21})
        assert (text_of(result), result.structured_content["value"]) == ("42", 42)
        wrong = await client.call_tool("double", {"n": [1]})
        assert wrong.is_error
        assert wrong.structured_content["error"]["kind"] == "bad_arguments"


async def test_a_tool_that_is_stored_later_is_there_and_one_that_is_removed_is_not() -> None:
    async with connected() as (client, _):
        assert (await client.call_tool("double", {"n": 1})).structured_content["error"]["kind"] == "unknown_tool"
        tool = store(DOUBLE)
        assert text_of(await client.call_tool("double", {"n": 1})) == "2"
        ToolManager().delete_tool_by_id(str(tool.id), LocalUser())
        assert (await client.call_tool("double", {"n": 1})).is_error


async def test_a_stored_tool_is_given_the_stored_variables() -> None:
    store("def who():\n    import os\n    return os.environ['WHO']")
    configs = SandboxConfigManager()
    config = configs.get_or_create_default_sandbox_config("wasm", LocalUser())
    configs.create_or_update_sandbox_env_var("WHO", "Ada", config.id, LocalUser())
    async with connected() as (client, _):
        assert text_of(await client.call_tool("who")) == "Ada"
        assert (await run(client, "import os\nos.environ.get('WHO')"))["value"] is None


@pytest.mark.parametrize("name", ["run_python", "reset", "größe"])
async def test_a_tool_whose_name_is_taken_or_none_for_clients_is_left_out(name: str) -> None:
    store(f"def {name}():\n    return 'mine'")
    async with connected() as (client, _):
        assert [tool.name for tool in (await client.list_tools()).tools] == ["run_python", "reset"]
        assert (await run(client, "'ours'"))["value"] == "ours"


@pytest.mark.parametrize("schema", [None, {}, {"parameters": None}, {"parameters": {"type": "array"}}])
async def test_a_tool_with_a_schema_of_its_own_does_not_spoil_the_list(schema: Any) -> None:
    store(DOUBLE, json_schema=schema)
    async with connected() as (client, _):
        tools = {found.name: found for found in (await client.list_tools()).tools}
    assert tools["double"].input_schema["type"] == "object"


def _spoil(directory: Path) -> None:
    for path in directory.rglob("*"):
        if path.is_file():
            path.write_bytes(b"no database, but long enough to be read as one" * 100)


async def test_a_store_that_cannot_be_used_leaves_the_rest(data_directory: Path) -> None:
    ToolManager().create_or_update_tool(Tool.from_source(DOUBLE), LocalUser())
    _spoil(data_directory)
    async with connected() as (client, _):
        assert [tool.name for tool in (await client.list_tools()).tools] == ["run_python", "reset"]
        result = await client.call_tool("double", {"n": 1})
        assert result.structured_content["error"]["kind"] == "StoreError"
        assert (await run(client, "1"))["value"] == 1


async def test_results_are_what_the_schema_of_results_says() -> None:
    store(DOUBLE)
    codes = ["1", "display('x')\nprint(2)", "1 / 0", "while True: pass", "import os; os.abort()", "x ="]
    async with connected(limits={"timeout_seconds": 0.5}) as (client, _):
        tools = {found.name: found for found in (await client.list_tools()).tools}
        results = [await client.call_tool("run_python", {"code": code, "session": "s"}) for code in codes]
        results += [await client.call_tool(name, {"session": "s"}) for name in ("reset", "reset", "double")]
    schema = tools["run_python"].output_schema
    assert schema is not None
    for result in results:
        jsonschema.validate(result.structured_content, schema)
        assert result.is_error == (result.structured_content["status"] == "error")


async def test_progress_is_told_to_a_client_that_asks() -> None:
    told: list[Any] = []

    async def listen(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))

    store(DOUBLE)
    code = "import time\nfor n in range(4):\n    progress(n, 4, f'step {n}')\n    time.sleep(0.08)"
    async with connected() as (client, _):
        await client.call_tool("run_python", {"code": code}, progress_callback=listen)
        steps = [(float(n), 4.0, f"step {n}") for n in range(4)]
        assert (
            {steps[0], steps[-1]} <= {*told} <= {*steps}
        )  # the client's tasks may change their order; the last is sent
        told.clear()
        await client.call_tool("run_python", {"code": code, "session": "s"}, progress_callback=listen)
        assert {steps[0], steps[-1]} <= {*told} <= {*steps}
        told.clear()
        await client.call_tool("double", {"n": 1}, progress_callback=listen)
        assert told == [(1.0, 2.0, "half of it")]


async def test_a_flood_of_progress_is_a_trickle_and_its_end_is_told() -> None:
    told: list[Any] = []

    async def listen(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))

    code = (
        "progress(float('nan'))\nprogress(float('inf'))\nprogress(-1, float('nan'), 'x' * 10_000)\n"
        "for n in range(3000): progress(n)\nprogress(5)"
    )
    async with connected() as (client, _):
        began = time.monotonic()
        result = await client.call_tool("run_python", {"code": code}, progress_callback=listen)
        seconds = time.monotonic() - began
    assert not result.is_error
    assert len(told) <= seconds / 0.05 + 2
    values = [done for done, _, _ in told]
    assert values == sorted(set(values))
    assert all(len(text or "") <= 500 for _, _, text in told)


# --- Sessions -------------------------------------------------------------------------------------------


async def test_a_session_keeps_its_variables_until_it_is_reset() -> None:
    async with connected() as (client, service):
        first = await run(client, "x = 1", session="a")
        second = await run(client, "x += 1\nx", session="a")
        other = await run(client, "x", session="b")
        assert (first["session_is_new"], second["session_is_new"], second["value"]) == (True, False, 2)
        assert other["error"]["exception_name"] == "NameError"
        assert len(service.sessions) == 2
        assert not (await client.call_tool("reset", {"session": "a"})).is_error
        assert len(service.sessions) == 1
        again = await run(client, "x", session="a")
        assert (again["session_is_new"], again["error"]["exception_name"]) == (True, "NameError")


@pytest.mark.long
async def test_a_session_that_was_not_used_for_long_begins_anew_and_says_so() -> None:
    service = BoxCalls(AsyncSandbox(), idle_seconds=0.2)
    async with Client(Service(service).server) as client:
        await run(client, "x = 1", session="a")
        await asyncio.sleep(0.9)
        assert (await run(client, "1", session="a"))["session_is_new"]
        assert len(service.sessions) == 1
        await asyncio.sleep(0.9)
        assert (await client.call_tool("reset", {"session": "a"})).is_error


async def test_a_limit_takes_a_session_back() -> None:
    async with connected(limits={"timeout_seconds": 0.5}) as (client, _):
        await run(client, "x = 1", session="a")
        result = await client.call_tool("run_python", {"code": "x = 2\nwhile True: pass", "session": "a"})
        assert result.structured_content["session_rolled_back"]
        assert "what it was before this call" in text_of(result)
        assert (await run(client, "x", session="a"))["value"] == 1


async def test_there_are_no_more_sessions_than_there_may_be() -> None:
    async with connected(max_sessions=2) as (client, service):
        results = await asyncio.gather(*(run(client, "1", session=f"s{n}") for n in range(5)))
        assert sorted(result["status"] for result in results) == ["error"] * 3 + ["success"] * 2
        kinds = {result["error"]["kind"] for result in results if result["status"] == "error"}
        assert (kinds, len(service.sessions)) == ({"too_many_sessions"}, 2)
        (gone,) = await asyncio.gather(client.call_tool("reset", {"session": "s0"}))
        assert not gone.is_error
        assert (await run(client, "1", session="s4"))["value"] == 1


async def test_calls_that_begin_a_session_together_share_it() -> None:
    async with connected() as (client, service):
        results = await asyncio.gather(*(run(client, f"x{n} = {n}", session="a") for n in range(4)))
        assert sum(result["session_is_new"] for result in results) == 1
        assert (await run(client, "x0 + x1 + x2 + x3", session="a"))["value"] == 6
        assert len(service.sessions) == 1


async def test_a_reset_stops_what_runs_in_the_session() -> None:
    async with connected() as (client, service):
        await run(client, "x = 1", session="a")
        running = asyncio.ensure_future(run(client, "while True: pass", session="a"))
        await asyncio.sleep(0.2)
        began = time.monotonic()
        assert not (await client.call_tool("reset", {"session": "a"})).is_error
        assert time.monotonic() - began < 5
        assert (await running)["error"]["kind"] == "session_reset"
        assert len(service.sessions) == 0


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_cancelled_call_stops_its_guest_and_leaves_the_session(mode: str) -> None:
    async with connected(mode) as (client, service):
        await run(client, "x = 1", session="a")
        for session in ("a", None):
            running = asyncio.ensure_future(run(client, "x = 2\nwhile True: pass", session=session))
            await asyncio.sleep(0.2)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        assert await asyncio.wait_for(run(client, "x", session="a"), 10) | {"value": 1, "session_is_new": False}
        assert len(service.sessions) == 1
    assert len(service.sessions) == 0


# --- Bad input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "word"),
    [
        ("run_python", {}, "code: Field required"),
        ("run_python", {"code": 5}, "code: Input should be a valid string"),
        ("run_python", {"code": None}, "code"),
        ("run_python", {"code": "1", "cod": "2"}, "cod: Extra inputs are not permitted"),
        ("run_python", {"code": "1", "inputs": [1]}, "inputs"),
        ("run_python", {"code": "1", "inputs": {"not a name": 1}}, "not a name"),
        ("run_python", {"code": "1", "session": ""}, "session"),
        ("run_python", {"code": "1", "session": "../a b"}, "session"),
        ("run_python", {"code": "1", "session": 7}, "session"),
        ("run_python", {"code": "#" * 1_000_001}, "at most 1000000 characters"),
        ("reset", {}, "session: Field required"),
        ("reset", {"session": "never"}, "there is no session 'never'"),
        ("no_such_tool", {}, "there is no tool 'no_such_tool'"),
        ("x" * 5000, {}, "there is no tool"),
        ("", None, "there is no tool"),
    ],
)
async def test_bad_input_is_a_tool_result_that_names_it(name: str, arguments: Any, word: str) -> None:
    async with connected() as (client, service):
        result = await client.call_tool(name, arguments)
        assert result.is_error
        assert word in text_of(result)
        assert len(text_of(result)) < 2500
        assert len(service.sessions) == 0


async def test_nulls_are_as_left_out() -> None:
    async with connected() as (client, _):
        assert (await run(client, "1", inputs=None, session=None))["value"] == 1


async def test_a_sandbox_that_cannot_run_says_so() -> None:
    async with connected(image="no-such-image") as (client, _):
        for arguments in ({"code": "1"}, {"code": "1", "session": "a"}):
            result = await client.call_tool("run_python", arguments)
            assert result.structured_content["error"]["kind"] == "ImageNotFound"


async def test_what_a_guest_shows_comes_as_pictures() -> None:
    code = "display({'image/png': b'\\x89PNG\\r\\n\\x1a\\n' + bytes(9)}, raw=True)"
    async with connected() as (client, _):
        result = await client.call_tool("run_python", {"code": code})
    assert [part.type for part in result.content] == ["text", "image"]
