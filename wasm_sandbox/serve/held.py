"""Sessions of clients: each its owner's alone, bounded in number, and kept over an end of the server if asked for."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from wasm_sandbox import AsyncSandbox, AsyncSession, Limits, SandboxError, SessionPoint, SnapshotError
from wasm_sandbox.serve.calls import Desk
from wasm_sandbox.serve.problems import Problem
from wasm_sandbox.serve.shapes import SessionInfo, SessionShape
from wasm_sandbox.serve.shelf import Alias, Shelf, ShelfEntry
from wasm_sandbox.serve.tokens import DEFAULT_IMAGE, Client
from wasm_sandbox.serve.visits import Log

MAX_POINTS = 16
"""Most points of a session; the oldest one goes first."""
MAX_WAITING = 16
"""Most calls that wait for one session."""
SWEEP_SECONDS = 5.0

Make = Callable[[], Awaitable[AsyncSession]]


@dataclass(eq=False)
class Held:
    """Session of a client."""

    client: Client
    shape: SessionShape
    """As it was asked for, its files and variables left out."""
    limits: Limits
    session: AsyncSession
    expires_at: float
    """End of its life, on the clock of `time.time`."""
    id: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    points: dict[str, SessionPoint] = field(default_factory=dict)
    calls: int = 0
    waiting: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    task: asyncio.Task[object] | None = None
    """What holds it at present."""
    alias: Alias | None = None
    directory: str | None = None
    """Directory that it began in, of a context of E2B's."""

    @property
    def image(self) -> str | None:
        """Name of its image; None for the default one."""
        return self.shape.image

    def info(self) -> SessionInfo:
        """What its owner is told."""
        return SessionInfo(
            id=self.id,
            image=self.image or DEFAULT_IMAGE,
            calls=self.calls,
            is_busy=self.lock.locked(),
            points=list(self.points),
            limits=self.limits,
        )

    def within(self, asked: Limits | None) -> Limits:
        """Limits of a call: none above those of the session.

        Raises:
            Problem: if it asks for more.
        """
        if asked is None:
            return self.limits
        ceiling = Client(self.client.name, self.limits, max_sessions=0)
        return ceiling.within(self.limits.model_copy(update={n: getattr(asked, n) for n in asked.model_fields_set}))


