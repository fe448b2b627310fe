"""Argument schemas and arguments that would cost the host much where the host checks them."""

from __future__ import annotations

import json
import time
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest

from wasm_sandbox import ErrorKind, Tool, ToolExecutionResult, run_tool
from wasm_sandbox.errors import BadArguments
from wasm_sandbox.script import schema_check
from wasm_sandbox.script.argument_models import canonical

NESTED: dict[str, Any] = {}
for _ in range(60):
    NESTED = {"x": NESTED}

TWICE = {"properties": {"x": {"$ref": "#/$defs/a"}}}
CHAIN = {f"a{n}": {"anyOf": [{"$ref": f"#/$defs/a{n + 1}"}, {"$ref": f"#/$defs/a{n + 1}"}]} for n in range(60)}
LONG_CHAIN = {f"a{n}": {"not": {"$ref": f"#/$defs/a{n + 1}"}} for n in range(1500)}

COSTLY: dict[str, tuple[dict[str, Any], Any]] = {
    "a pattern for which backtracking takes for ever": ({"not": {"pattern": "^(a+)+$"}}, "a" * 50_000 + "!"),
    "names for such a pattern": ({"patternProperties": {"^(a|a)*$": {"type": "null"}}}, {"a" * 5000 + "!": 1}),
    "a long text for a large pattern": ({"not": {"pattern": r"(\w{20}x?){10}"}}, "ab" * 1_000_000),
    "a large pattern": ({"not": {"pattern": "(((a{100}){100}){100}){100}"}}, "a"),
    "many patterns": ({"patternProperties": {f"[a-z]{{{n}}}$": {} for n in range(1, 200)}}, {"a": 1}),
    "schemas that double at each level": ({"allOf": [TWICE, TWICE]}, NESTED),
    "schemas that double in place": ({"$ref": "#/$defs/a0", "not": {"const": 1}}, 5),
    "a long chain of definitions": ({"$ref": "#/$defs/b0"}, 5),
    "definitions made of themselves": ({"$ref": "#/$defs/loop"}, 5),
    "one that is its own opposite": ({"$ref": "#/$defs/liar"}, 5),
    "values that are compared with each other": ({"uniqueItems": True}, [{"a": n, "b": [n]} for n in range(20_000)]),
    "many values": ({"items": {"not": {"type": "null"}}}, list(range(1_000_000))),
    "much text": ({"not": {"const": "a"}}, "x" * (8 << 20)),
    "many names for a pattern": ({"patternProperties": {"a": {}}}, {f"name {n:06}": n for n in range(90_000)}),
    "deep arguments": ({"not": {"const": 1}}, json.loads("[" * 150 + "]" * 150)),
    "numbers of many digits": ({"multipleOf": 7, "not": {"const": 1}}, 10**4000 + 1),
    "what is no number": ({"multipleOf": 0.1, "not": {"type": "null"}}, float("inf")),
    "a fraction of nothing": ({"multipleOf": 1e-300, "not": {"type": "null"}}, 1e300),
}


def tool(schema: dict[str, Any]) -> Tool:
    definitions = {
        "a": {"allOf": [TWICE, TWICE]}, **CHAIN, "a60": {"not": {}},
        **{name.replace("a", "b"): json.loads(json.dumps(one).replace("/a", "/b")) for name, one in LONG_CHAIN.items()},
        "b1500": {"not": {}}, "loop": {"allOf": [{"$ref": "#/$defs/loop"}]}, "liar": {"not": {"$ref": "#/$defs/liar"}},
    }  # fmt: skip
    used = {name: one for name, one in definitions.items() if name == "a" or f"/{name[0]}" in json.dumps(schema)}
    if "loop" in json.dumps(schema) or "liar" in json.dumps(schema):
        used = {name: definitions[name] for name in ("loop", "liar")}
    return Tool(
        name="f",
        source_code="def f(value):\n    return 1\n",
        json_schema={"name": "f", "parameters": {"type": "object", "properties": {"value": {}}}},
        args_json_schema={"type": "object", "properties": {"value": schema}, "$defs": used},
    )


def check(schema: dict[str, Any], value: Any) -> ToolExecutionResult:
    """A call, after which all that the schema led to is forgotten."""
    return run_tool(tool(schema), {"value": value})


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    check({"not": {"const": 1}}, 2)  # the libraries are imported once in a process


@pytest.mark.parametrize("name", COSTLY)
def test_checking_arguments_costs_little_and_says_what_is_too_much(name: str) -> None:
    schema, value = COSTLY[name]
    began = time.process_time()
    result = check(schema, value)
    spent = time.process_time() - began
    assert spent < 3 * (schema_check.MAX_SECONDS * 2 + 0.5), spent  # reading, checking, a run, on a loaded machine
    if result.error is not None:
        assert result.error.kind is ErrorKind.BAD_ARGUMENTS
        assert len(result.error.message) < 1000


WORDY: dict[str, tuple[dict[str, Any], Any]] = {
    "choices that double at each level": ({"not": {"$ref": "#/$defs/c0"}}, 1),
    "choices that each quote a long text": ({"not": {"const": 1}, "anyOf": [{"maxLength": 1}] * 100}, "x" * 200_000),
}


@pytest.mark.parametrize("name", WORDY)
def test_errors_that_nobody_is_told_take_no_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor time of others: the collector of garbage would look at all of them with the interpreter lock."""
    monkeypatch.setattr(schema_check, "MAX_SECONDS", 1.0)  # a busy machine makes few of them in a quarter
    schema, value = WORDY[name]
    choices = {f"c{n}": {"anyOf": [{"$ref": f"#/$defs/c{n + 1}"}] * 2} for n in range(20)}
    whole = {"type": "object", "properties": {"value": schema}, "$defs": {**choices, "c20": {"type": "string"}}}
    found = schema_check.argument_check(canonical(whole))
    tracemalloc.start()
    try:
        with suppress(BadArguments):
            found.check({"value": value}, frozenset())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 << 18


REFUSED = {
    "a long text for a large pattern": "too long for the pattern",
    "a large pattern": "too large",
    "schemas that double at each level": "seconds",
    "definitions made of themselves": "made of itself",
    "one that is its own opposite": "made of itself",
    "many values": "too much to be checked",
    "much text": "too much to be checked",
    "many names for a pattern": "names of their properties",
    "deep arguments": "too much to be checked",
}


@pytest.mark.parametrize(("name", "words"), REFUSED.items())
def test_what_is_too_much_is_refused_in_words(name: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if words != "seconds":  # which a busy machine has used up before the count is reached
        monkeypatch.setattr(schema_check, "MAX_SECONDS", 5.0)
    result = check(*COSTLY[name])
    assert result.error is not None
    assert words in result.error.message


@pytest.mark.parametrize(
    "address",
    ["https://example.com/a.json", "file:///etc/passwd", "https://json-schema.org/draft/2020-12/schema", "other", "#x"],
)
def test_nothing_is_fetched(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: Any, **__: Any) -> None:
        raise AssertionError("something is fetched")

    monkeypatch.setattr("urllib.request.urlopen", fetch)
    result = check({"not": {"$ref": address}}, 1)
    assert result.error is not None
    assert "nothing is fetched" in result.error.message


def test_long_lists_of_names_are_not_kept_by_re(monkeypatch: pytest.MonkeyPatch) -> None:
    purged = list[bool]()
    monkeypatch.setattr("re.purge", lambda: purged.append(True))
    check({"patternProperties": {"a": {}}}, {f"a name {n:06}": n for n in range(1000)})
    assert purged
