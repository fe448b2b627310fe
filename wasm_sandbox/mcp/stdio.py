"""A server for the one client that started it, over its standard input and output."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, BinaryIO

import anyio
import mcp_types as types
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage

from wasm_sandbox.mcp.service import Service

MAX_MESSAGE_BYTES = 64 << 20

_log = logging.getLogger("wasm_sandbox.mcp")

Read = MemoryObjectReceiveStream[SessionMessage | Exception]
Write = MemoryObjectSendStream[SessionMessage]


def serve_stdio(service: Service) -> None:
    """Serve until the client closes this process's standard input; then what runs is stopped."""
    asyncio.run(_serve(service))


async def _serve(service: Service) -> None:
    async with _wire() as (read, write):
        await service.server.run(read, write, service.server.create_initialization_options())


def _wire() -> AbstractAsyncContextManager[tuple[Any, Any]]:
    """Messages of the client, and to it: over the event loop itself where it can, else by the SDK's threads."""
    if sys.platform == "win32" or not (_is_pipe(0) and _is_pipe(1)):
        return stdio_server()
    return _pipes()


def _is_pipe(descriptor: int) -> bool:
    """Whether it can be made non-blocking with no harm to other programs, as a terminal could not."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


# The problem: each message of the SDK's own transport takes three turns of threads, half of the time of a short call.
# So the event loop reads and writes the pipes itself. As there, what prints to standard output does not get between the
# messages: it goes to standard error, and standard input is empty.
@asynccontextmanager
async def _pipes() -> AsyncIterator[tuple[Read, Write]]:
    loop = asyncio.get_running_loop()
    source, sink = _taken()
    reader = asyncio.StreamReader(limit=MAX_MESSAGE_BYTES)
    listening, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), source)
    unread = asyncio.StreamReader()
    transport, protocol = await loop.connect_write_pipe(lambda: asyncio.StreamReaderProtocol(unread), sink)
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    incoming, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
    async with anyio.create_task_group() as group:
        group.start_soon(_receive, reader, incoming)
        group.start_soon(_send, outgoing, writer)
        yield read, write
        group.cancel_scope.cancel()
    listening.close()
    transport.close()


def _taken() -> tuple[BinaryIO, BinaryIO]:
    """Standard input and output, in whose places there are others now."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return source, sink


async def _receive(reader: asyncio.StreamReader, incoming: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
    async with incoming:
        while line := await _line(reader):
            message: SessionMessage | Exception
            try:
                message = SessionMessage(types.jsonrpc_message_adapter.validate_json(line, by_name=False))
            except ValueError as error:
                message = error
            await incoming.send(message)


async def _line(reader: asyncio.StreamReader) -> bytes:
    """Next line; empty at the end, and if it is too long, for nobody knows what it would ask for."""
    try:
        return await reader.readline()
    except ValueError:
        _log.error("the client is left: a message of it is longer than %d bytes", MAX_MESSAGE_BYTES)
        return b""


async def _send(outgoing: MemoryObjectReceiveStream[SessionMessage], writer: asyncio.StreamWriter) -> None:
    async with outgoing:
        async for message in outgoing:
            text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
            writer.write(text.encode() + b"\n")
            try:
                await writer.drain()
            except ConnectionError:  # the client is gone: the end of its messages comes, too
                return
