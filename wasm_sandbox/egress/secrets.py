"""Secrets of one run: placeholders for the guest, and values for the requests that may have them."""

from __future__ import annotations

import base64
import binascii
import re
import secrets as entropy
from collections.abc import Mapping
from urllib.parse import quote

from wasm_sandbox.network import Secret

PLACEHOLDER = "secret-"
"""What placeholders begin with; ``_sandbox_net`` knows it."""

Headers = list[tuple[bytes, bytes]]

_PARAMETER = re.compile(r"(?<=[?&])([^=&#]*)=([^&#]*)")


class RunSecrets:
    """Secrets of one run.

    Args:
        secrets: name of an environment variable -> secret.
    """

    def __init__(self, secrets: Mapping[str, Secret]) -> None:
        self._secrets = {f"{PLACEHOLDER}{entropy.token_hex(16)}": secret for secret in secrets.values()}
        self.placeholders = dict(zip(secrets, self._secrets, strict=True))
        """Name of an environment variable -> placeholder, another one in every run."""
        forms = {form for secret in secrets.values() for form in _forms(secret.value)}
        self._forms = sorted(forms, key=len, reverse=True)
        pattern = "|".join(map(re.escape, self._forms))
        self._text = re.compile(pattern) if forms else None
        self._bytes = re.compile(pattern.encode()) if forms else None
        self.longest = max(map(len, self._forms), default=0)
        """Length of the longest form in which a value is looked for."""

    def are_for(self, host: str, port: int, is_tls: bool) -> bool:
        """Whether requests to a host may have a value."""
        return any(secret.goes_to(host, port, is_tls) for secret in self._secrets.values())

    def with_values(self, host: str, port: int, is_tls: bool, target: bytes, headers: Headers) -> tuple[bytes, Headers]:
        """Target and headers of a request, with values where placeholders stand that may be replaced there."""
        for placeholder, secret in self._secrets.items():
            if not secret.goes_to(host, port, is_tls):
                continue
            named = {name.encode() for name in secret.headers}
            headers = [
                (name, _replaced(value, placeholder, secret) if name.lower() in named else value)
                for name, value in headers
            ]
            if secret.query:
                target = _with_parameter(target.decode("latin-1"), placeholder, secret).encode("latin-1")
        return target, headers

    def scrub(self, text: str) -> str:
        """A text without values: asterisks stand for them."""
        return self._text.sub(lambda found: "*" * len(found[0]), text) if self._text is not None else text

    def scrub_bytes(self, data: bytes) -> bytes:
        """Bytes without values, as many as before."""
        return self._bytes.sub(lambda found: b"*" * len(found[0]), data) if self._bytes is not None else data

    def pending(self, data: bytes) -> int:
        """Number of bytes at the end that may be the beginning of a value."""
        most = min(self.longest - 1, len(data))
        for size in range(most, 0, -1):
            tail = data[-size:]
            if any(form.encode().startswith(tail) for form in self._forms):
                return size
        return 0


def _forms(value: str) -> set[str]:
    """Forms in which a value may come back."""
    return {value, quote(value), quote(value, safe=""), base64.b64encode(value.encode()).decode()}


def _replaced(value: bytes, placeholder: str, secret: Secret) -> bytes:
    """Value of a header; what ``Basic`` authentication hides is looked into."""
    replaced = value.replace(placeholder.encode(), secret.value.encode())
    kind, _, encoded = value.partition(b" ")
    if kind.lower() != b"basic" or not secret.basic:
        return replaced
    try:
        login = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return replaced
    return kind + b" " + base64.b64encode(login.replace(placeholder.encode(), secret.value.encode()))


def _with_parameter(target: str, placeholder: str, secret: Secret) -> str:
    def replaced(found: re.Match[str]) -> str:
        name, value = found[1], found[2]
        if name not in secret.query:
            return found[0]
        return f"{name}={value.replace(placeholder, quote(secret.value, safe=''))}"

    return _PARAMETER.sub(replaced, target)


class Scrubber:
    """Scrubs bytes that come in pieces: the beginning of a value waits for its end.

    Args:
        secrets: secrets of the run.
    """

    def __init__(self, secrets: RunSecrets) -> None:
        self._secrets, self._waiting = secrets, b""

    def fed(self, data: bytes) -> bytes:
        """Scrubbed bytes, of this piece and what waited."""
        if not self._secrets.longest:
            return data
        whole = self._secrets.scrub_bytes(self._waiting + data)
        size = self._secrets.pending(whole)
        self._waiting = whole[len(whole) - size :]
        return whole[: len(whole) - size]

    def rest(self) -> bytes:
        """What still waits, at the end."""
        waiting, self._waiting = self._waiting, b""
        return waiting
