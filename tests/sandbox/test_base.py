"""What every back-end shares: construction, look-up, script variants (sections 1, 3, 11, 12)."""

from __future__ import annotations

import asyncio
import inspect
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.support.actors import Actor
from tests.support.backends import IdleSandbox, NotebookSandbox
from wasm_sandbox import AsyncToolSandboxBase, SandboxConfig, Tool, ToolExecutionResult, WasmToolSandbox
from wasm_sandbox.errors import StoreError
from wasm_sandbox.script.generate import parse_function_arguments
from wasm_sandbox.stores import SandboxConfigManager, ToolManager, database

ANN = Actor("org-a")


@pytest.fixture(autouse=True)
def data_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store of the test's own."""
    directory = tmp_path / "data"
    monkeypatch.setenv("WASM_SANDBOX_DATA_DIR", str(directory))
    monkeypatch.delenv("WASM_SANDBOX_ENCRYPTION_KEY", raising=False)
    return directory


def tool(source: str, name: str = "f", **fields: Any) -> Tool:
    return Tool(name=name, source_code=source, json_schema=None, **fields)


ONE = "def f():\n    return 1\n"

# -- constants and construction ----------------------------------------------------------------------------


def test_the_constants_are_class_attributes() -> None:
    """Section 1."""
    for kind in (AsyncToolSandboxBase, WasmToolSandbox):
        assert uuid.NAMESPACE_DNS == kind.NAMESPACE
        marker = uuid.uuid5(kind.NAMESPACE, "local-sandbox-result-start-marker").bytes
        assert marker == kind.LOCAL_SANDBOX_RESULT_START_MARKER
        assert marker.hex() == "92c8e49843d35fb3919da69eb3e5c5c6"
        assert kind.LOCAL_SANDBOX_RESULT_VAR_NAME == "result_ZQqiequkcFwRwwGQMqkt"


@pytest.mark.parametrize("kind", [IdleSandbox, WasmToolSandbox])
def test_the_constructors_positional_order_is_the_known_one(kind: type[AsyncToolSandboxBase]) -> None:
    """Section 1."""
    names = ["tool_name", "args", "user", "tool_id", "agent_id", "project_id", "tool_object"]
    names += ["sandbox_config", "sandbox_env_vars"]
    parameters = [*inspect.signature(kind).parameters.values()]
    assert [p.name for p in parameters[:9]] == names
    assert [p.default for p in parameters[:4]] == [inspect.Parameter.empty] * 4
    assert [p.default for p in parameters[4:9]] == [None] * 5
    values: list[Any] = ["f", {"x": 1}, ANN, "tool-1", "agent-1", "project-1", tool(ONE), SandboxConfig(), {"A": "1"}]
    positional, by_name = kind(*values), kind(**dict(zip(names, values, strict=True)))
    for made in (positional, by_name):
        stored = [made.tool_name, made.args, made.user, made.tool_id, made.agent_id, made.project_id, made.tool]
        stored += [made.provided_sandbox_config, made.provided_sandbox_env_vars]
        assert all(a is b for a, b in zip(stored, values, strict=True))  # by reference, nothing is copied


def test_the_constructor_checks_nothing_and_touches_no_file(data_directory: Path) -> None:
    """Section 1: no I/O, no validation."""
    odd: Any = object()
    made = IdleSandbox(odd, odd, odd, odd, odd, odd, odd, odd, odd)
    assert made.args is odd
    assert not data_directory.exists()


def test_the_abstract_method_is_run_and_the_base_does_not_await_at_top_level() -> None:
    """Section 1."""
    assert AsyncToolSandboxBase.__abstractmethods__ == {"run"}
    assert inspect.iscoroutinefunction(AsyncToolSandboxBase.run)
    assert inspect.iscoroutinefunction(WasmToolSandbox.run)
    parameters = inspect.signature(WasmToolSandbox.run).parameters
    assert [*parameters] == ["self", "agent_state", "additional_env_vars"]
    assert IdleSandbox("f", {}, ANN, None).use_top_level_await() is False


def test_the_manager_of_configurations_is_built_on_first_access_and_kept(data_directory: Path) -> None:
    """Section 1."""
    made = IdleSandbox("f", {}, ANN, None)
    manager = made.sandbox_config_manager
    assert isinstance(manager, SandboxConfigManager)
    assert made.sandbox_config_manager is manager
    assert not data_directory.exists()


