"""A memo of what hostile texts came to, bounded by their size and not by their number."""

from __future__ import annotations

from typing import Generic, TypeVar

from wasm_sandbox.forks import process_lock

K = TypeVar("K")
V = TypeVar("V")

_ENTRY_BYTES = 1000
"""What an entry takes besides its texts."""


def text_bytes(text: str) -> int:
    """Upper bound of the memory that a text takes."""
    return len(text) * (1 if text.isascii() else 4)


# Guarantees:
# - the sizes of all that is kept come to `most_bytes` at most; what was not used for longest is dropped (LRU);
# - what is larger alone is not kept.
# Locks: `_lock` guards the table; it is held for a look-up.
class SizedMemo(Generic[K, V]):
    """Memo of one process.

    Args:
        most_bytes: bound of the sizes of all that is kept.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._lock = process_lock(fork_waits=True)
        self._entries: dict[K, tuple[V, int]] = {}
        self._bytes = 0
        self.hits = 0
        self.misses = 0

    @property
    def kept_bytes(self) -> int:
        """Sizes of all that is kept."""
        return self._bytes

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def get(self, key: K) -> V | None:
        """What was kept under a key, if it is there."""
        with self._lock:
            found = self._entries.pop(key, None)
            if found is None:
                self.misses += 1
                return None
            self.hits += 1
            self._entries[key] = found  # the last one is the youngest
            return found[0]

    def put(self, key: K, value: V, size: int) -> None:
        """Keep a value of so many bytes."""
        size += _ENTRY_BYTES
        with self._lock:
            self._drop(key)
            if size > self.most_bytes:
                return
            self._entries[key] = (value, size)
            self._bytes += size
            while self._bytes > self.most_bytes:
                self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._entries.clear()
            self._bytes = self.hits = self.misses = 0

    def _drop(self, key: K) -> None:
        found = self._entries.pop(key, None)
        if found is not None:
            self._bytes -= found[1]
