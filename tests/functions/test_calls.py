"""Host functions as tools and code call them: arguments, results, errors, waiting, gates, budgets."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import datetime
import threading
import time
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel

from wasm_sandbox import (
    AsyncSandbox,
    Call,
    CodeResult,
    Deny,
    ErrorKind,
    HostFunction,
    Limits,
    Sandbox,
    Tool,
    host_function,
    run_code,
    run_tool,
)


class Hit(BaseModel):
    title: str
    on: datetime.date


@dataclasses.dataclass
class Place:
    name: str
    at: tuple[float, float] = (0.0, 0.0)


def add(a: int, b: int = 2) -> int:
    """Add two numbers."""
    return a + b


def search(query: str, *more: str, limit: int = 10, **flags: bool) -> list[Hit]:
    """Search the archive."""
    return [Hit(title=f"{query} {more} {limit} {flags}", on=datetime.date(2024, 1, 2))]


async def slow(n: int) -> int:
    await asyncio.sleep(0.1)
    return n


def said(result: CodeResult) -> str:
    assert result.error is not None
    return f"{result.error.exception_name}: {result.error.message}"


# --- What the guest sees --------------------------------------------------------------------------------


def test_a_guest_sees_the_function_with_its_signature_and_docstring() -> None:
    code = "import inspect\n(add.__name__, str(inspect.signature(add)), add.__doc__, add(1), add(b=3, a=1))"
    assert run_code(code, functions=[add]).value == ("add", "(a: int, b: int = 2) -> int", "Add two numbers.", 3, 4)


def test_functions_are_there_by_name_and_as_modules() -> None:
    assert run_code("from tools import add\nimport tools\nadd(1) + tools.add(2)", functions=[add]).value == 7
    assert run_code("import maths\nmaths.add(1) + add(5)", functions={"maths": [add]}).value == 10
    missing = run_code("import nowhere", functions=[add])
    assert said(missing) == "ModuleNotFoundError: No module named 'nowhere'"
    without = run_code("from tools import add")
    assert said(without) == "ModuleNotFoundError: No module named 'tools'"


def test_a_name_in_two_modules_is_only_imported() -> None:
    def twin() -> int:
        return 1

    other = HostFunction.of(host_function(name="twin")(lambda: 2))
    both: dict[str, list[Any]] = {"a": [twin], "b": [other]}
    assert run_code("import a, b\n(a.twin(), b.twin())", functions=both).value == (1, 2)
    assert said(run_code("twin()", functions=both)) == "NameError: name 'twin' is not defined"


def test_a_tool_calls_them_too_and_its_own_names_win() -> None:
    tool = Tool.from_source("def f(x: int) -> int:\n    return add(x) * 2")
    result = run_tool(tool, {"x": 4}, functions=[add])
    assert result.func_return == 12
    assert [(call.name, call.outcome) for call in result.calls or ()] == [("add", "ok")]
    own = Tool.from_source("def add(x):\n    return -x\ndef f(x: int) -> int:\n    return add(x)", name="f")
    assert run_tool(own, {"x": 4}, functions=[add]).func_return == -4
    argument = Tool.from_source("def f(add: int) -> int:\n    import tools\n    return tools.add(add)")
    assert run_tool(argument, {"add": 4}, functions=[add]).func_return == 6
    assert run_tool(tool, {"x": 4}).error is not None


@pytest.mark.parametrize("name", ["print", "len", "str", "pickle", "sys", "hashlib", "Exception", "dict"])
def test_a_function_may_have_a_name_that_the_script_needs(name: str) -> None:
    taken = host_function(name=name)(lambda x=0: x + 1)
    tool = Tool.from_source(f"def f(x: int) -> int:\n    return {name}(x)")
    assert run_tool(tool, {"x": 4}, functions=[taken]).func_return == 5
    assert run_code(f"{name}(6)", functions=[taken]).value == 7


def test_every_kind_of_parameter() -> None:
    def every(a: int, /, b: int, *rest: int, c: int = 3, **more: int) -> list[Any]:
        return [a, b, list(rest), c, more]

    assert run_code("every(1, 2)", functions=[every]).value == [1, 2, [], 3, {}]
    assert run_code("every(1, 2, 4, 5, c=6, d=7)", functions=[every]).value == [1, 2, [4, 5], 6, {"d": 7}]
    assert run_code("every(1, b=2)", functions=[every]).value == [1, 2, [], 3, {}]
    assert said(run_code("every(a=1, b=2)", functions=[every])).startswith("TypeError: every() missing")


class Account:
    """Account of somebody."""

    def __init__(self, balance: int) -> None:
        self.balance = balance

    def draw(self, amount: int) -> int:
        self.balance -= amount
        return self.balance

    def __call__(self, n: int) -> int:
        return self.balance * n


def test_bound_methods_and_callables() -> None:
    account = Account(10)
    assert run_code("draw(3)", functions=[account.draw]).value == 7
    assert run_code("Account(2)", functions=[account]).value == 14


def test_a_tool_is_a_function_of_the_host_as_well() -> None:
    double = Tool.from_source("def double(x: int) -> int:\n    '''Double it.'''\n    return 2 * x")
    result = run_code("(double(4), double.__doc__)", functions=[double])
    assert result.value == (8, "Double it.")
    failing = Tool.from_source("def fail():\n    raise KeyError('k')")
    assert said(run_code("fail()", functions=[failing])) == "RuntimeError: fail: KeyError: 'k'"


# --- Values ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        *(None, 5, 2**70, 1.5, "é", b"\0\xff", [1, {"a": (1, 2)}], {1, 2}, Decimal("1.5"), datetime.timedelta(1)),
        *(datetime.date(2024, 1, 2), datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC), {1: [b"x"]}),
    ],
    ids=repr,
)
def test_results_travel_with_their_types(value: Any) -> None:
    def give() -> Any:
        return value

    result = run_code("v = give()\n(v, type(v).__name__)", functions=[give])
    assert result.value == (value, type(value).__name__)


def test_models_and_dataclasses_are_records() -> None:
    def place() -> Place:
        return Place("x", (1.0, 2.0))

    assert run_code("h = search('q')[0]\n(h.title == h['title'], h.on, h)", functions=[search]).value == (
        True,
        datetime.date(2024, 1, 2),
        {"title": "q () 10 {}", "on": datetime.date(2024, 1, 2)},
    )
    assert run_code("place().at", functions=[place]).value == (1.0, 2.0)


def test_arguments_are_validated_as_their_annotations_say() -> None:
    seen: list[Any] = []

    def book(when: datetime.date, place: Place, price: Decimal, names: set[str], raw: bytes) -> None:
        seen.extend([when, place, price, names, raw])

    code = (
        "import datetime, decimal\n"
        "book(datetime.date(2024, 1, 2), {'name': 'x'}, decimal.Decimal('1.50'), {'a'}, b'\\x00\\xff')"
    )
    assert run_code(code, functions=[book]).error is None
    assert seen == [datetime.date(2024, 1, 2), Place("x"), Decimal("1.50"), {"a"}, b"\0\xff"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("add('x')", "HostArgumentsError: add: a: Input should be a valid integer"),
        ("add(None, [])", "HostArgumentsError: add: a: Input should be a valid integer; b: "),
        ("add()", "TypeError: add() missing 1 required positional argument: 'a'"),
        ("add(1, c=2)", "TypeError: add() got an unexpected keyword argument 'c'"),
        ("add(object())", "HostArgumentsError: an argument cannot be handed to the host"),
        ("x = []\nfor _ in range(900): x = [x]\nadd(x)", "HostArgumentsError: "),
    ],
)
def test_wrong_arguments_are_a_type_error_in_the_guest(call: str, words: str) -> None:
    result = run_code(call, functions=[add])
    assert said(result).startswith(words)
    caught = run_code(
        f"try:\n    {call.replace(chr(10), chr(10) + '    ')}\nexcept TypeError as error:\n    x = 1\nx",
        functions=[add],
    )
    assert caught.value == 1


# --- Errors ---------------------------------------------------------------------------------------------


class MyError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("no such city"), "ValueError: no such city"),
        (KeyError("k"), "KeyError: 'k'"),
        (PermissionError("not you"), "PermissionError: f: it failed"),
        (
            FileNotFoundError(2, "No such file or directory", "/home/me/secret.txt"),
            "FileNotFoundError: f: No such file",
        ),
        (ValueError(f"in {__file__}"), "ValueError: in "),
        (MyError("the password is hunter2"), "HostFunctionError: f failed"),
        (BaseException("b"), "HostFunctionError: f failed"),
        (SystemExit(3), "HostFunctionError: f failed"),
        (KeyboardInterrupt(), "HostFunctionError: f failed"),
        (StopIteration(5), "StopIteration: 5"),
        (MemoryError(), "HostFunctionError: f failed"),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "no"), "HostFunctionError: UnicodeDecodeError: 'utf-8' codec"),
    ],
    ids=lambda e: type(e).__name__ if isinstance(e, BaseException) else "",
)
@pytest.mark.parametrize("is_async", [False, True])
def test_an_exception_is_of_a_closed_list_and_the_host_keeps_its_cause(
    error: BaseException, words: str, is_async: bool
) -> None:
    def f() -> None:
        raise error

    async def awaited() -> None:
        raise error

    function = host_function(name="f")(awaited) if is_async else f
    if is_async and isinstance(error, StopIteration):
        pytest.skip("no coroutine raises it")
    result = run_code("await f()" if is_async else "f()", functions=[function])
    assert said(result).startswith(words)
    text = str(result.model_dump_json())
    assert "hunter2" not in text
    assert "secret.txt" not in text
    assert "test_calls.py" not in text
    assert [call.outcome for call in result.calls] == ["error"]
    assert result.calls[0].cause is error


def test_what_cannot_travel_is_said() -> None:
    def give() -> Any:
        return object()

    async def coroutine() -> Any:
        return asyncio.sleep(0)

    assert said(run_code("give()", functions=[give])) == (
        "HostFunctionError: give returned what cannot travel: a value of type object, which is no data"
    )
    assert "an awaitable" in said(run_code("await coroutine()", functions=[coroutine]))


# --- Waiting --------------------------------------------------------------------------------------------


def test_async_functions_run_at_the_same_time() -> None:
    began = time.monotonic()
    code = "import asyncio\nawait asyncio.gather(*(slow(n) for n in range(30)))"
    result = run_code(code, functions=[slow])
    assert result.value == list(range(30))
    assert time.monotonic() - began < 2.5  # one after the other: 3 s


@pytest.mark.parametrize("how", ["asyncio.to_thread(wait)", "asyncio.get_running_loop().run_in_executor(None, wait)"])
def test_plain_functions_run_on_threads_when_they_are_awaited(how: str) -> None:
    together = threading.Barrier(3, timeout=20)

    def wait() -> int:
        return together.wait() >= 0

    result = run_code(f"import asyncio\nawait asyncio.gather(*({how} for _ in range(3)))", functions=[wait])
    assert result.value == [1, 1, 1]


def test_other_tasks_go_on_meanwhile_and_timers_fire() -> None:
    code = """
