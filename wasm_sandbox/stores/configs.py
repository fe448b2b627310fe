"""Sandbox configurations of each organisation, and their environment variables."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, get_args
from uuid import uuid4

from wasm_sandbox.config import CONFIG_ID, SandboxConfig
from wasm_sandbox.environment import check_variable
from wasm_sandbox.stores.database import Database, damaged, encoding
from wasm_sandbox.stores.encryption import ValueCipher
from wasm_sandbox.stores.organizations import organization_of
from wasm_sandbox.tool.parsing import read_json
from wasm_sandbox.tool.twins import async_twin

_DEFAULTS: dict[str, dict[str, Any]] = {
    "wasm": {},
    "local": {"sandbox_dir": "~/.letta/tool_execution_dir"},
    "e2b": {"timeout": 300},
    "modal": {"timeout": 60, "language": "python"},
}
"""Type of a configuration -> what its default holds."""


@dataclass(frozen=True)
class SandboxEnvVar:
    """A stored variable, without its value."""

    id: str
    key: str
    sandbox_config_id: str
    is_encrypted: bool
    updated_at: datetime


class SandboxConfigManager:
    """Store of sandbox configurations, one per type and organisation, and of the variables of each.

    Every method has an async twin, its name with ``_async``, which calls it in a thread. Every method raises
    ``ValueError`` if the actor has no organisation or an id is not ``sandbox-<uuid4>``, and `StoreError` if
    the store cannot be used.

    Args:
        path: the store's file; by default the one in the user's data directory.
        encryption_key: the key of the values, as `ValueCipher` takes it; by default that of
            ``$WASM_SANDBOX_ENCRYPTION_KEY``. Without a key values are stored in plain text.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, encryption_key: str | bytes | None = None) -> None:
        self._database = Database(path)
        self._cipher = ValueCipher(encryption_key)

    # --- Configurations

    def get_or_create_default_sandbox_config(self, sandbox_type: str | Enum, actor: Any) -> SandboxConfig:
        """Configuration of a type; created with that type's defaults if the organisation has none.

        Args:
            sandbox_type: ``wasm``, ``local``, ``e2b`` or ``modal``.
            actor: whose organisation.
        """
        found = self.get_sandbox_config_by_type(sandbox_type, actor)
        if found is None:
            found = self._store_config(_type(sandbox_type), None, organization_of(actor))
        return found

    get_or_create_default_sandbox_config_async = async_twin(get_or_create_default_sandbox_config)

    def get_sandbox_config_by_type(self, sandbox_type: str | Enum, actor: Any) -> SandboxConfig | None:
        """Configuration of a type, or ``None`` if the organisation has none."""
        organization, kind = organization_of(actor), _type(sandbox_type)
        with self._database.reading() as connection:
            row = None if connection is None else _config_row(connection, organization, kind)
        return self._config(row) if row else None

    get_sandbox_config_by_type_async = async_twin(get_sandbox_config_by_type)

    def create_or_update_sandbox_config(
        self, sandbox_type: str | Enum, config: Mapping[str, Any], actor: Any
    ) -> SandboxConfig:
        """Store a configuration; one of the same type is replaced and keeps its id and variables.

        Raises:
            ValueError: if the configuration holds a value that JSON cannot.
        """
        return self._store_config(_type(sandbox_type), config, organization_of(actor))

    create_or_update_sandbox_config_async = async_twin(create_or_update_sandbox_config)

    def list_sandbox_configs(self, actor: Any) -> list[SandboxConfig]:
        """All configurations of the organisation, in order of creation."""
        rows = self._database.page("sandbox_configs", organization_id=organization_of(actor))
        return [self._config(row) for row in rows or ()]

    list_sandbox_configs_async = async_twin(list_sandbox_configs)

    def delete_sandbox_config(self, sandbox_config_id: str, actor: Any) -> bool:
        """Remove a configuration and its variables; false if there is no such configuration."""
        organization, config_id = organization_of(actor), _config_id(sandbox_config_id)
        return self._database.delete("sandbox_configs", organization_id=organization, id=config_id)

    delete_sandbox_config_async = async_twin(delete_sandbox_config)

    def _store_config(self, kind: str, config: Mapping[str, Any] | None, organization: str) -> SandboxConfig:
        """Store a configuration; ``None`` stores the type's default unless a configuration of the type exists."""
        with encoding("the configuration"):
            text = json.dumps(_DEFAULTS[kind] if config is None else dict(config))
        update = "" if config is None else "config = excluded.config, updated_at = excluded.updated_at"
        with self._database.writing() as connection:
            connection.execute(
                "INSERT INTO sandbox_configs (organization_id, id, type, config, updated_at) VALUES (?, ?, ?, ?, ?) "
                f"ON CONFLICT (organization_id, type) DO {'UPDATE SET ' + update if update else 'NOTHING'}",
                (organization, f"sandbox-{uuid4()}", kind, text, time.time()),
            )
            row = _config_row(connection, organization, kind)
        return self._config(row)

    def _config(self, row: sqlite3.Row) -> SandboxConfig:
        with self._database.decoding(f"the configuration {row['id']}"):
            return SandboxConfig(
                id=row["id"],
                type=row["type"],
                organization_id=row["organization_id"],
                config=read_json(row["config"]),
            )

    # --- Variables

    def create_or_update_sandbox_env_var(
        self, key: str, value: str, sandbox_config_id: str, actor: Any
    ) -> SandboxEnvVar:
        """Store a variable, encrypted if there is a key; one of the same name is replaced and keeps its place.

        Args:
            key: the variable's name.
            value: its value.
            sandbox_config_id: the configuration that it belongs to.
            actor: whose organisation.

        Raises:
            InvalidEnvironment: if no environment can hold the variable; the message names it, never its value.
            ValueError: if there is no such configuration.
            SecretError: if the value cannot be encrypted.
        """
        organization, config_id = organization_of(actor), _config_id(sandbox_config_id)
        check_variable(key, value)
        token = self._cipher.encrypt(config_id, key, value) if self._cipher.has_key else None
        with self._database.writing() as connection:
            config = connection.execute(
                "SELECT 1 FROM sandbox_configs WHERE organization_id = ? AND id = ?", (organization, config_id)
            ).fetchone()
            if config is None:
                raise ValueError(f"there is no sandbox configuration {config_id}")
            connection.execute(
                "INSERT INTO sandbox_env_vars "
                "(organization_id, id, sandbox_config_id, key, value, value_encrypted, updated_at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (organization_id, sandbox_config_id, key) DO UPDATE SET "
                "value = excluded.value, value_encrypted = excluded.value_encrypted, updated_at = excluded.updated_at",
                (
                    *(organization, f"sandbox-env-{uuid4()}", config_id, key),
                    *(value if token is None else None, token, time.time()),
                ),
            )
            row = connection.execute(
                "SELECT * FROM sandbox_env_vars WHERE organization_id = ? AND sandbox_config_id = ? AND key = ?",
                (organization, config_id, key),
            ).fetchone()
        return _variable(row)

    create_or_update_sandbox_env_var_async = async_twin(create_or_update_sandbox_env_var)

    def get_sandbox_env_vars_as_dict(
        self, sandbox_config_id: str, actor: Any, after: str | None = None, limit: int | None = None
    ) -> dict[str, str]:
        """Variables of a configuration, name to value, in order of creation.

        Args:
            sandbox_config_id: the configuration; an unknown one, or another organisation's, has no variables.
            actor: whose organisation.
            after: the id of a variable; only later variables are given.
            limit: maximum number of variables; ``None`` for all.

        Raises:
            SecretError: if a value is encrypted and cannot be decrypted; the message names the variable.
            ValueError: if there is no variable with the id ``after``.
        """
        rows = self._variable_rows(sandbox_config_id, actor, after, limit)
        return {row["key"]: self._value(row) for row in rows}

    get_sandbox_env_vars_as_dict_async = async_twin(get_sandbox_env_vars_as_dict)

    def list_sandbox_env_vars(
        self, sandbox_config_id: str, actor: Any, after: str | None = None, limit: int | None = None
    ) -> list[SandboxEnvVar]:
        """Variables of a configuration without their values, in order of creation; no encryption key is needed.

        Args and errors are those of `get_sandbox_env_vars_as_dict`, without `SecretError`.
        """
        return [_variable(row) for row in self._variable_rows(sandbox_config_id, actor, after, limit)]

    list_sandbox_env_vars_async = async_twin(list_sandbox_env_vars)

    def delete_sandbox_env_var(self, key: str, sandbox_config_id: str, actor: Any) -> bool:
        """Remove a variable by its name; false if there is no such variable."""
        organization, config_id = organization_of(actor), _config_id(sandbox_config_id)
        return self._database.delete(
            "sandbox_env_vars", organization_id=organization, sandbox_config_id=config_id, key=key
        )

    delete_sandbox_env_var_async = async_twin(delete_sandbox_env_var)

    def _variable_rows(
        self, sandbox_config_id: str, actor: Any, after: str | None, limit: int | None
    ) -> list[sqlite3.Row]:
        organization, config_id = organization_of(actor), _config_id(sandbox_config_id)
        rows = self._database.page(
            "sandbox_env_vars", after, limit, organization_id=organization, sandbox_config_id=config_id
        )
        if rows is None:
            raise ValueError(f"there is no variable with the id {after!r} to give the ones after it")
        return rows

    def _value(self, row: sqlite3.Row) -> str:
        """Value of a variable; if a row holds both forms, the encrypted form counts."""
        if row["value_encrypted"] is not None:
            return self._cipher.decrypt(row["sandbox_config_id"], row["key"], row["value_encrypted"])
        if not isinstance(row["value"], str):
            raise damaged(self._database.path, f"the variable {row['key']}", TypeError())
        return row["value"]


