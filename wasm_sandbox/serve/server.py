"""The server's life: it listens, serves, drains, and puts sessions away."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from wasm_sandbox.serve.app import App
from wasm_sandbox.serve.settings import Settings
from wasm_sandbox.serve.visits import Log
from wasm_sandbox.web import Bounds, Server, listen

SPARE_SECONDS = 10.0
"""Time in which a request is refused whose body did not come, before its connection is ended."""


def server_of(app: App, ready: Callable[[str], object] | None = None) -> Server:
    """Server of an application.

    Args:
        app: application.
        ready: called with the server's address when it listens.
    """
    settings = app.settings
    bounds = Bounds(
        connections=settings.connections,
        head_seconds=settings.head_seconds,
        body_seconds=settings.body_seconds + SPARE_SECONDS,
        write_seconds=settings.write_seconds,
        end_seconds=settings.drain_seconds,
    )
    return Server(app, bounds, app.drain, ready)


def serve(settings: Settings, *, log: Log | None = None, ready: Callable[[str], object] | None = None) -> None:
    """Serve until a signal ends it: calls under way end, new ones get 503, sessions are put away.

    Args:
        settings: settings.
        log: log; by default to standard error.
        ready: called with the server's address when it listens.

    Raises:
        HostError: if the address cannot be listened at.
        StoreError: if the data directory cannot be used.
    """
    app = App(settings, log)
    try:
        with listen(settings.host, settings.port) as listens, _taken_down(app.log):
            server_of(app, ready).run([listens])
    finally:
        app.sessions.close_shelf()


@contextmanager
def _taken_down(log: Log) -> Iterator[None]:
    """Take down what uvicorn says in our log, without tracebacks, whose words may hold values of clients."""

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            log.write("server", said=record.getMessage().strip())

    logger, lines = logging.getLogger("uvicorn.error"), Lines()
    logger.addHandler(lines)
    try:
        yield
    finally:
        logger.removeHandler(lines)