import asyncio
ticks = 0
async def tick():
    global ticks
    while True:
        ticks += 1
        await asyncio.sleep(0.01)
task = None
async def main():
    task = asyncio.create_task(tick())
    return await slow(5)
(await main(), ticks > 2)
"""
    assert run_code(code, functions=[slow]).value == (5, True)


def test_wait_for_cancels_the_task_of_the_host() -> None:
    ended: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    result = run_code("import asyncio\nawait asyncio.wait_for(forever(), 0.05)", functions=[forever])
    assert said(result).startswith("TimeoutError")
    assert ended == ["cancelled"]
    assert [call.outcome for call in result.calls] == ["cancelled"]


@pytest.mark.parametrize(
    ("code", "limits"),
    [
        ("await forever()", {"timeout_seconds": 0.3}),
        ("import asyncio\nt = asyncio.ensure_future(forever())\nawait asyncio.sleep(0)\n1 / 0", {}),
        ("import asyncio\nt = asyncio.ensure_future(forever())\nawait asyncio.sleep(0)", {}),
        (
            "import asyncio\nt = asyncio.ensure_future(forever())\nawait asyncio.sleep(0)\nwhile True: pass",
            {"fuel": 10**7},
        ),
        ("import asyncio, os\nt = asyncio.ensure_future(forever())\nawait asyncio.sleep(0)\nos._exit(1)", {}),
    ],
)
def test_nothing_of_a_run_goes_on_after_its_end(code: str, limits: dict[str, Any]) -> None:
    events: list[str] = []

    async def forever() -> None:
        events.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            events.append("ended")

    run_code(code, functions=[forever], limits=limits)
    assert events in (["begun", "ended"], [])


def test_async_functions_run_on_the_loop_of_the_caller_and_in_its_context() -> None:
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who")

    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def here() -> bool:
            return asyncio.get_running_loop() is loop and who.get() == "me"

        def plain() -> bool:
            return who.get() == "me"

        who.set("me")
        result = await AsyncSandbox(functions=[here, plain]).run_code("(await here(), plain())")
        assert result.value == (True, True)
        forever = asyncio.Event()

        async def wait() -> None:
            await forever.wait()

        ran = asyncio.create_task(AsyncSandbox(functions=[wait]).run_code("await wait()"))
        await asyncio.sleep(0.1)
        before = len(asyncio.all_tasks())
        ran.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ran
        assert len(asyncio.all_tasks()) < before

    asyncio.run(main())


def test_a_function_may_run_code_itself() -> None:
    def inner(n: int) -> int:
        return int(run_code("n * 2", {"n": n}).value)

    assert run_code("inner(inner(3))", functions=[inner]).value == 12


# --- Gates and budgets ----------------------------------------------------------------------------------


def test_a_gate_is_asked_before_each_call_with_its_arguments() -> None:
    asked: list[Call] = []

    def gate(call: Call) -> Deny | None:
        asked.append(call.model_copy())
        return Deny("not more than five") if call.kwargs["a"] > 5 else None

    result = run_code(
        "add(1)\ntry:\n    add(6)\nexcept PermissionError as error:\n    x = str(error)\nx", functions=[add], gate=gate
    )
    assert result.value == "add: not more than five"
    assert [call.kwargs for call in asked] == [{"a": 1, "b": 2}, {"a": 6, "b": 2}]
    assert [call.outcome for call in result.calls] == ["ok", "refused"]


@pytest.mark.parametrize("answer", [Deny("no"), True, "yes", 0])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_gate_that_says_anything_else_denies(answer: Any, is_async: bool) -> None:
    async def awaited(_: Call) -> Any:
        return answer

    gate = awaited if is_async else (lambda _: answer)
    result = run_code("add(1)", functions=[add], gate=gate)
    assert said(result).startswith("HostRefusedError: add: ")


def test_a_gate_that_raises_denies_and_is_not_skipped() -> None:
    def gate(_: Call) -> None:
        raise MyError("the password is hunter2")

    called: list[int] = []
    result = run_code("f()", functions=[host_function(name="f")(lambda: called.append(1))], gate=gate)
    assert said(result) == "HostFunctionError: f failed"
    assert called == []


@pytest.mark.parametrize(
    ("limits", "code", "words", "calls"),
    [
        ({"host_calls": 3}, "for n in range(9): add(n)", "3 times (Limits.host_calls)", 3),
        ({"host_bytes": 200}, "for n in range(99): add(n)", "200 bytes to host functions (Limits.host_bytes)", None),
        ({"host_bytes": 500}, "text(900)", "bytes to this run (Limits.host_bytes)", 1),
        (
            {"host_pending": 2},
            "import asyncio\nawait asyncio.gather(*(slow(n) for n in range(3)))",
            "2 calls are",
            None,
        ),
        ({"host_seconds": 0.2}, "for n in range(9): await slow(n)", "(Limits.host_seconds)", 2),
        ({"host_seconds": 0.05}, "await slow(1)", "the time for host functions is used up", 1),
    ],
)
def test_budgets(limits: dict[str, Any], code: str, words: str, calls: int | None) -> None:
    def text(size: int) -> str:
        return "x" * size

    result = run_code(code, functions=[add, slow, text], limits=limits)
    assert said(result).startswith("HostBudgetError: ")
    assert words in said(result)
    if calls is not None:
        assert sum(call.outcome != "refused" for call in result.calls) == calls


def test_bounds_of_one_function() -> None:
    @host_function(max_calls=2, timeout=0.1)
    async def nap(seconds: float) -> None:
        await asyncio.sleep(seconds)

    assert "may be called 2 times" in said(run_code("for _ in range(3): await nap(0)", functions=[nap]))
    assert said(run_code("await nap(9)", functions=[nap])) == "TimeoutError: nap took longer than 0.1 seconds"

    most = now = 0

    @host_function(concurrency=2)
    async def counted() -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1

    assert (
        run_code("import asyncio\nawait asyncio.gather(*(counted() for _ in range(9)))", functions=[counted]).error
        is None
    )
    assert most == 2


@pytest.mark.parametrize("function", ["block", "wait"])
def test_the_deadline_counts_the_time_in_host_functions_unless_it_is_told_not_to(function: str) -> None:
    def block() -> None:
        time.sleep(0.5)

    async def wait() -> None:
        await asyncio.sleep(0.5)

    code = f"{'await ' if function == 'wait' else ''}{function}()\n5"
    result = run_code(code, functions=[block, wait], limits={"timeout_seconds": 0.25})
    assert result.error is not None
    assert result.error.kind is ErrorKind.TIMEOUT
    longer = {"timeout_seconds": 0.25, "host_time_counts": False}
    assert run_code(code, functions=[block, wait], limits=longer).value == 5
    spun = run_code(f"{code}\nwhile True: pass", functions=[block, wait], limits=longer)
    assert spun.error is not None
    assert spun.error.kind is ErrorKind.TIMEOUT


def test_calls_cost_fuel() -> None:
    result = run_code("while True: add(1)", functions=[add], limits={"fuel": 30_000_000, "host_calls": 10**6})
    assert result.error is not None
    assert result.error.kind is ErrorKind.OUT_OF_FUEL
    assert len(result.calls) < 1500


def test_usage_tells_of_calls() -> None:
    usage = run_code("add(1)\nadd(2)", functions=[add]).usage
    assert usage is not None
    assert (usage.host_calls, usage.host_bytes_in > 20, usage.host_bytes_out > 2) == (2, True, True)
    assert 0 < usage.host_seconds < 5


def test_deterministic_runs_get_answers_in_the_order_of_the_calls() -> None:
    async def late(n: int) -> int:
        await asyncio.sleep(1 if n == 0 else 0)
        return n

    code = """