def test_results_have_the_known_fields_and_the_success_flag() -> None:
    """Section 10."""
    fields = ToolExecutionResult.model_fields
    known = ["status", "func_return", "agent_state", "stdout", "stderr", "sandbox_config_fingerprint"]
    assert [*fields][:6] == known
    assert [name for name, field in fields.items() if field.is_required()] == ["status"]
    result = ToolExecutionResult(status="success")
    assert all(getattr(result, name) is None for name in fields if name not in ("status", "rolled_back"))
    assert result.success_flag
    assert not ToolExecutionResult(status="error").success_flag


def test_fingerprints_are_those_of_the_specification() -> None:
    """Section 10: of type, organisation and settings; neither the id nor the order of the settings counts."""
    known = "4107239616699999710473264759994939025478652063875636596067533722345781846803"
    settings = {"sandbox_dir": "/tmp/x", "use_venv": False}
    for config in (settings, dict(reversed(settings.items()))):
        assert SandboxConfig(type="local", organization_id="org-1", config=config).fingerprint() == known
    empty = SandboxConfig(type="local")
    assert empty.fingerprint() == "11403083950895354317070820923878838882797105976728846822781557542536844594314"
    others = [SandboxConfig(type="local", config={"use_venv": False}), SandboxConfig(type="wasm")]
    others += [SandboxConfig(type="local", organization_id="org-1"), SandboxConfig(type="local", config={"é": None})]
    assert len({config.fingerprint() for config in (empty, *others)}) == 5


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (WasmToolSandbox.run, ["agent_state", "additional_env_vars"]),
        (AsyncToolSandboxBase.run, ["agent_state", "additional_env_vars"]),
        (AsyncToolSandboxBase.generate_execution_script, ["agent_state", "wrap_print_with_markers"]),
        (
            AsyncToolSandboxBase._gather_env_vars,  # the specification's name for a back-end's hook
            ["agent_state", "additional_env_vars", "sbx_id", "is_local"],
        ),
        (parse_function_arguments, ["source_code", "tool_name"]),
        (ToolManager.get_tool_by_name_async, ["tool_name", "actor"]),
        (SandboxConfigManager.get_or_create_default_sandbox_config_async, ["sandbox_type", "actor"]),
        (
            SandboxConfigManager.get_sandbox_env_vars_as_dict_async,
            ["sandbox_config_id", "actor", "after", "limit"],
        ),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_known_calls_have_their_names_in_their_positions(call: Any, names: list[str]) -> None:
    """Sections 1 to 3, 9 and 11: every one may be given by position or by keyword."""
    parameters = [p for p in inspect.signature(call).parameters.values() if p.name != "self"]
    assert [p.name for p in parameters][: len(names)] == names
    assert {p.kind for p in parameters[: len(names)]} == {inspect.Parameter.POSITIONAL_OR_KEYWORD}


async def test_a_run_takes_its_arguments_by_position_and_by_keyword() -> None:
    """Section 1."""
    source = "def f(agent_state):\n    import os\n    return agent_state.n, os.environ['A']\n"
    made = WasmToolSandbox("f", {}, None, None, tool_object=tool(source))
    for result in (
        await made.run({"n": 1}, {"A": "1"}),
        await made.run(agent_state={"n": 1}, additional_env_vars={"A": "1"}),
    ):
        assert (result.func_return, result.success_flag) == ((1, "1"), True)
    script = await made.generate_execution_script({"n": 1}, True)
    assert script == await made.generate_execution_script(agent_state={"n": 1}, wrap_print_with_markers=True)


# -- look-up -----------------------------------------------------------------------------------------------


async def test_a_tool_is_looked_up_by_tool_name_for_the_users_organisation() -> None:
    """Section 1, steps 1 and 2; section 11: another organisation does not see it."""
    ToolManager().create_or_update_tool(tool("def f():\n    return 'stored'\n"), ANN)
    assert (await WasmToolSandbox("f", {}, ANN, None).run()).func_return == "stored"
    assert WasmToolSandbox("f", {}, ANN, None).run_sync().func_return == "stored"
    with pytest.raises(ValueError, match=r"for organization org-b$"):
        await WasmToolSandbox("f", {}, Actor("org-b"), None).run()


@pytest.mark.parametrize("has_store", [True, False])
async def test_a_tool_that_is_not_there_has_the_exact_text(has_store: bool) -> None:
    """Section 1, step 2."""
    if has_store:
        ToolManager().create_or_update_tool(tool(ONE), ANN)
    text = "Agent attempted to invoke tool nope that does not exist for organization org-a"
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - its whole text is compared
        await IdleSandbox("nope", {}, ANN, None)._init_async()  # the specification's name for a back-end's hook
    assert str(caught.value) == text
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - its whole text is compared
        WasmToolSandbox("nope", {}, ANN, None).run_sync()
    assert str(caught.value) == text