# Guarantees:
# - a session is found by its owner only; for anybody else it is unknown;
# - calls of a session follow one another; `MAX_WAITING` wait at most;
# - what was closed, by whomever, is forgotten within `SWEEP_SECONDS`;
# - a session of an earlier server stays on its shelf until it is whole in memory, whoever asked for it and hung up.
# Locks: `Held.lock`, held through a call; all else is used on the event loop only.
class Sessions:
    """Sessions of all clients.

    Args:
        desk: what all handlers share.
        log: log.

    Raises:
        StoreError: if the data directory cannot be used, or another server uses it.
    """

    def __init__(self, desk: Desk, log: Log) -> None:
        self._desk, self._log = desk, log
        self._held: dict[str, Held] = {}
        self._coming: dict[Client, int] = {}
        """Sessions that are being made."""
        directory = desk.settings.data_directory
        self._shelf = None if directory is None else Shelf(directory)
        self._kept = {} if self._shelf is None else self._shelf.entries()
        """Sessions of an earlier server, until they are used."""
        self._taking: dict[str, asyncio.Task[Held | None]] = {}
        """Those that are on their way from the shelf."""

    def __len__(self) -> int:
        return len(self._held)

    # -- a server's life -------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Forget what was closed, for ever."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self._forget_closed()

    def _forget_closed(self) -> None:
        for held in [held for held in self._held.values() if held.session.is_closed]:
            del self._held[held.id]

    async def put_away(self) -> None:
        """Write all sessions to the data directory if there is one, and close them."""
        if self._taking:
            await asyncio.wait([*self._taking.values()])
        for held in list(self._held.values()):
            if self._shelf is not None and not held.session.is_closed:
                await self._write(self._shelf, held)
            await self._end(held)
        self.close_shelf()

    def close_shelf(self) -> None:
        """Let another server use the data directory."""
        if self._shelf is not None:
            self._shelf.close()

    async def _write(self, shelf: Shelf, held: Held) -> None:
        await self._stop(held)
        try:
            async with asyncio.timeout(self._desk.settings.drain_seconds), held.lock:
                blob = await held.session.dump(held.client.key)
            entry = ShelfEntry(
                id=held.id,
                client=held.client.name,
                shape=held.shape,
                limits=held.limits,
                calls=held.calls,
                expires_at=held.expires_at,
                alias=held.alias,
                directory=held.directory,
            )
            await asyncio.to_thread(shelf.write, entry, blob)
        except (SandboxError, OSError, TimeoutError) as error:
            self._log.write("session lost", client=held.client.name, why=type(error).__name__)

    # -- making ----------------------------------------------------------------------------------

    async def create(self, client: Client, shape: SessionShape) -> Held:
        """Make a session.

        Raises:
            Problem: if the client may not have it.
            SandboxError: if it cannot be made.
        """
        box, limits = self._desk.box(client, shape)
        seconds = {"idle_seconds": shape.idle_seconds, "lifetime_seconds": shape.lifetime_seconds}
        return await self._make(client, shape, limits, lambda: box.session(**seconds))

    async def load(self, client: Client, shape: SessionShape, blob: bytes) -> Held:
        """Make a session out of bytes that `Held.session` was dumped to.

        Raises:
            Problem: if the client may not have it.
            SnapshotError: if they are damaged, of another image, or of another token.
        """
        box, limits = self._desk.box(client, shape)
        return await self._make(client, shape, limits, lambda: self._loaded(box, client, shape, blob))

    async def _loaded(self, box: AsyncSandbox, client: Client, shape: SessionShape, blob: bytes) -> AsyncSession:
        return await box.load_session(
            blob, client.key, idle_seconds=shape.idle_seconds, lifetime_seconds=shape.lifetime_seconds
        )

    async def fork(self, held: Held) -> Held:
        """Make another session that is what one is now; the caller holds it.

        Raises:
            Problem: if the client has too many.
        """
        fork = await self._make(held.client, held.shape, held.limits, held.session.fork)
        fork.points = dict(held.points)
        return fork

    async def _make(self, client: Client, shape: SessionShape, limits: Limits, make: Make) -> Held:
        async with self._desk.admission.place(client):
            self._check_room(client)
            return await self._made(client, shape, limits, make)

    async def _made(self, client: Client, shape: SessionShape, limits: Limits, make: Make) -> Held:
        self._coming[client] = self._coming.get(client, 0) + 1
        # Not cut short: a session that is made for nobody would be there until its time is over.
        making = asyncio.ensure_future(make())
        try:
            session = await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(_closed_when_made)
            raise
        finally:
            self._coming[client] -= 1
            if not self._coming[client]:
                del self._coming[client]
        kept = shape.model_copy(update={"files": None if shape.files is None else {}, "env": None})
        held = Held(client, kept, limits, session, time.time() + shape.lifetime_seconds)
        self._held[held.id] = held
        return held

    def _check_room(self, client: Client) -> None:
        self._desk.admission.check()
        self._forget_closed()
        coming = self._coming.get(client, 0)
        own = coming + sum(1 for held in self._held.values() if held.client is client)
        if own >= client.max_sessions:
            raise Problem("too-many-sessions", f"there are {own} sessions of yours: close some of them", retry_after=60)
        if len(self._held) + sum(self._coming.values()) >= self._desk.settings.sessions:
            raise Problem("too-many-sessions", "there are too many sessions here: try again later", retry_after=60)

    # -- use -------------------------------------------------------------------------------------

    def of(self, client: Client) -> list[Held]:
        """Sessions of a client that are in memory."""
        self._forget_closed()
        return [held for held in self._held.values() if held.client is client]

    async def find(self, client: Client, session_id: str) -> Held:
        """Session of a client.

        Raises:
            Problem: if there is none, or its time is over.
            SnapshotError: if it was kept, and its bytes are damaged.
        """
        self._forget_closed()
        held = self._held.get(session_id)
        if held is None:
            held = await self._taken_down(client, session_id)
        if held is None or held.client is not client:
            raise Problem("unknown-session", "there is no session of this id, or its time is over: make another one")
        return held

    async def called(self, client: Client, alias: Alias) -> Held | None:
        """Session of a client that is called so, None if there is none.

        Raises:
            Problem: if it was kept, and may not be loaded now.
            SnapshotError: if it was kept, and its bytes are damaged.
        """
        self._forget_closed()
        for held in self._held.values():
            if held.client is client and held.alias == alias:
                return held
        for entry in self._kept.values():
            if entry.client == client.name and entry.alias == alias:
                return await self._taken_down(client, entry.id)
        return None

    def named(self, client: Client, protocol: str) -> dict[str, str | None]:
        """What the sessions of a client are called in a protocol, and the directory that each began in."""
        self._forget_closed()
        now = time.time()
        found: list[Held | ShelfEntry] = [held for held in self._held.values() if held.client is client]
        found += [one for one in self._kept.values() if one.client == client.name and one.expires_at > now]
        return {one.alias.name: one.directory for one in found if one.alias and one.alias.protocol == protocol}

    async def _taken_down(self, client: Client, session_id: str) -> Held | None:
        """Session of an earlier server, which is this one's from now on."""
        entry = self._kept.get(session_id)
        if entry is None or entry.client != client.name or self._shelf is None:
            return None
        taking = self._taking.get(session_id)
        if taking is None:
            taking = asyncio.ensure_future(self._take_down(self._shelf, client, entry))
            self._taking[session_id] = taking
            taking.add_done_callback(lambda task: self._taken(session_id, task))
        return await asyncio.shield(taking)

    def _taken(self, session_id: str, task: asyncio.Task[Held | None]) -> None:
        del self._taking[session_id]
        task.cancelled() or task.exception()  # whoever waited for it was told

    async def _take_down(self, shelf: Shelf, client: Client, entry: ShelfEntry) -> Held | None:
        left = entry.expires_at - time.time()
        blob = await asyncio.to_thread(shelf.read, entry.id) if left > 0 else None
        if blob is None:
            await self._forget_kept(shelf, entry)
            return None
        shape = entry.shape.model_copy(update={"lifetime_seconds": left, "limits": None})
        box, _ = self._desk.box_of(client, shape.image, entry.limits, files=shape.files)
        try:
            held = await self._make(client, shape, entry.limits, lambda: self._loaded(box, client, shape, blob))
        except SnapshotError:
            await self._forget_kept(shelf, entry)
            raise
        del self._held[held.id]
        held.id, held.calls, held.alias, held.directory = entry.id, entry.calls, entry.alias, entry.directory
        self._held[held.id] = held
        await self._forget_kept(shelf, entry)
        return held

    async def _forget_kept(self, shelf: Shelf, entry: ShelfEntry) -> None:
        del self._kept[entry.id]
        await asyncio.to_thread(shelf.remove, entry.id)

    @asynccontextmanager
    async def using(self, held: Held) -> AsyncIterator[AsyncSession]:
        """Hold a session for one call.

        Raises:
            Problem: if too many wait for it.
        """
        if held.waiting >= MAX_WAITING:
            raise Problem("session-busy", f"{held.waiting} calls wait for this session: try again later", retry_after=1)
        held.waiting += 1
        try:
            await held.lock.acquire()
        finally:
            held.waiting -= 1
        held.task = asyncio.current_task()
        try:
            yield held.session
        finally:
            held.task = None
            held.lock.release()

    async def close(self, held: Held) -> None:
        """Close a session; its call that is under way is stopped."""
        self._held.pop(held.id, None)
        await self._end(held)

    async def _stop(self, held: Held) -> None:
        if (task := held.task) is not None:
            task.cancel()
            await asyncio.wait((task,), timeout=self._desk.settings.drain_seconds)

    async def _end(self, held: Held) -> None:
        await self._stop(held)
        with suppress(SandboxError):
            await held.session.close()

    # -- points ----------------------------------------------------------------------------------

    async def checkpoint(self, held: Held) -> str:
        """Point of its life; its name. The caller holds the session."""
        name = secrets.token_hex(6)
        async with self._desk.admission.place(held.client):
            held.points[name] = await held.session.checkpoint()
        while len(held.points) > MAX_POINTS:
            del held.points[next(iter(held.points))]
        return name

    async def rollback(self, held: Held, name: str) -> None:
        """Take it back to a point. The caller holds the session.

        Raises:
            Problem: if there is no such point.
        """
        point = held.points.get(name)
        if point is None:
            known = ", ".join(held.points) or "none"
            raise Problem("invalid-body", f"point: there is no such point of this session (it has: {known})")
        async with self._desk.admission.place(held.client):
            await held.session.rollback(point)

    async def dump(self, held: Held) -> bytes:
        """Bytes of it. The caller holds the session."""
        async with self._desk.admission.place(held.client):
            return await held.session.dump(held.client.key)


def _closed_when_made(making: asyncio.Future[AsyncSession]) -> None:
    """Close a session that nobody waited for."""
    if not making.cancelled() and making.exception() is None:
        task = asyncio.ensure_future(making.result().close())
        _closing.add(task)
        task.add_done_callback(_closing.discard)


_closing: set[asyncio.Future[None]] = set()
"""What is under way: a loop knows its tasks weakly."""
