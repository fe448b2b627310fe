"""Token files: bearer tokens, one a line, or in TOML with what each may do."""

from __future__ import annotations

import hashlib
import hmac
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from wasm_sandbox import Limits

MAX_FILE_BYTES = 4 << 20
MIN_CHARACTERS, MAX_CHARACTERS = 20, 1000
"""Length of a token."""

T = TypeVar("T")


class TokenEntry(BaseModel):
    """One token, and what it may do; ``model_fields_set`` says what of it was given."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    token: str | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    limits: Limits = Field(default_factory=Limits)
    images: list[str] | None = None
    fuel_per_minute: Annotated[int, Field(gt=0, lt=2**63)] | None = None
    max_calls: Annotated[int, Field(gt=0)] | None = None
    max_sessions: Annotated[int, Field(ge=0)] = 20
    metrics: bool = False

    @field_validator("token")
    @classmethod
    def _long_enough(cls, value: str | None) -> str | None:
        if value is None:
            return value
        if not MIN_CHARACTERS <= len(value) <= MAX_CHARACTERS or not re.fullmatch(r"[!-~]+", value):
            raise ValueError(
                f"a token has {MIN_CHARACTERS} to {MAX_CHARACTERS} characters, printable and without "
                'spaces: make one with python -c "import secrets; print(secrets.token_urlsafe(32))"'
            )
        return value

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        if (self.token is None) == (self.sha256 is None):
            raise ValueError("give either token or sha256")
        if self.limits.fuel is None and self.fuel_per_minute is not None:
            raise ValueError("fuel_per_minute needs fuel to be counted: leave limits.fuel at a number")
        return self

    @property
    def digest(self) -> bytes:
        """SHA-256 of the token."""
        return _digest(self.token) if self.token is not None else bytes.fromhex(self.sha256 or "")


def read_tokens(path: Path) -> list[TokenEntry]:
    """Read a token file: a token a line, or ``[[tokens]]`` entries in TOML (docs/serve.md).

    In the first form empty lines and those that begin with ``#`` do not count, and names are ``token-1``, ``token-2``.

    Raises:
        ValueError: if it cannot be read, or an entry is wrong; the message names it, and never a token.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"{path} is larger than {MAX_FILE_BYTES} bytes, and no token file")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8") from None
    lines = [line.strip() for line in text.splitlines()]
    told = [line for line in lines if line and not line.startswith("#")]
    if not told:
        raise ValueError(f"{path} holds no token: write one a line, or [[tokens]] entries")
    if told[0].startswith("["):
        return _checked(_toml_entries(text, path), path)
    return _checked([{"name": f"token-{number}", "token": line} for number, line in enumerate(told, 1)], path)


def _toml_entries(text: str, path: Path) -> list[Any]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # Its own words may quote the line: only the place is told.
        place = re.search(r"\(at [^)]*\)", str(error))
        raise ValueError(f"{path} is no TOML {place[0] if place else ''}".rstrip()) from None
    entries = document.pop("tokens", None)
    if document or not isinstance(entries, list) or not entries:
        raise ValueError(f"{path} must hold [[tokens]] entries, at least one, and nothing else")
    return entries


def _checked(entries: list[Any], path: Path) -> list[TokenEntry]:
    found: list[TokenEntry] = []
    known: set[bytes | str] = set()
    for number, data in enumerate(entries, 1):
        try:
            entry = TokenEntry.model_validate(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(["tokens", str(number), *map(str, first["loc"])])
            raise ValueError(f"{path}: {place}: {first['msg'].removeprefix('Value error, ')}") from None
        if entry.digest in known or entry.name in known:
            raise ValueError(f"{path}: tokens.{number}: its name or its token is there twice")
        known |= {entry.digest, entry.name}
        found.append(entry)
    return found


def holder_of(token: str, holders: Mapping[bytes, T]) -> T | None:
    """Holder of a token, in a time that does not depend on which of its characters are right.

    Args:
        token: token that was sent.
        holders: SHA-256 of each token -> its holder.
    """
    digest, found = _digest(token[: MAX_CHARACTERS + 1]), None
    for known, holder in holders.items():  # all of them, so that no time tells which is right
        if hmac.compare_digest(known, digest):
            found = holder
    return found


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
