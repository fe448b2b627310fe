"""Event loops of a guest, by every way in which programs and test suites come by one."""

from __future__ import annotations

import pytest

from wasm_sandbox import run_code

LOOP = "asyncio.new_event_loop()"
WAYS = {
    "run": "asyncio.run(later())",
    "run after the policy was taken back": "asyncio.set_event_loop_policy(None)\nasyncio.run(later())",
    "a new loop after that": f"asyncio.set_event_loop_policy(None)\n{LOOP}.run_until_complete(later())",
    "another policy": "p = asyncio.DefaultEventLoopPolicy()\nasyncio.set_event_loop_policy(p)\nasyncio.run(later())",
    "the policy's": "asyncio.get_event_loop_policy().new_event_loop().run_until_complete(later())",
    "by its class": "asyncio.SelectorEventLoop().run_until_complete(later())",
    "by its other name": "asyncio.EventLoop().run_until_complete(later())",
    "a runner": "with asyncio.Runner() as runner: value = runner.run(later())\nvalue",
    "a runner with a factory": "with asyncio.Runner(loop_factory=asyncio.EventLoop) as r: x = r.run(later())\nx",
    "one that is set": f"loop = {LOOP}\nasyncio.set_event_loop(loop)\nloop.run_until_complete(later())",
    "two after one another": "asyncio.run(later())\nasyncio.run(later())",
}


@pytest.mark.parametrize("way", WAYS)
def test_it_waits_and_goes_on(way: str) -> None:
    result = run_code(f"import asyncio\ndef later(): return asyncio.sleep(0.01, 'later')\n{WAYS[way]}")
    assert (result.error, result.value) == (None, "later")
