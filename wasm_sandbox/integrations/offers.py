"""Tools of a framework as host functions, and results of code as text: what all adapters need."""

from __future__ import annotations

import asyncio
import functools
import inspect
import keyword
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Optional

from wasm_sandbox import AsyncSandbox, AsyncSession, CodeResult, HostFunction, Sandbox, Session
from wasm_sandbox.options import RunOptions

MAX_CHARACTERS = 20_000

RUN_PYTHON = "run_python"

CODE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"code": {"type": "string", "description": "Python source."}},
    "required": ["code"],
    "additionalProperties": False,
}

_TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "array": list,
    "object": dict,
}
_RESERVED = frozenset({"display", "progress"})


def described(functions: str, *, keeps_state: bool) -> str:
    """Description of a tool that runs code, for a model.

    Args:
        functions: stubs of the functions that the code may call.
        keeps_state: whether variables are kept from call to call.
    """
    parts = [
        "Run a Python 3.13 program in a sandbox. The value of its last expression comes back, and what it printed. "
        "`await` works at the top level.",
        "Variables are kept from call to call." if keeps_state else "Every call begins from nothing.",
    ]
    if functions:
        parts.append(f"These functions are there, without an import:\n\n{functions}")
    return "\n\n".join(parts)


def offered(name: str, call: Callable[..., Any], description: str | None, schema: Mapping[str, Any]) -> HostFunction:
    """Make a host function of a framework's tool.

    Args:
        name: name of the tool; what no Python name has becomes an underscore.
        call: function, plain or async, that is called with the arguments by name.
        description: description of the tool.
        schema: JSON schema of its arguments; plain types are checked here, and everything by the framework.
    """
    properties = schema.get("properties") or {}
    needed = schema.get("required") or ()
    required = {name for name in needed if "default" not in properties.get(name, ())}  # strict schemas require all
    if all(_is_name(parameter) for parameter in properties):
        ordered = sorted(properties, key=lambda parameter: parameter not in required)
        parameters = [_parameter(found, properties[found], is_required=found in required) for found in ordered]
    else:  # what no signature can have, a call may still
        parameters = [inspect.Parameter("arguments", inspect.Parameter.VAR_KEYWORD)]
    left_out = {found.name for found in parameters if found.default is None}

    async def call_later(**arguments: Any) -> Any:
        return await call(**_given(arguments, left_out))

    def call_now(**arguments: Any) -> Any:
        return call(**_given(arguments, left_out))

    function: Any = call_later if inspect.iscoroutinefunction(call) else call_now
    function.__name__, function.__doc__ = python_name(name), description or ""
    function.__signature__ = inspect.Signature(parameters)
    return HostFunction.of(function)


def _given(arguments: Mapping[str, Any], left_out: Collection[str]) -> dict[str, Any]:
    """Arguments of a call, without those that stand for none."""
    return {name: value for name, value in arguments.items() if value is not None or name not in left_out}


def _parameter(name: str, spec: Any, *, is_required: bool) -> inspect.Parameter:
    kind, annotation = inspect.Parameter.POSITIONAL_OR_KEYWORD, _type(spec)
    if is_required:
        return inspect.Parameter(name, kind, annotation=annotation)
    default = spec.get("default") if isinstance(spec, Mapping) else None
    if not isinstance(default, str | int | float | bool):
        default = None
    return inspect.Parameter(name, kind, annotation=Optional[annotation], default=default)  # noqa: UP045 - of a value


def renamed(name: str, function: Callable[..., Any]) -> HostFunction:
    """Host function of another name than its own."""
    return replace(HostFunction.of(function), name=python_name(name))


def python_name(name: str) -> str:
    """Name for Python that is like the given one."""
    made = re.sub(r"\W", "_", name)
    return made if _is_name(made) and made not in _RESERVED else f"{made}_" if _is_name(f"{made}_") else f"tool_{made}"


