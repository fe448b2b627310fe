"""The guest's environment: precedence, what is refused, and that nothing of the host is in it (section 9)."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from tests.support.actors import Actor
from tests.support.backends import IdleSandbox
from wasm_sandbox import SandboxConfig, Tool, WasmToolSandbox
from wasm_sandbox.environment import agent_variables
from wasm_sandbox.errors import InvalidEnvironment
from wasm_sandbox.stores import SandboxConfigManager

TOOL = Tool(name="f", source_code="def f():\n    return 1\n", json_schema=None)

# Few names, so that layers meet; those of the ids are among them.
NAMES = st.sampled_from(["A", "B", "C", "LETTA_AGENT_ID", "LETTA_PROJECT_ID", "LETTA_TOOL_ID"])
VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
LAYERS = st.dictionaries(NAMES, VALUES | st.none())
STORED = st.dictionaries(NAMES, VALUES, max_size=3)


@pytest.fixture(scope="module")
def data_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@given(
    is_local=st.booleans(),
    given_variables=st.none() | LAYERS,
    stored=STORED,
    secrets=st.none() | LAYERS,
    additional=st.none() | LAYERS,
    ids=st.tuples(*[st.none() | st.just("") | VALUES] * 3),
)
@settings(max_examples=150)
def test_the_merged_variables_are_the_rule_for_any_layers(
    data_directory: Path,
    is_local: bool,
    given_variables: dict[str, Any] | None,
    stored: dict[str, str],
    secrets: dict[str, Any] | None,
    additional: dict[str, Any] | None,
    ids: tuple[str | None, str | None, str | None],
) -> None:
    """Section 9, layers 1 to 6, with W34: for every name the last layer that has it decides, and None drops it."""
    tool_id, agent_id, project_id = ids
    host = {"A": "host", "B": "host", "LETTA_TOOL_ID": "host"}
    ann = Actor("org-a")
    with mock.patch.dict(os.environ, {**host, "WASM_SANDBOX_DATA_DIR": str(data_directory)}, clear=True):
        configs = SandboxConfigManager()
        configs.delete_sandbox_config(configs.get_or_create_default_sandbox_config("local", ann).id, ann)
        config = configs.get_or_create_default_sandbox_config("local", ann)
        for name, value in stored.items():
            configs.create_or_update_sandbox_env_var(name, value, config.id, ann)
        sandbox = IdleSandbox("f", {}, ann, tool_id, agent_id, project_id, TOOL, sandbox_env_vars=given_variables)
        # The specification's name for this hook of a back-end, and its twin.
        merged = asyncio.run(sandbox._gather_env_vars({"secrets": secrets}, additional, config.id, is_local))
        assert merged == sandbox._gather_env_vars_sync({"secrets": secrets}, additional, config.id, is_local)

    own = {"LETTA_TOOL_ID": tool_id}
    own |= {"LETTA_AGENT_ID": agent_id} if agent_id else {}
    own |= {"LETTA_PROJECT_ID": project_id} if project_id else {}
    layers = [
        {**host, "WASM_SANDBOX_DATA_DIR": str(data_directory)} if is_local else {},
        stored if given_variables is None else given_variables,
        secrets or {},
        additional or {},
        own,
    ]
    for name in {name for layer in layers for name in layer}:
        (*_, last) = (layer[name] for layer in layers if name in layer)
        assert merged.get(name) == last
        assert (name in merged) == (last is not None)
    assert merged.keys() <= {name for layer in layers for name in layer}


ANY_NAMES = st.text(st.characters(exclude_characters="\0=", exclude_categories=["Cs"]), min_size=1, max_size=8)
SHOW = Tool(name="f", source_code="import os\ndef f():\n    return dict(os.environ)\n", json_schema=None)


@given(constructor=st.dictionaries(ANY_NAMES, VALUES | st.none()), additional=st.dictionaries(ANY_NAMES, VALUES))
@settings(max_examples=60)
def test_a_tool_sees_exactly_the_merged_variables(constructor: dict[str, Any], additional: dict[str, str]) -> None:
    """Section 9, in the guest: any names and values, and nothing of the host's environment (W3)."""
    made = WasmToolSandbox("f", {}, None, None, tool_object=SHOW, sandbox_env_vars=constructor)
    merged = {**constructor, **additional}
    seen = made.run_sync(additional_env_vars=additional).func_return
    assert seen == {name: value for name, value in merged.items() if value is not None}


# -- the agent's variables -------------------------------------------------------------------------------------


class Secret(BaseModel):
    key: str
    value: str | None = None


class ModelState(BaseModel):
    id: str = "agent-1"
    secrets: list[Secret] = []


@dataclasses.dataclass
class PlainState:
    secrets: Any = None


