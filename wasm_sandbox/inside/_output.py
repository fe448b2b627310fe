"""Standard output of a guest, a line at a time. Imported once before the snapshot.

A `print` is one call of the host, and not one for each of its parts. What is written past the text, to
``sys.stdout.buffer``, to standard error or by `os.write`, comes after all text that was written before it.
"""

import contextlib
import io
import os
import posix
import sys


class _File(io.FileIO):
    """File below a standard stream, which text that waits for the end of its line goes out before."""

    def write(self, data, _before=io.FileIO.write):
        flush()
        return _before(self, data)

    def fileno(self):
        with contextlib.suppress(ValueError):  # closed
            _out.reconfigure(write_through=True)  # whoever asks may write past this: no text waits any more
        return super().fileno()


class _ErrorFile(_File):
    def flush(self, _before=io.FileIO.flush):
        flush()
        _before(self)


def _stream(kind, fd, name, **options):
    file = kind(fd, "w", closefd=False)
    file.name = name
    text = io.TextIOWrapper(file, "utf-8", newline="\n", **options)
    text.mode = "w"
    return text


_out = _stream(_File, 1, "<stdout>", errors="surrogateescape", line_buffering=True)
_err = _stream(_ErrorFile, 2, "<stderr>", errors="backslashreplace", write_through=True)


def flush(_flush=_out.flush):
    """Let text go out that waits for the end of its line."""
    try:
        _flush()
    except ValueError:  # closed
        return


def _write(fd, data, /, _before=posix.write):
    if fd in (1, 2):
        flush()
    return _before(fd, data)


def _exit(status, _before=posix._exit):
    flush()
    _before(status)


def install():
    """Put this in the place of the interpreter's own, before the snapshot."""
    for kind in (_File, _ErrorFile):
        kind.__module__, kind.__name__, kind.__qualname__ = "_io", "FileIO", "FileIO"
    sys.stdout = sys.__stdout__ = _out
    sys.stderr = sys.__stderr__ = _err
    for name, function in {"write": _write, "_exit": _exit}.items():
        function.__name__ = function.__qualname__ = name
        setattr(os, name, function)
        setattr(posix, name, function)