def _variable(row: sqlite3.Row) -> SandboxEnvVar:
    return SandboxEnvVar(
        id=row["id"],
        key=row["key"],
        sandbox_config_id=row["sandbox_config_id"],
        is_encrypted=row["value_encrypted"] is not None,
        updated_at=datetime.fromtimestamp(row["updated_at"], UTC),
    )


def _config_row(connection: sqlite3.Connection, organization: str, kind: str) -> Any:
    return connection.execute(
        "SELECT * FROM sandbox_configs WHERE organization_id = ? AND type = ?", (organization, kind)
    ).fetchone()


_TYPES: tuple[str, ...] = get_args(SandboxConfig.model_fields["type"].annotation)


def _type(sandbox_type: str | Enum) -> str:
    kind = str(sandbox_type.value if isinstance(sandbox_type, Enum) else sandbox_type)
    if kind not in _TYPES:
        raise ValueError(f"there is no sandbox type {kind!r}; it is one of {', '.join(_TYPES)}")
    return kind


def _config_id(sandbox_config_id: str) -> str:
    if not isinstance(sandbox_config_id, str) or not re.fullmatch(CONFIG_ID, sandbox_config_id):
        raise ValueError(f"{sandbox_config_id!r} is no id of a sandbox configuration, which is sandbox-<uuid4>")
    return sandbox_config_id
