"""Reading the exception that ended a Python process from what it printed: for executors that cannot report it. Pure."""

from __future__ import annotations

import re

SCRIPT_NAME = "script.py"
"""What a guest calls the script that it runs."""

MAX_CHARACTERS = 1 << 20
"""So much of the end of a text is searched."""

_HEADER = "Traceback (most recent call last):"
_PLACE = "  File "
_EXCEPTION = re.compile(r"^(?P<name>[A-Za-z_][\w.<>]*)(?:: (?P<message>.*))?\Z", re.MULTILINE | re.DOTALL)
_SUGGESTION = re.compile(r"\. Did you (?:mean|forget)[^\n]*\?$")  # the traceback's own words


def exception_of(stderr: str) -> tuple[str, str, str] | None:
    """Class name, message and traceback of the last exception that was printed, or None if there is none.

    It is a guess: a process that prints such a text itself looks the same.
    """
    text = stderr[-MAX_CHARACTERS:]
    start = max(text.rfind(_HEADER), 0)
    if _PLACE not in text[start:]:
        return None
    last_place = text.rindex("\n" + _PLACE if "\n" + _PLACE in text else _PLACE)
    found = _EXCEPTION.search(text[last_place:].rstrip("\n"))
    if found is None:
        return None
    message = _SUGGESTION.sub("", found["message"] or "")
    name = found["name"] if "<locals>" in found["name"] else found["name"].rpartition(".")[2]
    return name, message, text[start:]


def in_script(traceback: str, file_name: str) -> str:
    """A traceback as a guest gives it: from the script's first frame on, and the script called as a guest calls it.

    Args:
        traceback: as an executor's interpreter printed it.
        file_name: the name under which that interpreter knows the script.
    """
    frame = re.compile(rf'^  File "{re.escape(file_name)}", line (\d{{1,9}})', re.MULTILINE)
    first = frame.search(traceback)
    if first is None:
        return traceback
    is_frame = traceback.startswith(", in ", first.end())  # else it is where the script does not compile
    head = f"{_HEADER}\n" if is_frame else ""
    return head + frame.sub(rf'  File "{SCRIPT_NAME}", line \1', traceback[first.start() :])


def move_lines(traceback: str, script: str, tool: str, first_line: int, line_count: int) -> str:
    """A traceback in which the lines of a script that are a tool's have the tool's name and numbers."""

    def move(place: re.Match[str]) -> str:
        line = int(place[1]) - first_line + 1
        return f'  File "{tool}", line {line}' if 0 < line <= line_count else place[0]

    return re.sub(rf'^  File "{re.escape(script)}", line (\d{{1,9}})', move, traceback, flags=re.MULTILINE)