async def test_a_user_without_organisation_has_no_tools_to_look_up() -> None:
    """Section 11."""
    for user in (None, Actor()):
        with pytest.raises(ValueError, match="no organisation"):
            await IdleSandbox("f", {}, user, None).run()


async def test_initialising_happens_once_and_a_failed_attempt_is_repeated() -> None:
    """Section 1."""
    made = IdleSandbox("f", {}, ANN, None)
    with pytest.raises(ValueError, match="does not exist"):
        await made._init_async()  # the specification's name for a back-end's hook
    ToolManager().create_or_update_tool(tool("async def f(agent_state, agent_id): pass"), ANN)
    await made._init_async()  # the specification's name for a back-end's hook
    found = made.tool
    assert found is not None
    assert (made.inject_agent_state, made.inject_agent_id, made.is_async_function) == (True, True, True)
    assert made.inject_letta_client is True
    ToolManager().create_or_update_tool(tool(ONE), ANN)
    await made._init_async()  # the specification's name for a back-end's hook
    assert made.tool is found
    assert made.is_async_function is True


async def test_a_store_that_cannot_be_used_is_an_error_of_the_call_and_repeatable(data_directory: Path) -> None:
    """Section 1: a failed attempt stays un-initialised."""
    ToolManager().create_or_update_tool(tool(ONE), ANN)
    path = data_directory / "store.sqlite3"
    good = path.read_bytes()
    made = WasmToolSandbox("f", {}, ANN, None)
    path.write_bytes(b"x" * 5000)
    with pytest.raises(StoreError, match="damaged"):
        await made.run()
    path.write_bytes(good)
    assert (await made.run()).func_return == 1


@pytest.mark.parametrize(
    ("source", "state", "identity", "is_async"),
    [
        ("def f(x): pass", False, False, False),
        ("def f(agent_state, x): pass", True, False, False),
        ("def f(agent_id=None): pass", False, True, False),
        ("async def f(): pass", False, False, True),
        ("def g():\n    async def f(agent_id): pass\ndef f(): pass", False, True, True),
        ("class C:\n    def f(self, agent_state): pass\nf = C().f", True, False, False),
    ],
)
async def test_what_the_source_says_is_on_the_object(source: str, state: bool, identity: bool, is_async: bool) -> None:
    """Section 1, steps 3 to 5; section 2."""
    made = IdleSandbox("f", {}, ANN, None, tool_object=tool(source))
    await made._init_async()  # the specification's name for a back-end's hook
    assert (made.inject_agent_state, made.inject_agent_id, made.is_async_function) == (state, identity, is_async)


async def test_the_tools_own_name_is_called_whatever_it_was_looked_up_by() -> None:
    """Section 1: look-up and error text use tool_name; parsing, the call and async detection use tool.name."""
    made = WasmToolSandbox("alias", {}, ANN, None, tool_object=tool("def g():\n    return 5", name="g"))
    assert (await made.run()).func_return == 5


# -- script variants ---------------------------------------------------------------------------------------

ASYNC = "async def f():\n    return 1\n"


@pytest.mark.parametrize(("source", "markers"), [(ONE, False), (ONE, True), (ASYNC, False), (ASYNC, True)])
async def test_a_back_end_chooses_markers_and_top_level_await(source: str, markers: bool) -> None:
    """Sections 3 and 12."""
    plain = IdleSandbox("f", {}, None, None, tool_object=tool(source))
    notebook = NotebookSandbox("f", {}, None, None, tool_object=tool(source))
    one = await plain.generate_execution_script(None, wrap_print_with_markers=markers)
    other = await notebook.generate_execution_script(None, wrap_print_with_markers=markers)
    last = one.splitlines()[-1]
    expression = "base64.b64encode(result_ZQqiequkcFwRwwGQMqkt_pkl).decode('utf-8')"
    assert last == ("sys.stdout.buffer.flush()" if markers else expression)
    run = "result_ZQqiequkcFwRwwGQMqkt = {}"
    ours, theirs = run.format("asyncio.run(_async_wrapper())"), run.format("await _async_wrapper()")
    assert other == one.replace(ours, theirs)
    assert (ours in one) == (source == ASYNC)


async def test_markers_are_off_unless_asked_for() -> None:
    """Section 3."""
    made = IdleSandbox("f", {}, None, None, tool_object=tool(ONE))
    script = await made.generate_execution_script(None)
    assert script == await made.generate_execution_script(agent_state=None, wrap_print_with_markers=False)


