"""Sandbox configurations and their variables (section 11), plain and encrypted."""

from __future__ import annotations

import logging
import re
import sqlite3
import sys
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from tests.support.actors import Actor
from wasm_sandbox import SandboxConfig
from wasm_sandbox.errors import InvalidEnvironment
from wasm_sandbox.stores import SandboxConfigManager, SecretError, StoreError
from wasm_sandbox.stores.encryption import KEY_VARIABLE

SECRET = "s3cret-é-value"
UNKNOWN = "sandbox-00000000-0000-4000-8000-000000000000"


class SandboxType(Enum):
    E2B = "e2b"


@pytest.fixture
def configs(path: Path) -> SandboxConfigManager:
    return SandboxConfigManager(path)


@pytest.fixture
def config(configs: SandboxConfigManager, ann: Actor) -> SandboxConfig:
    return configs.get_or_create_default_sandbox_config("wasm", ann)


# -- configurations --------------------------------------------------------------------------------------


async def test_the_default_configuration_of_a_type_is_made_once_per_organisation(
    configs: SandboxConfigManager, ann: Actor, bob: Actor
) -> None:
    """Section 11: one configuration per type and organisation."""
    first = await configs.get_or_create_default_sandbox_config_async("local", ann)
    assert re.fullmatch(r"sandbox-[0-9a-f-]{36}", first.id)
    assert (first.type, first.organization_id) == ("local", "org-a")
    assert first.config.keys() == {"sandbox_dir"}
    assert await configs.get_or_create_default_sandbox_config_async("local", ann) == first
    assert (await configs.get_or_create_default_sandbox_config_async("local", bob)).id != first.id
    assert await configs.list_sandbox_configs_async(ann) == [first]


async def test_a_default_is_built_by_the_type_that_was_asked_for(configs: SandboxConfigManager, ann: Actor) -> None:
    """W35: the one for E2B is no local one, so the next look-up finds it."""
    made = await configs.get_or_create_default_sandbox_config_async(SandboxType.E2B, ann)
    assert made.type == "e2b"
    assert "sandbox_dir" not in made.config
    assert await configs.get_sandbox_config_by_type_async("e2b", ann) == made
    kinds = ["wasm", "local", "e2b", "modal"]
    assert [configs.get_or_create_default_sandbox_config(kind, ann).type for kind in kinds] == kinds


def test_a_configuration_is_replaced_by_type_and_keeps_id_and_variables(
    configs: SandboxConfigManager, config: SandboxConfig, ann: Actor
) -> None:
    configs.create_or_update_sandbox_env_var("A", "1", config.id, ann)
    changed = configs.create_or_update_sandbox_config("wasm", {"note": 1}, ann)
    assert (changed.id, changed.config) == (config.id, {"note": 1})
    assert configs.get_sandbox_env_vars_as_dict(config.id, ann) == {"A": "1"}


def test_a_configuration_is_removed_with_its_variables_by_its_organisation_only(
    configs: SandboxConfigManager, config: SandboxConfig, ann: Actor, bob: Actor, path: Path
) -> None:
    configs.create_or_update_sandbox_env_var("A", SECRET, config.id, ann)
    assert not configs.delete_sandbox_config(config.id, bob)
    assert configs.delete_sandbox_config(config.id, ann)
    assert configs.get_sandbox_config_by_type("wasm", ann) is None
    assert configs.get_sandbox_env_vars_as_dict(config.id, ann) == {}
    assert SECRET.encode() not in path.read_bytes()


@pytest.mark.parametrize("wrong", ["docker", "", None, 7])
def test_an_unknown_type_is_refused_with_the_known_ones(configs: SandboxConfigManager, ann: Actor, wrong: Any) -> None:
    with pytest.raises(ValueError, match="one of wasm, local, e2b, modal"):
        configs.get_or_create_default_sandbox_config(wrong, ann)


def test_a_configuration_that_json_cannot_hold_is_refused(configs: SandboxConfigManager, ann: Actor) -> None:
    with pytest.raises(ValueError, match="not JSON serializable"):
        configs.create_or_update_sandbox_config("wasm", {"x": object()}, ann)


# -- variables -------------------------------------------------------------------------------------------


