"""The guest's own Python: scripts half prepared, source lines for tracebacks, the report of an exception.

Imported once before the snapshot. The C entry point calls `begin` before every script and
`report` after an uncaught exception; both keep private references to what they use, so that
a script that rebinds builtins or modules spoils no more than its own report.
"""

import builtins
import contextlib
import linecache
import marshal
import os
import sys
import time
import traceback
import warnings
import zoneinfo

MAX_MESSAGE = 64 << 10
MAX_TRACEBACK = 256 << 10


# What `str.splitlines`, and so `linecache`, takes for the end of a line, and Python's own parser does not.
_NO_LINE_ENDS = str.maketrans(dict.fromkeys("\v\f\x1c\x1d\x1e\x85\u2028\u2029", " "))


class _Source:
    """Where the lines of the running script and of the tool inside it are found."""

    script_name = tool_name = script = ""
    first_line = line_count = closing_line = 0

    def tool_text(self):
        lines = self.script_text().splitlines(keepends=True)
        start = self.first_line - 1
        return "".join(lines[start : start + self.line_count])

    def script_text(self):
        return self.script.translate(_NO_LINE_ENDS)


_source = _Source()


class _Template:
    """The constant first and last lines of generated scripts, made ready before the snapshot.

    The opening (imports, the optional client) has been executed: a run takes its names. The closing
    has been compiled, twice: as it is, and without the class that it defines to pass the result through
    pydantic, for the usual case that this class can be the one made before the snapshot.
    """

    def __init__(self, opening, closing, class_block):
        self.opening, self.closing = opening, closing
        self.padding = "pass" + "\n" * opening.count("\n")  # no text after it is a docstring
        self.names = self._executed(opening)
        self.class_names = self._executed(class_block)
        before, after = closing.split(class_block)
        quick = before + "    pass\n" + "\n" * (class_block.count("\n") - 1) + after
        self.closing_code = compile(closing, "script.py", "exec")
        self.quick_closing_code = compile(quick, "script.py", "exec")

    @staticmethod
    def _executed(source):
        namespace = {"__name__": "__main__", "__builtins__": builtins}
        text = source if source[0] != " " else f"if True:\n{source}"
        exec(compile(text, "script.py", "exec", dont_inherit=True), namespace)
        return {k: v for k, v in namespace.items() if k not in ("__name__", "__builtins__")}

    def closing_for(
        self, namespace, _modules=sys.modules, _import=builtins.__import__, _build=builtins.__build_class__
    ):
        """The code that ends a script, chosen after the tool has run, and by how many lines to move it.

        Whatever the tool did to what the class is made of must show: then the class is made anew.
        """
        pydantic, typing = _modules.get("pydantic"), _modules.get("typing")
        if (
            builtins.__import__ is _import
            and builtins.__build_class__ is _build
            and getattr(pydantic, "BaseModel", None) is self.class_names["BaseModel"]
            and getattr(pydantic, "ConfigDict", None) is self.class_names["ConfigDict"]
            and getattr(typing, "Any", None) is self.class_names["Any"]
        ):
            namespace.update(self.class_names)
            code = self.quick_closing_code
        else:
            code = self.closing_code
        return code, _source.closing_line + 1 - code.co_firstlineno


_templates = []


def register_template(opening, closing, class_block):
    """Called by the warm-up, once for each shape of generated script."""
    _templates.append(_Template(opening, closing, class_block))


