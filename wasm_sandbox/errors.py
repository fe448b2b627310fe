"""Exceptions for callers. A guest's own failure raises nothing: it is in the result."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

_NO_DESCRIPTOR = errno.EMFILE, errno.ENFILE
_NO_MAPPING = os.strerror(errno.ENOMEM), "failed to map segment"
"""What the C library says when it cannot load a library for want of memory."""


class SandboxError(Exception):
    """Base of every exception of this library."""


class InvalidEnvironment(SandboxError, ValueError):
    """An environment variable for the guest has a wrong name or value; the message names it, never its value."""


class InvalidFiles(SandboxError, ValueError):
    """Files or mounts for the guest have a wrong path, name or size; the message names the path."""


class InvalidNetwork(SandboxError, ValueError):
    """A network policy or a secret of it is wrong; the message names the entry, never a secret's value."""


class UnsupportedIsolation(SandboxError, ValueError):
    """There is no such isolation, or a worker process cannot do what is asked for."""


class UnsupportedToolError(SandboxError, ValueError):
    """No script can be written for the tool, whatever its arguments are.

    Attributes:
        in_source: whether its source is at fault.
    """

    def __init__(self, message: str, in_source: bool = False) -> None:
        super().__init__(message)
        self.in_source = in_source


class SessionError(SandboxError, RuntimeError):
    """A session cannot be used: it is closed, its time is over, or there are too many; the message says which."""


class SnapshotError(SandboxError, ValueError):
    """A snapshot of a session is damaged, of another image, or not signed with this key."""


class HostError(SandboxError, RuntimeError):
    """The host cannot run guests at all; the message says what to do."""


class ArtifactError(HostError):
    """The guest module that belongs to this installation is missing or damaged."""


class CacheError(HostError):
    """The directory of compiled images cannot be used."""


class ImageError(HostError):
    """An image could not be prepared, compiled or loaded."""


class ImageNotFound(ImageError):
    """No image of this name or id is kept on this machine."""


class PackageError(SandboxError, RuntimeError):
    """The packages of an image cannot be resolved, downloaded or run in a guest; the message says what to do."""


class StoreError(SandboxError, RuntimeError):
    """The store of tools and variables cannot be used; the message says what to do, and never holds a value."""


class SecretError(StoreError):
    """A stored variable cannot be encrypted or decrypted; the message names it, never its value or a key."""


class BadArguments(SandboxError, ValueError):
    """A value cannot be handed to the tool; nothing was run.

    Attributes:
        argument: name of the argument, or ``None`` if the fault is not in a single one.
    """

    def __init__(self, message: str, argument: str | None = None) -> None:
        super().__init__(message if argument is None else f"argument {argument!r}: {message}")
        self.argument = argument


class ArgumentSchemaError(UnsupportedToolError):
    """No models can be made of a tool's ``args_json_schema``."""


class ToolSourceError(SandboxError, ValueError):
    """No tool can be made of a source or of a function."""


def pass_on(error: BaseException) -> None:
    """Raise an exception again if a signal handler raised it: of whatever class, it is for the caller.

    It may come at any line of the main thread, and be of a class by which we tell what went wrong ourselves. A handler
    is called with the frame that it interrupted, which no other function gets from its caller.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        interrupted, trace = trace.tb_frame, trace.tb_next
        for value in list(trace.tb_frame.f_locals.values()):
            if value is interrupted or (type(value) is tuple and any(item is interrupted for item in value)):
                raise error


@contextmanager
def naming_exhaustion() -> Iterator[None]:
    """Let what Python raises where the system gives this process nothing more be a `HostError`, which says what is out.

    It may come from anywhere, also from importing a module: `MemoryError`; `OSError` for want of descriptors or of
    memory; `ImportError` and `OSError` of a library that cannot be loaded; and `SystemError`, which some of the
    interpreter's own code makes of a lack of memory. What a signal handler of the caller's raises stays what it is.
    """
    try:
        yield
    except (MemoryError, OSError, ImportError, SystemError) as error:
        pass_on(error)
        lack = _lack(error)
        if lack is None:
            raise
        raise HostError(lack) from error


def _lack(error: BaseException) -> str | None:
    """What the system did not give, and what to do; None if the error is about something else."""
    text = str(error)
    number = error.errno if isinstance(error, OSError) else None
    if number in _NO_DESCRIPTOR or any(os.strerror(none) in text for none in _NO_DESCRIPTOR):
        return f"this process may open no more files ({text}): raise its limit (ulimit -n), or close some"
    is_memory = isinstance(error, MemoryError | SystemError) or number == errno.ENOMEM
    if is_memory or any(words in text for words in _NO_MAPPING):
        words = f" ({text})" if text else ""
        return f"this process gets no more memory{words}: raise its limits (ulimit -d, ulimit -v), or run fewer at once"
    return None