async def test_variables_come_in_the_order_of_their_creation_without_a_limit(
    configs: SandboxConfigManager, config: SandboxConfig, ann: Actor
) -> None:
    """Section 11 and W34: ordered by creation, unique per key, no page limit unless asked for."""
    names = [f"V{number}" for number in range(120)]
    for name in reversed(names):
        configs.create_or_update_sandbox_env_var(name, "old", config.id, ann)
    await configs.create_or_update_sandbox_env_var_async("V7", "new", config.id, ann)
    found = await configs.get_sandbox_env_vars_as_dict_async(sandbox_config_id=config.id, actor=ann)
    assert [*found] == names[::-1]
    assert (found["V7"], found["V8"]) == ("new", "old")
    first = configs.list_sandbox_env_vars(config.id, ann, limit=50)
    page = await configs.get_sandbox_env_vars_as_dict_async(config.id, ann, after=first[-1].id, limit=2)
    assert [*page] == ["V69", "V68"]
    with pytest.raises(ValueError, match="no variable with the id 'x'"):
        await configs.list_sandbox_env_vars_async(config.id, ann, after="x")


async def test_variables_are_their_organisations_own(
    configs: SandboxConfigManager, config: SandboxConfig, ann: Actor, bob: Actor
) -> None:
    """Section 11."""
    await configs.create_or_update_sandbox_env_var_async("A", "1", config.id, ann)
    assert await configs.get_sandbox_env_vars_as_dict_async(config.id, bob) == {}
    assert not await configs.delete_sandbox_env_var_async("A", config.id, bob)
    with pytest.raises(ValueError, match="no sandbox configuration"):
        await configs.create_or_update_sandbox_env_var_async("A", "2", config.id, bob)
    assert await configs.delete_sandbox_env_var_async("A", config.id, ann)
    assert await configs.get_sandbox_env_vars_as_dict_async(config.id, ann) == {}


@pytest.mark.parametrize(
    "wrong", ["", "sandbox-1", "tool-00000000-0000-4000-8000-000000000000", UNKNOWN + "0", None, 1]
)
async def test_an_id_that_is_none_is_refused(configs: SandboxConfigManager, ann: Actor, wrong: Any) -> None:
    """Section 11: the id must match sandbox-<uuid4>."""
    for call in (
        configs.get_sandbox_env_vars_as_dict_async(wrong, ann),
        configs.list_sandbox_env_vars_async(wrong, ann),
        configs.create_or_update_sandbox_env_var_async("A", "1", wrong, ann),
        configs.delete_sandbox_env_var_async("A", wrong, ann),
        configs.delete_sandbox_config_async(wrong, ann),
    ):
        with pytest.raises(ValueError, match="no id of a sandbox configuration"):
            await call
    with pytest.raises(ValueError, match=r"id\n"):  # and no object has such an id
        SandboxConfig(id=wrong)


def test_an_id_of_the_form_is_an_id_in_either_case() -> None:
    """Section 10."""
    for known in (UNKNOWN, UNKNOWN.replace("8000", "a0F0"), SandboxConfig().id):
        assert SandboxConfig(id=known).id == known


async def test_an_actor_without_organisation_is_refused(configs: SandboxConfigManager) -> None:
    """Section 11."""
    nobody = Actor()
    for call in (
        configs.get_or_create_default_sandbox_config_async("wasm", nobody),
        configs.create_or_update_sandbox_config_async("wasm", {}, nobody),
        configs.list_sandbox_configs_async(nobody),
        configs.get_sandbox_env_vars_as_dict_async(UNKNOWN, nobody),
        configs.create_or_update_sandbox_env_var_async("A", "1", UNKNOWN, nobody),
    ):
        with pytest.raises(ValueError, match="no organisation"):
            await call


@pytest.mark.parametrize(("name", "value"), [("A", 12345), ("A", None), ("A", f"{SECRET}\0"), ("A=B", "x"), ("", "x")])
def test_an_unusable_variable_is_refused_without_its_value(
    configs: SandboxConfigManager, config: SandboxConfig, ann: Actor, name: str, value: Any
) -> None:
    """W34."""
    with pytest.raises(InvalidEnvironment) as caught:
        configs.create_or_update_sandbox_env_var(name, value, config.id, ann)
    assert "12345" not in str(caught.value)
    assert SECRET not in str(caught.value)
    assert configs.get_sandbox_env_vars_as_dict(config.id, ann) == {}