def begin(
    script_name,
    script,
    tool_name,
    first_line,
    line_count,
    code,
    _cache=linecache.cache,
    _compile=compile,
    _loads=marshal.loads,
):
    """Make the source lines of this run known, and recognise a prepared script.

    Returns None for a script to be compiled whole, else: the names that its opening binds, the code of
    its middle up to the tool or all of it, the code from the tool on if the host has that (what `compile_ahead` made)
    or None, and the function that gives the code of its closing.
    """
    _source.script_name, _source.script = script_name, script
    _source.tool_name, _source.first_line, _source.line_count = tool_name, first_line, line_count
    _source.closing_line = 0
    _cache[script_name] = (_source.script_text,)
    if line_count:
        _cache[tool_name] = (_source.tool_text,)
    template, middle = _recognised(script)
    if template is None:
        return None
    _source.closing_line = template.padding.count("\n") + middle.count("\n")
    rest = None
    try:
        if code:
            rest, middle = _loads(code), middle[: _tool_start(template, middle, first_line)]
        first = _compile(template.padding + middle, script_name, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        _source.closing_line = 0
        return None  # the whole script will say it in its own lines
    return template.names, first, rest, template.closing_for


def _recognised(script):
    """The template of a generated script and its own lines, the middle; or None twice."""
    for template in _templates:
        if script.startswith(template.opening) and script.endswith(template.closing):
            middle = script[len(template.opening) : -len(template.closing)]
            # A future import is legal only at the top of the whole script; a middle that does not end its
            # last statement does not compile alone.
            if middle.endswith("\n") and "__future__" not in middle:
                return template, middle
    return None, None


def _tool_start(template, middle, first_line):
    """Where in the middle the tool's source starts."""
    at = 0
    for _ in range(first_line - 1 - template.padding.count("\n")):
        at = middle.index("\n", at) + 1
    return at


def compile_ahead(script, first_line):
    """The code of a generated script from the tool's source on, marshalled, for runs of other scripts with the same
    lines there; None if there is none. It begins with a line of its own: no text in the tool becomes its docstring."""
    template, middle = _recognised(script)
    if template is None:
        return None
    start = _tool_start(template, middle, first_line)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what the compiler warns of, it is to say in every run
        return marshal.dumps(compile("pass\n" + middle[start:], "script.py", "exec", dont_inherit=True))


class _Values:
    """The values that the host sent beside the script: where they are, as long as one is still to be fetched."""

    view = release = None
    spans = {}  # noqa: RUF012


def hold_values(view, release, _int=int.from_bytes):
    """Called by the entry point with the values, each its size (four bytes) and what `marshal` makes of it."""
    at, spans = 0, {}
    while at < len(view):
        end = at + 4 + _int(view[at : at + 4], "little")
        spans[len(spans)] = at + 4, end
        at = end
    _Values.view, _Values.release, _Values.spans = view, release, spans


def value(index, _loads=marshal.loads):
    """What a script has in place of a long literal: its value, once; after the last the memory is free again."""
    start, end = _Values.spans.pop(index)
    with _Values.view[start:end] as part:
        found = _loads(part)
    if not _Values.spans:
        _Values.view.release()
        _Values.release()
        _Values.view = _Values.release = None
    return found


_heeded = {}


def heed_environ():
    """Called by the entry point before a script with variables that Python reads at its start."""
    changed = {name for name in ("TZ", "PYTHONTZPATH", "PYTHONWARNINGS") if os.environ.get(name) != _heeded.get(name)}
    _heeded.update((name, os.environ.get(name)) for name in changed)
    if "TZ" in changed:
        time.tzset()
    if "PYTHONTZPATH" in changed:
        zoneinfo.reset_tzpath()
    if "PYTHONWARNINGS" in changed:
        sys.warnoptions[:] = filter(None, os.environ.get("PYTHONWARNINGS", "").split(","))
        warnings._processoptions(sys.warnoptions)


def _to_tool_line(line):
    """The tool's own number of a line of the script, or None for a line outside the tool."""
    if line is not None and 0 <= line - _source.first_line < _source.line_count:
        return line - _source.first_line + 1
    return None


class _Frames(traceback.StackSummary):
    """The frames of a traceback, each line of it made once: a deep recursion is the same one a thousand times."""

    def format_frame_summary(self, frame, **options):
        key = frame.filename, frame.name, frame.lineno, frame.end_lineno, frame.colno, frame.end_colno
        if key not in self.__dict__:
            self.__dict__[key] = super().format_frame_summary(frame, **options)
        return self.__dict__[key]


def _relocate(description, seen):
    """Give frames and syntax errors inside the tool's text the tool's file name and line numbers.

    Functions of the tool carry them already (the entry point sets them in the code objects);
    this is for what runs at the tool's top level, and for its syntax errors.
    """
    if description is None or id(description) in seen:
        return
    seen.add(id(description))
    description.stack.__class__ = _Frames
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
