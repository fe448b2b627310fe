"""Bodies of requests: bounded before they are read, in size, in time and all together; and clients that hang up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from wasm_sandbox import ErrorKind
from wasm_sandbox.serve.problems import Problem, invalid_body, server_ends
from wasm_sandbox.serve.settings import Settings
from wasm_sandbox.serve.shapes import FREE_FIELDS
from wasm_sandbox.serve.visits import Visit, visit_of
from wasm_sandbox.web import read_large

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)

JSON = "application/json"
QUICK_BYTES = 64 << 10
"""Largest body that is parsed on the event loop."""
BYTES = "application/octet-stream"


class HungUp(Exception):
    """The client hung up: nobody waits for an answer."""


# Guarantees: no more than `Settings.bodies_bytes` of bodies are there, each from its reading to the end of its request.
# Locks: none; it is used on the event loop only.
class Bodies:
    """Reader of bodies.

    Args:
        settings: settings of the server.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._held = 0

    async def read(self, request: Request, media_type: str, most: int | None = None) -> bytes:
        """Body of a request; its room is kept until `release`.

        Args:
            request: the request.
            media_type: its type.
            most: its size at most, if that is less than all may have.

        Raises:
            Problem: if it is too large, of another type, comes too slowly, or there is no room for it.
            HungUp: if the client hung up.
        """
        self._check_type(request, media_type)
        visit = visit_of(request)
        most = min(self._settings.body_bytes, most or self._settings.body_bytes)
        self._reserve(_announced(request, most), visit)
        data = bytearray()
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                async for piece in request.stream():
                    data += piece
                    if len(data) > most:
                        raise _too_large(most)
                    if len(data) > visit.body_room:
                        self._reserve(len(data) - visit.body_room, visit)
        except TimeoutError:
            seconds = self._settings.body_seconds
            raise Problem("slow-request", f"the body did not come within {seconds:g} seconds") from None
        except ClientDisconnect:
            raise HungUp from None
        visit.bytes_in, visit.has_unread_body = len(data), False
        return bytes(data)

    async def read_json(self, request: Request, shape: type[Model]) -> Model:
        """Body of a request, JSON of a shape.

        Raises:
            Problem: as `read`; or if it does not fit.
            HungUp: if the client hung up.
        """
        data = await self.read(request, JSON)
        try:
            if len(data) <= QUICK_BYTES:
                return shape.model_validate_json(data, strict=True)
            async with visit_of(request).client.reading:
                return await asyncio.to_thread(read_large, data, shape, FREE_FIELDS)
        except ValidationError as error:
            raise invalid_body(error) from None

    def release(self, visit: Visit) -> None:
        """Give back the room of a body."""
        self._held -= visit.body_room
        visit.body_room = 0

    def _check_type(self, request: Request, media_type: str) -> None:
        given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        coding = request.headers.get("content-encoding", "identity").strip().lower()
        if given != media_type:
            raise Problem("unsupported-media-type", f"send {media_type} (Content-Type)")
        if coding != "identity":
            raise Problem("unsupported-media-type", "send the body as it is (no Content-Encoding)")

    def _reserve(self, size: int, visit: Visit) -> None:
        if self._held + size > self._settings.bodies_bytes:
            raise Problem("overloaded", "too many bodies are being read: try again later", retry_after=1)
        self._held += size
        visit.body_room += size


def _announced(request: Request, most: int) -> int:
    """Size that a request says, 0 if it says none.

    Raises:
        Problem: if that is too much.
    """
    text = request.headers.get("content-length", "0")
    size = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else most + 1
    if size > most:
        raise _too_large(most)
    return size


def _too_large(most: int) -> Problem:
    return Problem("body-too-large", f"the body may have {most} bytes at most")


async def until_hung_up(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do work as long as the client waits for it; the body has been read.

    Raises:
        HungUp: if the client hung up; the work is cancelled, and has ended.
        Problem: if the work was cancelled by another request, or the server ends.
    """
    task, over = asyncio.ensure_future(work), visit_of(request).over
    watch, end = asyncio.ensure_future(_hung_up(request)), asyncio.ensure_future(over.wait())
    try:
        await asyncio.wait((task, watch, end), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            if watch.done():
                raise HungUp
            await ended(task)  # a stream has something to say yet
        if task.cancelled():
            if over.is_set():
                raise server_ends()
            raise Problem("stopped", "the call was stopped, for its session was closed", kind=ErrorKind.CANCELLED)
        return task.result()
    finally:
        watch.cancel()
        end.cancel()
        await ended(task)


async def until_over(visit: Visit, work: Coroutine[Any, Any, T]) -> T:
    """Do work as long as the server goes on.

    Raises:
        Problem: if it ends; the work is cancelled, and has ended.
    """
    task, end = asyncio.ensure_future(work), asyncio.ensure_future(visit.over.wait())
    try:
        await asyncio.wait((task, end), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise server_ends()
        return task.result()
    finally:
        end.cancel()
        await ended(task)


async def ended(task: asyncio.Future[Any]) -> None:
    """Cancel a task, and wait until it has ended, however that is."""
    if not task.done():
        task.cancel()
        await asyncio.wait((task,))
    if not task.cancelled():
        task.exception()  # taken note of


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