import asyncio
order = []
async def one(n):
    order.append(await late(n))
async def main():
    await asyncio.gather(*(one(n) for n in range(4)))
await main()
order
"""
    assert run_code(code, functions=[late], limits={"deterministic": True}).value == [0, 1, 2, 3]
    assert run_code(code, functions=[late]).value == [1, 2, 3, 0]


# --- Declaring ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("functions", "error", "words"),
    [
        ([5], TypeError, "must be callable, and int is not"),
        (add, TypeError, "functions must be a list"),
        ("add", TypeError, "functions must be a list"),
        ({"tools": add}, TypeError, "functions must be a list"),
        ({"no module": [add]}, ValueError, "cannot be imported from 'no module'"),
        ([add, add], ValueError, "two host functions of module 'tools' are called 'add'"),
        ([lambda: 0], ValueError, "cannot be called '<lambda>'"),
    ],
)
def test_what_cannot_be_offered_is_refused_at_once(functions: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Sandbox(functions=functions)


def test_mistakes_in_a_declaration_are_found_where_it_is_made() -> None:
    with pytest.raises(ValueError, match="max_calls of host function 'f' must be a whole number from 1"):
        host_function(max_calls=0, name="f")(lambda: 0)
    with pytest.raises(ValueError, match="cannot be called 'display'"):
        host_function(name="display")(lambda: 0)
    with pytest.raises(ValueError, match="timeout of host function 'f'"):
        host_function(timeout=-1, name="f")(lambda: 0)

    def bad(x: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821, UP037

    with pytest.raises(ValueError, match="host function 'bad': a type in its signature is not found"):
        host_function(bad)

    def unknown(x: threading.Lock) -> None: ...

    with pytest.raises(ValueError, match="host function 'unknown': the types of its parameters"):
        host_function(unknown)


def test_limits_have_the_budgets() -> None:
    assert Limits().host_calls == 10_000
    with pytest.raises(ValueError, match="host_seconds"):
        Limits(host_seconds=0)
