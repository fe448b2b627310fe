"""Tokens: who may call, within which limits, in which images, and with how much fuel a minute."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from wasm_sandbox import ErrorKind, Limits
from wasm_sandbox.serve.problems import Problem
from wasm_sandbox.web import TokenEntry, holder_of, read_tokens

DEFAULT_IMAGE = "default"
"""Name of the image that a request gets which names none."""

UNHEARD_RATE = 2_000_000_000
"""Units of fuel a second that a run is charged whose end nobody heard: more than any guest does."""

_HELD_TO_CEILING = (
    "fuel", "memory_bytes", "timeout_seconds", "output_bytes", "result_bytes", "files_bytes", "file_count"
)  # fmt: skip


class Budget:
    """Fuel that a client may use, refilled evenly and full after a minute.

    A call begins while anything is left, and is charged when it has ended: what it took too much is worked off first.
    So over time nobody gets more than the rate, whatever its calls are; and fuel does not depend on the machine's load.

    Args:
        per_minute: units of fuel a minute.
        clock: seconds that pass.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._most, self._clock = per_minute / 60, float(per_minute), clock
        self._left, self._at = self._most, clock()

    def left(self) -> float:
        """Units that are left; below 0 if there is a debt."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._at) * self._rate)
        self._at = now
        return self._left

    def wait_seconds(self) -> float:
        """Time until a call may begin; 0 if it may now."""
        left = self.left()
        return 0.0 if left > 0 else (1 - left) / self._rate

    def charge(self, fuel: float) -> None:
        """Take what a call used."""
        self._left = self.left() - fuel


class Client:
    """Whoever calls: the owner of a token, or everybody on this machine.

    Attributes:
        name: name in logs.
        limits: ceiling of the limits of its calls.
        images: names of the images that it may use, or None for all.
        budget: fuel that it may use, if that is bounded.
        max_calls: most of its calls that are under way at the same time, or None.
        max_sessions: most sessions that it has.
        may_read_metrics: whether it may read the server's metrics.
        key: key that dumps of its sessions are signed with; None without a token.
        reading: held while a large body of it is parsed: one at a time, so that other clients have threads, too.
    """

    def __init__(
        self,
        name: str,
        limits: Limits,
        *,
        images: Sequence[str] | None = None,
        fuel_per_minute: int | None = None,
        max_calls: int | None = None,
        max_sessions: int,
        may_read_metrics: bool = False,
        key: bytes | None = None,
    ) -> None:
        self.name, self.limits, self.max_calls, self.max_sessions = name, limits, max_calls, max_sessions
        self.images = None if images is None else frozenset(images)
        self.budget = None if fuel_per_minute is None else Budget(fuel_per_minute)
        self.may_read_metrics, self.key = may_read_metrics, key
        self.reading = asyncio.Lock()

    def check_image(self, image: str | None) -> None:
        """Refuse an image that is not the client's.

        Raises:
            Problem: if it is not.
        """
        if self.images is not None and (image or DEFAULT_IMAGE) not in self.images:
            raise Problem("image-forbidden", f"image: this token may use {', '.join(sorted(self.images)) or 'none'}")

    def within(self, asked: Limits | None) -> Limits:
        """Limits of a call: those that it asks for, the defaults for the rest, none above the ceiling.

        Raises:
            Problem: if it asks for more.
        """
        given = {} if asked is None else {name: getattr(asked, name) for name in asked.model_fields_set}
        usual = Limits.default()
        for name in _HELD_TO_CEILING:
            most = getattr(self.limits, name)
            if name not in given:
                given[name] = _smaller(getattr(usual, name), most)
            elif most is not None and (given[name] is None or given[name] > most):
                raise Problem(
                    "over-ceiling",
                    f"limits.{name}: at most {most:g} here"
                    if isinstance(most, float)
                    else f"limits.{name}: at most {most} here",
                    kind=ErrorKind.BAD_ARGUMENTS,
                )
        return Limits(**given)

    def check_budget(self) -> None:
        """Refuse a call without fuel.

        Raises:
            Problem: if none is left.
        """
        wait = 0.0 if self.budget is None else self.budget.wait_seconds()
        if wait:
            raise Problem(
                "over-budget",
                "the fuel of this minute is used up: wait, or ask for a larger fuel_per_minute",
                kind=ErrorKind.OUT_OF_FUEL,
                retry_after=wait,
            )

    def charge(self, fuel: int | None, limits: Limits, seconds: float) -> None:
        """Charge a call.

        Args:
            fuel: fuel that it used, or None if nobody heard.
            limits: its limits, whose fuel is the most that it can have used.
            seconds: time that it took.
        """
        if self.budget is None:
            return
        if fuel is None:
            assert limits.fuel is not None  # a client with a budget has a ceiling
            fuel = min(limits.fuel, round(seconds * UNHEARD_RATE))
        self.budget.charge(fuel)


def _smaller(one: Any, other: Any) -> Any:
    return other if one is None else one if other is None else min(one, other)


class Tokens:
    """Clients by their tokens, of which only digests are kept.

    Args:
        clients: SHA-256 of a token -> its owner.
    """

    def __init__(self, clients: dict[bytes, Client]) -> None:
        self._clients = clients

    @classmethod
    def read(cls, path: Path) -> Tokens:
        """Read a token file (docs/serve.md).

        Raises:
            ValueError: if it cannot be read, or an entry is wrong; the message names it, and never a token.
        """
        return cls({entry.digest: _client(entry) for entry in read_tokens(path)})

    @property
    def clients(self) -> list[Client]:
        """All clients."""
        return list(self._clients.values())

    def find(self, token: str) -> Client | None:
        """Owner of a token; in a time that does not depend on which of its characters are right."""
        return holder_of(token, self._clients)


def _client(entry: TokenEntry) -> Client:
    return Client(
        entry.name,
        entry.limits,
        images=entry.images,
        fuel_per_minute=entry.fuel_per_minute,
        max_calls=entry.max_calls,
        max_sessions=entry.max_sessions,
        may_read_metrics=entry.metrics,
        key=hmac.digest(entry.digest, b"wasm-sandbox sessions", "sha256"),
    )
