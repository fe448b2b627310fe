"""The guest's own Python: source lines for tracebacks, the report of an uncaught exception.

Imported once before the snapshot. The C entry point calls `begin` before every script and
`report` after an uncaught exception; both keep private references to what they use, so that
a script that rebinds builtins or modules spoils no more than its own report.
"""

import contextlib
import linecache
import sys
import traceback

MAX_MESSAGE = 64 << 10
MAX_TRACEBACK = 256 << 10


class _Source:
    """Where the lines of the running script and of the tool inside it are found."""

    script_name = tool_name = ""
    script = ""
    first_line = line_count = 0

    def tool_text(self):
        lines = self.script.splitlines(keepends=True)
        start = self.first_line - 1
        return "".join(lines[start : start + self.line_count])

    def script_text(self):
        return self.script


_source = _Source()


def begin(script_name, script, tool_name, first_line, line_count, _cache=linecache.cache):
    """Make the source lines of this run known to `linecache`, without splitting them yet."""
    _source.script_name, _source.script = script_name, script
    _source.tool_name, _source.first_line, _source.line_count = tool_name, first_line, line_count
    _cache[script_name] = (_source.script_text,)
    if line_count:
        _cache[tool_name] = (_source.tool_text,)


def _to_tool_line(line):
    """The tool's own number of a line of the script, or None for a line outside the tool."""
    if line is not None and 0 <= line - _source.first_line < _source.line_count:
        return line - _source.first_line + 1
    return None


def _relocate(description, seen):
    """Give frames and syntax errors inside the tool's text the tool's file name and line numbers.

    Functions of the tool carry them already (the entry point sets them in the code objects);
    this is for what runs at the tool's top level, and for its syntax errors.
    """
    if description is None or id(description) in seen:
        return
    seen.add(id(description))
    for frame in description.stack:
        line = _to_tool_line(frame.lineno)
        if frame.filename == _source.script_name and line is not None:
            if frame.end_lineno is not None:
                frame.end_lineno += line - frame.lineno
            frame.filename, frame.lineno = _source.tool_name, line
    if getattr(description, "filename", None) == _source.script_name:
        line = _to_tool_line(int(description.lineno) if description.lineno else None)
        if line is not None:
            if description.end_lineno:
                description.end_lineno = str(int(description.end_lineno) + line - int(description.lineno))
            description.filename, description.lineno = _source.tool_name, str(line)
    _relocate(description.__cause__, seen)
    _relocate(description.__context__, seen)
    for inner in description.exceptions or ():
        _relocate(inner, seen)


def _message(exception):
    try:
        return str(exception)
    except BaseException:
        return "<exception str() failed>"


def report(exception, _describe=traceback.TracebackException, _excepthook=sys.__excepthook__):
    """Class name, message and formatted traceback of an uncaught exception, as text.

    A script's own `sys.excepthook` is called, as at the end of any Python program.
    """
    name = type(exception).__qualname__
    description = _describe.from_exception(exception, compact=True)
    _relocate(description, set())
    text = "".join(description.format())
    if sys.excepthook is not _excepthook:
        with contextlib.suppress(BaseException):
            sys.excepthook(type(exception), exception, exception.__traceback__)
        shown = ""
    else:
        shown = text
    return name, _message(exception)[:MAX_MESSAGE], text[-MAX_TRACEBACK:], shown