def telling(call: Callable[..., Any], *classes: type[BaseException]) -> Callable[..., Any]:
    """Function whose exceptions of some classes reach the guest with their text: those that are meant for a model."""
    if inspect.iscoroutinefunction(call):

        @functools.wraps(call)
        async def told_later(*args: Any, **kwargs: Any) -> Any:
            try:
                return await call(*args, **kwargs)
            except classes as error:
                raise RuntimeError(str(error)) from error

        return told_later

    @functools.wraps(call)
    def told(*args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except classes as error:
            raise RuntimeError(str(error)) from error

    return told


def text_of(result: CodeResult, most: int = MAX_CHARACTERS) -> str:
    """Result as a model reads it: what was printed and shown, then the error or the value; cut in the middle.

    Args:
        result: the result.
        most: most characters.
    """
    parts = [*(result.stdout or ()), *(str(bundle.get("text/plain", "")) for bundle in result.displays)]
    if result.error is not None:
        parts.append(error_text(result))
    else:
        parts += result.stderr or ()
        if result.text not in (None, "None"):
            parts.append(str(result.text))
    text = "\n".join(part.rstrip("\n") for part in parts if part) or "(no output)"
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}\n... ({len(text) - most:,} characters left out) ...\n{text[-(most // 2) :]}"


def error_text(result: CodeResult) -> str:
    """Error of a result as a model reads it."""
    if result.error is None:
        return ""
    text = result.error.traceback or f"{result.error.kind}: {result.error.message}"
    return f"{text}\nThe variables are what they were before this code." if result.rolled_back else text


def plain(value: Any) -> Any:
    """Value as what travels into a guest: its text, if it is of a class of the framework's that does not."""
    if value is None or isinstance(value, str | int | float | bool | bytes | list | tuple | set | dict):
        return value
    if hasattr(value, "model_dump") or hasattr(value, "__dataclass_fields__"):
        return value
    return str(value)


# Guarantees: a key has one session; past the most the one that was not used for the longest is closed, once its call
# has ended. May be used by several threads. Locks: `_lock`, held for look-ups, and while a session is made.
class KeptSessions:
    """Sessions by key.

    Args:
        box: sandbox of all sessions.
        most: most sessions at the same time.
        idle_seconds: seconds after its last call at which a session is closed.
    """

    def __init__(self, box: Sandbox, most: int, idle_seconds: float) -> None:
        self._box, self._most, self._idle_seconds = box, most, idle_seconds
        self._lock = threading.Lock()
        self._sessions: OrderedDict[Hashable, Session] = OrderedDict()

    def get(self, key: Hashable) -> Session:
        """Session of a key, which is made if there is none."""
        over = []
        with self._lock:
            session = self._sessions.get(key)
            if session is None or session.is_closed:
                session = self._box.session(idle_seconds=self._idle_seconds, lifetime_seconds=86_400.0)
                self._sessions[key] = session
            self._sessions.move_to_end(key)
            while len(self._sessions) > self._most:
                over.append(self._sessions.popitem(last=False)[1])
        for session_ in over:
            threading.Thread(target=session_.close, daemon=True).start()  # its call may go on for long
        return session

    def close(self) -> None:
        """Close all sessions."""
        with self._lock:
            over, self._sessions = list(self._sessions.values()), OrderedDict()
        for session in over:
            session.close()


class Runners:
    """What runs a tool's code: a guest of its own for each call, or the session of a key.

    Args:
        options: options of the sandbox; host functions among them are there beside the framework's tools.
        max_sessions: most sessions at the same time.
        idle_seconds: seconds after its last call at which a session is closed.
    """

    def __init__(self, options: RunOptions, max_sessions: int, idle_seconds: float) -> None:
        given: RunOptions = {**options}
        self._own: list[Any] = [*(given.pop("functions", None) or [])]
        self._box, self._awaited = Sandbox(**given), AsyncSandbox(**given)
        self._sessions = KeptSessions(self._box, max_sessions, idle_seconds)

    def functions(self, tools: Iterable[HostFunction]) -> list[Any]:
        """Host functions of a call."""
        return [*self._own, *tools]

    def stubs(self, tools: Iterable[HostFunction]) -> str:
        """What a model is told of them."""
        return Sandbox(functions=self.functions(tools)).functions.stubs()

    def get(self, key: Hashable | None) -> Sandbox | Session:
        """What runs a call: the session of a key, or a guest of its own where there is none."""
        return self._box if key is None else self._sessions.get(key)

    async def get_async(self, key: Hashable | None) -> AsyncSandbox | AsyncSession:
        """The same, awaited."""
        return self._awaited if key is None else AsyncSession(await asyncio.to_thread(self._sessions.get, key))


def _is_name(text: str) -> bool:
    return text.isidentifier() and not keyword.iskeyword(text)


def _type(spec: Any) -> Any:
    """Plain type of a parameter, as far as its schema says one; lists and objects may hold anything."""
    kind = spec.get("type") if isinstance(spec, Mapping) else None
    return _TYPES.get(kind, Any) if isinstance(kind, str) else Any
