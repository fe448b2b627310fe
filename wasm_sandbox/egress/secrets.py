"""Secrets of a run: placeholders that the guest sees, the values that are put in their place, and their traces.

A value is taken out of whatever comes back, as it is and in the encodings in which it is commonly found: percent,
Base64 at any offset, hexadecimal, JSON. What takes its place has the same length, so that no length in an answer is
wrong.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import quote, quote_plus

from wasm_sandbox.network import Secret

_STAR = b"*"
_LEAST_TRACE = 6
"""Length of the shortest encoded form that is looked for."""


class RunSecrets:
    """Secrets of one run. Immutable, and so for any thread.

    Args:
        secrets: name -> secret.
        is_deterministic: whether placeholders are the same in every run; only for runs that send nothing.
        kept: name -> placeholder that a guest has already. It comes from a session's bytes, and so from anybody: what
            is no placeholder of that name is passed over.

    Attributes:
        secrets: name -> secret.
        placeholders: name -> placeholder, in letters, digits, ``-`` and ``_``, which no encoding of HTTP changes.
    """

    def __init__(
        self,
        given: Mapping[str, Secret],
        is_deterministic: bool = False,
        kept: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.secrets = dict(given)
        self.placeholders = {}
        for name in self.secrets:
            old = kept.get(name, "")
            is_one = re.fullmatch(f"secret-{name}-[0-9a-f]{{32}}", old, re.ASCII) is not None
            self.placeholders[name] = old if is_one else _placeholder(name, is_deterministic)
        forms = {form for secret in self.secrets.values() for form in forms_of(secret.value)}
        self._forms = sorted(forms, key=lambda form: (-len(form), form))
        self._firsts = {form[:1] for form in self._forms}
        self._longest = max(map(len, self._forms), default=0)

    def scrub_bytes(self, data: bytes) -> bytes:
        """The data with stars in place of each value; of the same length."""
        for form in self._forms:
            if form in data:
                data = data.replace(form, _STAR * len(form))
        return data

    def scrub(self, text: str) -> str:
        """The text with stars in place of each value."""
        for form in self._forms:
            shown = form.decode("ascii")
            if shown in text:
                text = text.replace(shown, "*" * len(shown))
        return text

    def neutral(self, data: bytes) -> bytes:
        """The data with the names of secrets in place of their placeholders: the same in every run."""
        for name, placeholder in self.placeholders.items():
            data = data.replace(placeholder.encode(), b"{{%s}}" % name.encode())
        return data

    def stream(self) -> ScrubbedStream:
        """A scrubber of data that comes in pieces."""
        return ScrubbedStream(self)

    def held_back(self, data: bytes) -> int:
        """How many bytes at the end may be the beginning of a value."""
        start = max(0, len(data) - self._longest + 1)
        for at in range(start, len(data)):
            if data[at : at + 1] in self._firsts:
                rest = data[at:]
                if any(len(form) > len(rest) and form.startswith(rest) for form in self._forms):
                    return len(data) - at
        return 0


class ScrubbedStream:
    """Takes values out of data in pieces, also where one is spread over several.

    It holds back no more than what may be the beginning of a value, and so less than the longest form of one.
    """

    def __init__(self, run_secrets: RunSecrets) -> None:
        self._secrets = run_secrets
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """What is known to hold no value, of all data up to now."""
        if not self._secrets.secrets:
            return data
        text = self._secrets.scrub_bytes(self._rest + data)
        held = self._secrets.held_back(text)
        self._rest = text[len(text) - held :]
        return text[: len(text) - held]

    def end(self) -> bytes:
        """What was held back."""
        rest, self._rest = self._rest, b""
        return rest


def _placeholder(name: str, is_deterministic: bool) -> str:
    token = hashlib.sha256(name.encode()).hexdigest()[:32] if is_deterministic else secrets.token_hex(16)
    return f"secret-{name}-{token}"


def forms_of(value: str) -> set[bytes]:
    """A value as it is, and in the encodings in which it is looked for."""
    raw = value.encode()
    quoted = {quote(value, safe=""), quote(value), quote_plus(value)}
    forms = {raw, raw.hex().encode(), raw.hex().upper().encode(), json.dumps(value)[1:-1].encode()}
    forms |= {text.encode() for text in quoted}
    forms |= {text.replace("%", "\0").lower().replace("\0", "%").encode() for text in quoted if value.islower()}
    forms.add(value.replace("/", "\\/").encode())
    for encode in (b64encode, urlsafe_b64encode):
        forms |= {_base64_core(raw, offset, encode(b"\0" * offset + raw)) for offset in range(3)}
    return {form for form in forms if len(form) >= _LEAST_TRACE}


def _base64_core(raw: bytes, offset: int, encoded: bytes) -> bytes:
    """The letters of an encoding that depend on the value alone, whatever stands before and after it."""
    first = (offset * 8 + 5) // 6
    last = (offset + len(raw)) * 8 // 6
    return encoded[first:last]
