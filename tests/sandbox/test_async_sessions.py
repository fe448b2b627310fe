"""Sessions that are awaited: the event loop stays free, host functions run on it, cancelling takes a session back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from wasm_sandbox import AsyncPaused, AsyncSandbox, AsyncSession, HostFunction, SessionError, Tool

APPROVE = HostFunction.deferred("approve", question=str, returns=bool)


def with_session(body: Callable[[AsyncSession], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        async with AsyncSandbox(**options).session() as session:
            await body(session)

    asyncio.run(main())


def test_state_is_kept_and_taken_back() -> None:
    async def body(session: AsyncSession) -> None:
        await session.set(x=[1])
        point = await session.checkpoint()
        await session.run_code("x.append(2)")
        async with session.fork() as twin:
            assert await twin.get("x") == [1, 2]
        again = await session.fork()
        assert await again.get("x") == [1, 2]
        await again.close()
        with pytest.raises(SessionError, match="it was closed"):
            await twin.get("x")
        await session.rollback(point)
        assert await session.get("x") == [1]
        tool = Tool.from_source("def f(n: int) -> int:\n    return n + 1")
        assert (await session.run_tool(tool, {"n": 1})).func_return == 2
        with pytest.raises(KeyError):
            await session.get("y")
        loaded = await AsyncSandbox().load_session(await session.dump())
        assert await loaded.get("x") == [1]
        await loaded.close()
        with pytest.raises(SessionError, match="it was closed"):
            await loaded.get("x")

    with_session(body)


def test_the_loop_is_free_and_host_functions_run_on_it() -> None:
    async def body(session: AsyncSession) -> None:
        loop = asyncio.get_running_loop()

        async def here(n: int) -> bool:
            await asyncio.sleep(0.01)
            return asyncio.get_running_loop() is loop

        code = "import asyncio\nawait asyncio.gather(*(here(n) for n in range(5)))"
        assert (await session.run_code(code, functions=[here])).value == [True] * 5
        calls = [session.run_code("import time; time.sleep(0.05)") for _ in range(3)]
        ran = asyncio.gather(*calls)
        ticks = 0
        while not ran.done():
            ticks += 1
            await asyncio.sleep(0.005)
        assert ticks > 5

    with_session(body)


def test_cancelling_takes_the_session_back() -> None:
    async def body(session: AsyncSession) -> None:
        await session.set(x=1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(session.run_code("x = 2\nwhile True: pass"), 0.3)
        assert await session.get("x") == 1

    with_session(body)


def test_a_program_is_paused_and_resumed() -> None:
    async def body(session: AsyncSession) -> None:
        found = await session.start("ok = await approve('pay?')\nok")
        assert isinstance(found, AsyncPaused)
        blob = await found.dump()
        twin = await found.fork()
        refused = await twin.resume({twin.calls[0].id: False})
        assert not isinstance(refused, AsyncPaused)
        assert refused.value is False
        assert (twin.stdout, twin.stderr, twin.displays) == ([], [], [])
        await twin.session.close()
        result = await found.resume({found.calls[0].id: True})
        assert not isinstance(result, AsyncPaused)
        assert result.value is True
        again = await AsyncSandbox(functions=[APPROVE]).load_paused(blob)
        other = await again.resume({again.calls[0].id: False})
        assert not isinstance(other, AsyncPaused)
        assert other.value is False
        await again.session.close()

    with_session(body, functions=[APPROVE])