# -- stored configuration and variables ---------------------------------------------------------------------

ENVIRON = "def f():\n    import os\n    return dict(os.environ)\n"


async def test_stored_variables_of_the_default_configuration_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sections 9 and 11; the same by either way to run."""
    configs = SandboxConfigManager()
    config = configs.get_or_create_default_sandbox_config("wasm", ANN)
    for number in range(130):  # W34: no page limit
        configs.create_or_update_sandbox_env_var(f"V{number}", "stored", config.id, ANN)
    made = WasmToolSandbox("f", {}, ANN, None, tool_object=tool(ENVIRON))
    result = await made.run(additional_env_vars={"V1": "given"})
    assert result.func_return == {**{f"V{n}": "stored" for n in range(130)}, "V1": "given"}
    assert result.sandbox_config_fingerprint == config.fingerprint()
    assert made.run_sync(additional_env_vars={"V1": "given"}).func_return == result.func_return


async def test_the_configuration_that_is_given_counts_and_not_the_default() -> None:
    """Section 9."""
    configs = SandboxConfigManager()
    default = configs.get_or_create_default_sandbox_config("wasm", ANN)
    other = configs.get_or_create_default_sandbox_config("modal", ANN)
    configs.create_or_update_sandbox_env_var("WHERE", "default", default.id, ANN)
    configs.create_or_update_sandbox_env_var("WHERE", "given", other.id, ANN)
    result = await WasmToolSandbox("f", {}, ANN, None, tool_object=tool(ENVIRON), sandbox_config=other).run()
    assert result.func_return == {"WHERE": "given"}
    assert result.sandbox_config_fingerprint == other.fingerprint()


@pytest.mark.parametrize("given", [{}, {"B": "2"}])
async def test_given_variables_replace_the_stored_ones_even_when_there_are_none(given: dict[str, str]) -> None:
    """Section 9, layer 2, with W34: ``is None`` decides."""
    configs = SandboxConfigManager()
    config = configs.get_or_create_default_sandbox_config("wasm", ANN)
    configs.create_or_update_sandbox_env_var("A", "stored", config.id, ANN)
    made = WasmToolSandbox("f", {}, ANN, None, tool_object=tool(ENVIRON), sandbox_env_vars=given)
    assert (await made.run()).func_return == given


async def test_variables_are_the_users_own_and_nobodys_without_organisation() -> None:
    """Section 11."""
    configs = SandboxConfigManager()
    config = configs.get_or_create_default_sandbox_config("wasm", ANN)
    configs.create_or_update_sandbox_env_var("A", "stored", config.id, ANN)
    for user in (Actor("org-b"), Actor(), None):
        made = WasmToolSandbox("f", {}, user, None, tool_object=tool(ENVIRON), sandbox_config=config)
        assert (await made.run()).func_return == {}


def test_a_run_without_a_store_makes_none(data_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W34: nothing is created for a run with a tool and no configuration."""

    def fail(*_: Any) -> None:
        raise AssertionError("the disk was touched")

    monkeypatch.setattr(database, "connect", fail)
    for config in (None, SandboxConfig()):
        made = WasmToolSandbox("f", {}, ANN, None, tool_object=tool(ENVIRON), sandbox_config=config)
        assert asyncio.run(made.run()).func_return == {}
        assert made.run_sync().func_return == {}
    assert not data_directory.exists()


async def test_a_data_directory_that_cannot_be_looked_into_stops_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be stored there. Looking a tool up there says so."""
    monkeypatch.setenv("WASM_SANDBOX_DATA_DIR", "/tmp/" + "x" * 300)
    made = WasmToolSandbox("f", {}, ANN, None, tool_object=tool(ENVIRON))
    assert (await made.run()).func_return == {}
    with pytest.raises(StoreError, match="cannot be used"):
        await WasmToolSandbox("f", {}, ANN, None).run()


async def test_an_encrypted_variable_without_its_key_stops_the_run_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptography.fernet import Fernet

    configs = SandboxConfigManager(encryption_key=Fernet.generate_key())
    config = configs.get_or_create_default_sandbox_config("wasm", ANN)
    configs.create_or_update_sandbox_env_var("TOKEN", "s3cret", config.id, ANN)
    with pytest.raises(StoreError, match="TOKEN is encrypted"):
        await WasmToolSandbox("f", {}, ANN, None, tool_object=tool(ENVIRON)).run()
