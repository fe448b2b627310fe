"""Results of runs as tool results: text for a reader, the same as JSON, and pictures."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

import mcp_types as types
from pydantic_core import to_json

from wasm_sandbox import CodeResult, ToolError, ToolExecutionResult

MAX_BYTES = 1_000_000
"""Size of a result as JSON in ASCII, about: the SDK's own client takes a MiB, and no model reads as much."""

MAX_READ_BYTES, MAX_PART_BYTES = 200_000, 100_000
"""Size of all that is for a reader, and of output, displays, a traceback or a ``repr``."""

MAX_DEPTH = 60
"""Deepest nesting of a value that goes as JSON: parsers of clients give up at some hundreds."""

QUICK_VALUES, QUICK_CHARACTERS = 2_000, 200_000
"""Most parts of a result that is read on the event loop."""

_SIGNATURES = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "image/webp": (b"RIFF",),
}
"""Pictures that models take, and how each begins: one that is none would make a model refuse the whole conversation."""

_CONTAINERS = (dict, list, tuple, set, frozenset)
_READABLE = ("text/markdown", "text/plain", "text/html")

OUTPUT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "status": {"enum": ["success", "error"]},
        "value": {"description": "Value of the last expression, or of the tool; what JSON lacks is text."},
        "value_is_text": {"type": "boolean", "description": "Whether it is too large or too deep, and given as text."},
        "text": {"type": ["string", "null"], "description": "repr of the value, the beginning of a long one."},
        "stdout": {"type": "string"},
        "stderr": {"type": "string"},
        "displays": {
            "type": "array",
            "items": {"type": "object", "additionalProperties": {"type": "string"}},
            "description": "What was displayed, MIME type -> text; pictures are content of their own.",
        },
        "error": {
            "type": ["object", "null"],
            "properties": {
                "kind": {"type": "string"},
                "message": {"type": "string"},
                "exception_name": {"type": ["string", "null"]},
                "traceback": {"type": ["string", "null"]},
            },
            "required": ["kind", "message"],
        },
        "session": {"type": "string"},
        "session_is_new": {"type": "boolean", "description": "Whether the session began with this call."},
        "session_rolled_back": {
            "type": "boolean",
            "description": "Whether a limit took the session back to what it was before this call.",
        },
    },
    "required": ["status"],
}


