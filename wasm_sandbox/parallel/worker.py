"""The worker process of an executor: it holds an engine, runs chunks of rows, and sends their results back.

Between the two go pickles. That is no door for a guest: the worker is as trustworthy as a process that runs guests
itself, for a guest that got out of WebAssembly would own that one, too. ``isolation="process"`` puts the guests of a
worker behind the second wall.
"""

from __future__ import annotations

import os
import pickle
import signal
import time
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import Any, NamedTuple

from wasm_sandbox import Sandbox, Tool, ToolExecutionResult

LEAVE = b""
"""Message after which a worker ends."""


class Chunk(NamedTuple):
    """Rows of arguments for one tool."""

    tool: Tool
    rows: Sequence[Mapping[str, Any]]
    options: Mapping[str, Any]
    """Options that win over those of the executor; and ``agent_state``."""


class Answer(NamedTuple):
    """What became of one row: a result, or an exception to raise."""

    result: ToolExecutionResult | None
    error: BaseException | None = None


class Answers(NamedTuple):
    """What became of the rows of a chunk, in their order."""

    rows: list[Answer]
    seconds: float
    """Time that they took in the worker."""


_NOTHING = Tool(name="nothing", source_code="def nothing():\n    pass\n", derived=True)


def serve(connection: Connection, of_others: Sequence[Connection], setup: bytes) -> None:
    """Run chunks until told to leave.

    Args:
        connection: this side of the pipe.
        of_others: the parent's ends of all pipes, if a fork has copied them: while a child has them open, no worker
            would hear that the parent is gone.
        setup: pickled `Sandbox`, whose options are those of all calls.
    """
    for other in of_others:
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group, and the parent decides
    inbox = SimpleQueue[bytes]()
    Thread(target=_receive, args=(connection, inbox), daemon=True, name="wasm-sandbox-inbox").start()
    try:
        sandbox = pickle.loads(setup)
        sandbox.run_tool(_NOTHING, {}, limits=None, functions=None, gate=None, on_event=None)
    except BaseException as error:
        connection.send_bytes(pickle.dumps(portable(error)))
        return
    connection.send_bytes(pickle.dumps(None))
    while message := inbox.get():
        connection.send_bytes(_answers(sandbox, message))


def _receive(connection: Connection, inbox: SimpleQueue[bytes]) -> None:
    """Hand messages on; end the process at once when the parent is gone, whatever runs in it."""
    try:
        while message := connection.recv_bytes():
            inbox.put(message)
    except (EOFError, OSError):
        os._exit(0)
    inbox.put(LEAVE)


def _answers(sandbox: Sandbox, message: bytes) -> bytes:
    began = time.perf_counter()
    try:
        chunk: Chunk = pickle.loads(message)
    except Exception as error:  # a class of the caller's that this process cannot import: every row's fault
        return pickle.dumps(portable(error))
    rows = [_answer(sandbox, chunk, row) for row in chunk.rows]
    seconds = time.perf_counter() - began
    try:
        return pickle.dumps(Answers(rows, seconds))
    except Exception:  # one that nests too deeply, or has an attribute that cannot be sent
        return pickle.dumps(Answers([_sendable(row) for row in rows], seconds))


def _answer(sandbox: Sandbox, chunk: Chunk, row: Mapping[str, Any]) -> Answer:
    try:
        return Answer(sandbox.run_tool(chunk.tool, row, **chunk.options))
    except Exception as error:
        return Answer(None, portable(error))


def _sendable(answer: Answer) -> Answer:
    try:
        pickle.dumps(answer)
    except Exception as error:
        sentence = f"the result of this row cannot be sent to the calling process: {error}"
        return Answer(None, RuntimeError(sentence))
    return answer


def portable(error: BaseException) -> BaseException:
    """Exception that survives a pickle, with its traceback as a note; one that does not becomes a `RuntimeError`."""
    error.add_note("in a worker process:\n" + "".join(traceback.format_exception(error)).rstrip())
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
