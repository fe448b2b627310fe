"""Values encrypted at rest with Fernet (extra ``encryption``). No message holds a value or a key."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from wasm_sandbox.errors import SecretError

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

KEY_VARIABLE = "WASM_SANDBOX_ENCRYPTION_KEY"


class ValueCipher:
    """Authenticated encryption of variables' values, if there is a key.

    Args:
        key: a Fernet key (32 bytes in URL-safe base64), or several with commas between them: the first encrypts,
            all of them decrypt. By default that of ``$WASM_SANDBOX_ENCRYPTION_KEY``, read at every use.
    """

    def __init__(self, key: str | bytes | None = None) -> None:
        self._key = key.decode("ascii", "replace") if isinstance(key, bytes) else key

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'with a key' if self.has_key else 'without a key'})"

    @property
    def has_key(self) -> bool:
        """Whether values are encrypted."""
        return bool(self._text)

    @property
    def _text(self) -> str:
        return (self._key if self._key is not None else os.environ.get(KEY_VARIABLE, "")).strip()

    def encrypt(self, config_id: str, name: str, value: str) -> bytes:
        """Encrypt a variable's value, bound to its configuration and name.

        Raises:
            SecretError: if the key is no Fernet key, or ``cryptography`` is not installed.
        """
        return self._fernet(name).encrypt(json.dumps([config_id, name, value]).encode())

    def decrypt(self, config_id: str, name: str, token: bytes) -> str:
        """Decrypt a variable's value.

        Raises:
            SecretError: if there is no key, the value was encrypted with another key, or the token was made for
                another variable.
        """
        if not self.has_key:
            raise SecretError(f"the variable {name} is encrypted: give its key in {KEY_VARIABLE}")
        fernet = self._fernet(name)
        from cryptography.fernet import InvalidToken  # lazy: an extra, only for encrypted values

        try:
            found = json.loads(fernet.decrypt(token))
        except (InvalidToken, ValueError, TypeError):
            found = None
        if not isinstance(found, list) or len(found) != 3 or found[:2] != [config_id, name]:
            raise SecretError(
                f"the variable {name} cannot be decrypted: the key in {KEY_VARIABLE} is not the one that it was "
                "encrypted with, or the store was changed by something else"
            )
        return str(found[2])

    def _fernet(self, name: str) -> MultiFernet:
        try:
            from cryptography.fernet import Fernet, MultiFernet  # lazy: an extra, only for encrypted values
        except ImportError:
            raise SecretError(
                f"the variable {name} needs encryption, which is not installed: pip install 'wasm-sandbox[encryption]'"
            ) from None
        try:
            return MultiFernet([Fernet(key.strip()) for key in self._text.split(",")])
        except ValueError:
            pass  # outside the handler, so that nothing of the key is in the error's context
        raise SecretError(
            f"the variable {name} cannot be encrypted or decrypted: {KEY_VARIABLE} holds no Fernet key. Make one with: "
            'python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"'
        )