class Refused(Exception):
    """Call that is not run; the message is for the client.

    Args:
        kind: word for programs.
        message: what is wrong, and what to do.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def failure(kind: str, message: str) -> types.CallToolResult:
    """Tool result of a call that was not run."""
    error = {"kind": kind, "message": _Room(MAX_PART_BYTES).text(message)}
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=error["message"])],
        structured_content={"status": "error", "error": error},
        is_error=True,
    )


class _Room:
    """Room that is left in a result, in bytes of JSON in ASCII."""

    def __init__(self, size: int) -> None:
        self._left = size

    def text(self, text: str, most: int = MAX_PART_BYTES) -> str:
        """Text without halves of surrogate pairs, which no JSON of a client holds; the beginning of one that is long.

        Args:
            text: the text.
            most: its size at most.
        """
        most, kept = max(0, min(most, self._left)), text
        while (size := _size(kept := _whole(kept[:most]))) > most:
            kept = kept[: len(kept) * most // size]
        self._left -= size
        return kept if len(kept) >= len(text) else f"{kept}\n... ({len(text) - len(kept):,} characters more)"

    def has(self, size: int) -> bool:
        """Whether there is room of some size, which is taken then."""
        if size > self._left:
            return False
        self._left -= size
        return True


def _whole(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _size(value: Any) -> int:
    """Size as JSON in ASCII, but for the two brackets or quotes."""
    return len(json.dumps(value)) - 2


def answer(
    result: CodeResult | ToolExecutionResult, *, session: str | None = None, is_new: bool = False
) -> types.CallToolResult:
    """Tool result of a run.

    Args:
        result: result of the run.
        session: name of the session that it ran in, if it did.
        is_new: whether that began with this call.
    """
    room, reader = _Room(MAX_BYTES - MAX_READ_BYTES), _Room(MAX_READ_BYTES)
    structured: dict[str, Any] = {"status": result.status, "error": _error(result.error, room)}
    structured |= {"stdout": _joined(result.stdout, room), "stderr": _joined(result.stderr, room)}
    pictures: list[types.ImageContent] = []
    if isinstance(result, CodeResult):
        value, shown = result.value, None if result.text is None else room.text(result.text)
        structured["text"] = shown
        if result.displays:
            structured["displays"] = [_display(bundle, pictures, room) for bundle in result.displays]
    else:
        value, shown = result.func_return, None
    notes = []
    if session is not None:
        structured |= {"session": session, "session_is_new": is_new, "session_rolled_back": result.rolled_back}
        if is_new:
            notes.append(reader.text(f"(The session {session} began with this call.)"))
        if result.rolled_back:
            notes.append(reader.text(f"(The session {session} is what it was before this call.)"))
    structured["value"], is_json = (None, True) if result.error else json_value(value, room)
    structured["value_is_text"] = not is_json
    parts = _parts_to_read(structured, is_code=isinstance(result, CodeResult))
    parts = [reader.text(part, MAX_READ_BYTES) for part in parts if part]
    content: list[types.ContentBlock] = [types.TextContent(type="text", text=part) for part in [*parts, *notes]]
    return types.CallToolResult(
        content=[*content, *pictures], structured_content=structured, is_error=result.error is not None
    )


def _parts_to_read(structured: dict[str, Any], *, is_code: bool) -> list[str]:
    """Parts of a result in the order in which one reads them: output, displays, error or value."""
    error = structured["error"]
    traceback = error["traceback"] if error else None
    parts = [structured["stdout"]]
    parts += [_readable(bundle) for bundle in structured.get("displays", ())]
    if structured["stderr"] and structured["stderr"] != traceback:
        parts.append(f"stderr:\n{structured['stderr']}")
    if error:
        parts.append(traceback or f"{error['kind']}: {error['message']}")
    elif is_code:
        parts.append(structured["text"] if structured["text"] not in (None, "None") else "")
    else:
        found = structured["value"]
        parts.append(found if isinstance(found, str) else json.dumps(found, ensure_ascii=False))
    return parts if any(parts) else ["(no output)"]


def is_quick(result: CodeResult | ToolExecutionResult) -> bool:
    """Whether `answer` takes no more than a few milliseconds."""
    value = result.value if isinstance(result, CodeResult) else result.func_return
    level, values, characters = [value], 0, sum(map(len, (*(result.stdout or ()), *(result.stderr or ()))))
    if isinstance(result, CodeResult):
        characters += sum(len(data) for bundle in result.displays for data in bundle.values())
    while level:
        values += len(level)
        characters += sum(len(held) for held in level if isinstance(held, str | bytes))
        if values > QUICK_VALUES or characters > QUICK_CHARACTERS:
            return False
        level = [part for held in level for part in _parts(held)]
    return True


def json_value(value: Any, room: _Room) -> tuple[Any, bool]:
    """Value of a guest as JSON that any client can read, and true; or its text and false, where there is no such."""
    if not _is_deep(value):
        try:
            text = to_json(value, bytes_mode="base64", inf_nan_mode="strings", fallback=str)
            found = json.loads(text) if len(text) <= MAX_BYTES else None
            if found is not None and room.has(_size(found)):
                return found, True
        except Exception:  # halves of surrogate pairs, integers of too many digits, keys that are no text, ...
            pass
    if value is None:
        return None, True
    return room.text(_repr(value)), False


def _is_deep(value: Any) -> bool:
    """Whether it is nested too deeply; parts that are shared count each time, and the decoder bounds how often."""
    level, depth = [value], 0
    while level := [held for held in level if isinstance(held, _CONTAINERS)]:
        if depth == MAX_DEPTH:
            return True
        level = [part for held in level for part in _parts(held)]
        depth += 1
    return False


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.values()]
    return [*value] if isinstance(value, _CONTAINERS) else []


def _repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:  # too deep, or an integer of too many digits
        return f"<{type(value).__name__}: {error}>"


def _error(error: ToolError | None, room: _Room) -> dict[str, Any] | None:
    if error is None:
        return None
    return {
        "kind": str(error.kind),
        "message": room.text(error.message),
        "exception_name": None if error.exception_name is None else room.text(error.exception_name),
        "traceback": None if error.traceback is None else room.text(error.traceback),
    }


def _display(bundle: dict[str, str | bytes], pictures: list[types.ImageContent], room: _Room) -> dict[str, str]:
    """Bundle without its picture, which is added to the others."""
    rest, note = {}, ""
    for kind, data in bundle.items():
        picture = _picture(kind, data)
        if picture is not None and room.has(len(picture.data)):
            pictures.append(picture)
        elif picture is not None:
            note = f"({kind} of {len(data):,} bytes, too large to be sent)"
        elif isinstance(data, str) and kind not in _SIGNATURES:
            rest[room.text(kind)] = room.text(data)
    return {**rest, "text/plain": note} if note else rest


def _picture(kind: str, data: str | bytes) -> types.ImageContent | None:
    signatures = _SIGNATURES.get(kind)
    if signatures is None:
        return None
    if isinstance(data, str):  # as in notebooks
        try:
            data = base64.b64decode(data)
        except (binascii.Error, ValueError):
            return None
    if not data.startswith(signatures):
        return None
    return types.ImageContent(type="image", data=base64.b64encode(data).decode("ascii"), mime_type=kind)


def _readable(bundle: dict[str, str]) -> str:
    return next((bundle[kind] for kind in _READABLE if kind in bundle), "")


def _joined(lines: list[str] | None, room: _Room) -> str:
    return room.text("".join(lines or ()))