class LegacyState(ModelState):
    def get_agent_env_vars_as_dict(self) -> dict[str, str]:
        return {"A": "from the method"}


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (None, {}),
        ({}, {}),
        (object(), {}),
        ({"secrets": None}, {}),
        ({"secrets": {"A": "1"}}, {"A": "1"}),
        ({"secrets": [{"key": "A", "value": "1"}, {"key": "B", "value": "2"}]}, {"A": "1", "B": "2"}),
        ({"secrets": [Secret(key="A", value="1"), Secret(key="A", value="2")]}, {"A": "2"}),
        (ModelState(secrets=[Secret(key="A", value="1")]), {"A": "1"}),
        (PlainState({"A": "1"}), {"A": "1"}),
        (LegacyState(secrets=[Secret(key="A", value="1")]), {"A": "from the method"}),
        ({"secrets": [{"key": "A"}]}, {"A": None}),
    ],
)
def test_the_agents_variables_come_from_its_method_or_its_secrets(state: Any, expected: dict[str, Any]) -> None:
    """Section 9, layer 3."""
    assert agent_variables(state) == expected


@pytest.mark.parametrize("secrets", ["s3cret", 7, [("A", "s3cret")], ["s3cret"], [{"value": "s3cret"}], [{"key": 1}]])
async def test_secrets_of_another_shape_are_refused_without_quoting_them(secrets: Any) -> None:
    """Section 9 and W34."""
    with pytest.raises(InvalidEnvironment, match="secrets") as caught:
        await IdleSandbox("f", {}, None, None, tool_object=TOOL).run(agent_state={"secrets": secrets})
    assert "s3cret" not in str(caught.value)


# -- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1337, 13.37, True, b"1337", ["1337"], "1337\0", "1337\ud800"])
@pytest.mark.parametrize("layer", ["constructor", "agent", "additional"])
async def test_a_value_that_is_no_string_is_refused_by_its_key_in_any_layer(layer: str, value: Any) -> None:
    """W34."""
    variables: Any = {"TOKEN": value}
    made = IdleSandbox(
        "f", {}, None, None, tool_object=TOOL, sandbox_env_vars=variables if layer == "constructor" else None
    )
    state = {"secrets": variables} if layer == "agent" else None
    with pytest.raises(InvalidEnvironment, match="TOKEN") as caught:
        await made.run(state, variables if layer == "additional" else None)
    assert "1337" not in str(caught.value)
    assert "13.37" not in str(caught.value)


async def test_a_layer_that_is_no_mapping_is_refused_without_quoting_it() -> None:
    wrong: Any = ["TOKEN=s3cret"]
    with pytest.raises(InvalidEnvironment, match="must be a mapping, not list"):
        await IdleSandbox("f", {}, None, None, tool_object=TOOL).run(additional_env_vars=wrong)


# -- secrets ---------------------------------------------------------------------------------------------------

LOOK_EVERYWHERE = """
def f(agent_state=None):
    import os, sys
    print(dict(os.environ), sys.argv, sys.path, sys.flags)
    print(vars(sys), file=sys.stderr)
    return {"environ": dict(os.environ), "getenv": os.getenv("HOST_SECRET"), "globals": str(globals())}
"""


@pytest.mark.parametrize("ending", ["", "    raise ValueError(dict(os.environ))", "    os._exit(3)"])
async def test_a_secret_of_the_host_is_in_nothing_that_comes_back(
    ending: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """W3 and W32: results, their texts, what was printed, logs."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HOST_SECRET", "s3cret-of-the-host")
    source = LOOK_EVERYWHERE.replace("    return", f"{ending}\n    return")
    tool = Tool(name="f", source_code=source, json_schema=None)
    made = WasmToolSandbox("f", {}, None, "tool-1", tool_object=tool, sandbox_config=SandboxConfig())
    results = [await made.run(agent_state={"id": "a"}), made.run_sync(agent_state={"id": "a"})]
    printed = capfd.readouterr()
    texts = [repr(made), caplog.text, printed.out, printed.err]
    for result in results:
        texts += [repr(result), str(result), result.model_dump_json(), "".join(result.stdout or [])]
        texts += ["".join(result.stderr or [])]
    assert all("s3cret-of-the-host" not in text and "HOST_SECRET'" not in text for text in texts)


async def test_a_value_for_the_guest_is_in_no_text_of_ours(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """W32: what was handed to the guest is shown by the guest alone."""
    caplog.set_level(logging.DEBUG)
    made = WasmToolSandbox("f", {}, None, None, tool_object=TOOL, sandbox_env_vars={"TOKEN": "s3cret"})
    result = await made.run({"secrets": {"B": "s3cret"}}, {"C": "s3cret"})
    printed = capfd.readouterr()
    for text in (repr(made), repr(result), caplog.text, printed.out, printed.err):
        assert "s3cret" not in text