def test_asking_an_empty_store_makes_no_file(configs: SandboxConfigManager, ann: Actor, path: Path) -> None:
    assert configs.get_sandbox_config_by_type("wasm", ann) is None
    assert configs.get_sandbox_env_vars_as_dict(UNKNOWN, ann) == {}
    assert not configs.delete_sandbox_env_var("A", UNKNOWN, ann)
    assert not path.parent.exists()


# -- encryption --------------------------------------------------------------------------------------------


def with_key(path: Path, key: str | bytes) -> SandboxConfigManager:
    return SandboxConfigManager(path, encryption_key=key)


@pytest.fixture
def key() -> str:
    return Fernet.generate_key().decode()


def test_with_a_key_values_are_encrypted_at_rest(path: Path, key: str, ann: Actor) -> None:
    configs = with_key(path, key)
    config = configs.get_or_create_default_sandbox_config("wasm", ann)
    made = configs.create_or_update_sandbox_env_var("TOKEN", SECRET, config.id, ann)
    assert made.is_encrypted
    assert SECRET.encode() not in path.read_bytes()
    assert configs.get_sandbox_env_vars_as_dict(config.id, ann) == {"TOKEN": SECRET}


def test_the_key_may_be_in_the_environment(
    configs: SandboxConfigManager, config: SandboxConfig, ann: Actor, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, key)
    assert configs.create_or_update_sandbox_env_var("TOKEN", SECRET, config.id, ann).is_encrypted
    assert configs.get_sandbox_env_vars_as_dict(config.id, ann) == {"TOKEN": SECRET}


def test_plain_and_encrypted_values_stand_side_by_side(
    configs: SandboxConfigManager, config: SandboxConfig, path: Path, key: str, ann: Actor
) -> None:
    configs.create_or_update_sandbox_env_var("PLAIN", "1", config.id, ann)
    configs.create_or_update_sandbox_env_var("LATER", SECRET, config.id, ann)
    keyed = with_key(path, key)
    keyed.create_or_update_sandbox_env_var("LATER", SECRET, config.id, ann)
    keyed.create_or_update_sandbox_env_var("TOKEN", "2", config.id, ann)
    assert keyed.get_sandbox_env_vars_as_dict(config.id, ann) == {"PLAIN": "1", "LATER": SECRET, "TOKEN": "2"}
    assert [v.is_encrypted for v in configs.list_sandbox_env_vars(config.id, ann)] == [False, True, True]
    assert SECRET.encode() not in path.read_bytes()  # the plain value that was there before is gone


def test_the_encrypted_form_counts_where_a_row_holds_both(path: Path, key: str, ann: Actor) -> None:
    """Section 11: the encrypted value is preferred over the plain one, also when it cannot be read."""
    keyed = with_key(path, key)
    config = keyed.get_or_create_default_sandbox_config("wasm", ann)
    keyed.create_or_update_sandbox_env_var("TOKEN", SECRET, config.id, ann)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE sandbox_env_vars SET value = 'stale'")
    connection.close()
    assert keyed.get_sandbox_env_vars_as_dict(config.id, ann) == {"TOKEN": SECRET}
    with pytest.raises(SecretError):
        SandboxConfigManager(path).get_sandbox_env_vars_as_dict(config.id, ann)


@pytest.mark.parametrize(
    ("given", "words"),
    [("", "give its key in"), (Fernet.generate_key(), "is not the one"), ("pass-phrase", "holds no Fernet key")],
    ids=["none", "wrong", "malformed"],
)
def test_what_cannot_be_decrypted_is_refused_by_the_variables_name_alone(
    path: Path, key: str, ann: Actor, given: str | bytes, words: str
) -> None:
    keyed = with_key(path, key)
    config = keyed.get_or_create_default_sandbox_config("wasm", ann)
    keyed.create_or_update_sandbox_env_var("TOKEN", SECRET, config.id, ann)
    with pytest.raises(SecretError, match=f"TOKEN .*{words}") as caught:
        with_key(path, given).get_sandbox_env_vars_as_dict(config.id, ann)
    assert SECRET not in repr(caught.value)
    assert key not in repr(caught.value)
    assert "pass-phrase" not in repr(caught.value)
    assert caught.value.__context__ is None or "pass-phrase" not in repr(caught.value.__context__)
    assert len(with_key(path, given).list_sandbox_env_vars(config.id, ann)) == 1


