"""Operations: what the server answers to, each written down once, for its routes and for `/openapi.json`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """Operation.

    Attributes:
        method: HTTP method.
        path: path, with ``{names}`` of its parts.
        name: its name, also in logs.
        summary: what it does, in a few words.
        tag: group of operations.
        handler: what answers.
        takes: shape of the body, or its media type.
        gives: shape of the answer's JSON, or its media type.
        status: status of success.
        query: name of each parameter of the query -> its JSON schema.
        problems: names of problems, besides those that every operation of its kind has.
        streams: whether it streams events if asked for.
        is_open: whether it needs no token.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    name: str
    summary: str
    tag: str
    handler: Handler
    takes: type[BaseModel] | str | None = None
    gives: type[BaseModel] | type[str] | str | None = None
    status: int = 200
    query: dict[str, dict[str, object]] = field(default_factory=dict)
    problems: Sequence[str] = ()
    streams: bool = False
    is_open: bool = False