def test_a_malformed_key_stores_nothing(path: Path, ann: Actor, configs: SandboxConfigManager) -> None:
    config = configs.get_or_create_default_sandbox_config("wasm", ann)
    with pytest.raises(SecretError, match="TOKEN"):
        with_key(path, "pass-phrase").create_or_update_sandbox_env_var("TOKEN", SECRET, config.id, ann)
    assert configs.list_sandbox_env_vars(config.id, ann) == []


def test_a_key_is_replaced_by_giving_the_new_one_before_the_old(path: Path, key: str, ann: Actor) -> None:
    old = with_key(path, key)
    config = old.get_or_create_default_sandbox_config("wasm", ann)
    old.create_or_update_sandbox_env_var("TOKEN", SECRET, config.id, ann)
    new_key = Fernet.generate_key().decode()
    both = with_key(path, f"{new_key}, {key}")
    both.create_or_update_sandbox_env_var(
        "TOKEN", both.get_sandbox_env_vars_as_dict(config.id, ann)["TOKEN"], config.id, ann
    )
    assert with_key(path, new_key).get_sandbox_env_vars_as_dict(config.id, ann) == {"TOKEN": SECRET}


def test_an_encrypted_value_cannot_be_moved_to_another_variable(path: Path, key: str, ann: Actor) -> None:
    configs = with_key(path, key)
    config = configs.get_or_create_default_sandbox_config("wasm", ann)
    configs.create_or_update_sandbox_env_var("TOKEN", SECRET, config.id, ann)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE sandbox_env_vars SET key = 'SHOWN'")
    connection.close()
    with pytest.raises(SecretError, match="SHOWN cannot be decrypted"):
        configs.get_sandbox_env_vars_as_dict(config.id, ann)


def test_without_the_library_a_key_is_refused_and_names_the_extra(
    path: Path, key: str, ann: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = with_key(path, key)
    config = configs.get_or_create_default_sandbox_config("wasm", ann)
    monkeypatch.setitem(sys.modules, "cryptography.fernet", None)
    with pytest.raises(SecretError, match=r"pip install 'wasm-sandbox\[encryption\]'"):
        configs.create_or_update_sandbox_env_var("TOKEN", SECRET, config.id, ann)


def test_no_value_and_no_key_is_in_any_text_made_of_the_objects(
    path: Path, key: str, ann: Actor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    configs = with_key(path, key)
    config = configs.get_or_create_default_sandbox_config("wasm", ann)
    made = configs.create_or_update_sandbox_env_var("TOKEN", SECRET, config.id, ann)
    configs.get_sandbox_env_vars_as_dict(config.id, ann)
    # The cipher has the key, and no public way leads to it: that is what is tested.
    texts = [repr(configs), repr(configs._cipher), repr(made), str(made), caplog.text]
    assert all(SECRET not in text and key not in text for text in texts)


def test_a_row_without_a_value_is_a_damaged_store(
    configs: SandboxConfigManager, config: SandboxConfig, ann: Actor, path: Path
) -> None:
    configs.create_or_update_sandbox_env_var("A", "1", config.id, ann)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE sandbox_env_vars SET value = NULL")
    connection.close()
    with pytest.raises(StoreError, match="the variable A cannot be read"):
        configs.get_sandbox_env_vars_as_dict(config.id, ann)


def test_a_text_that_is_no_utf8_is_a_damaged_store_and_is_not_quoted(
    configs: SandboxConfigManager, config: SandboxConfig, ann: Actor, path: Path
) -> None:
    configs.create_or_update_sandbox_env_var("A", SECRET, config.id, ann)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE sandbox_env_vars SET value = CAST(? AS TEXT)", (b"s3cret\xff",))
    connection.close()
    with pytest.raises(StoreError, match="damaged: a text in it cannot be read") as caught:
        configs.get_sandbox_env_vars_as_dict(config.id, ann)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__suppress_context__
