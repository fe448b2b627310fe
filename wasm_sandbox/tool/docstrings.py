"""Descriptions of a function and its parameters in a docstring that nobody trusts. Pure.

The parser's regular expressions take time in powers of the length of a line or of an entry. What would be slow is
counted, and a docstring that comes to more is the function's description as a whole.
"""

from __future__ import annotations

import re

MAX_CHARACTERS = 20_000
"""What follows is not read."""

MAX_STEPS = 4_000_000
"""Of the parser's regular expressions: ten milliseconds."""

_PARAMETER_TITLES = frozenset({"Args:", "Arguments:", "Parameters:", "Params:"})
_TITLE = re.compile(r"[A-Z][A-Za-z ]{2,20}:\s*")

_BLANKS = re.compile(r"\s{8,}")
_DEFAULT = ". Defaults to "


def read_docstring(doc: str) -> tuple[str, dict[str, str]]:
    """Read a docstring in Google, NumPy, reST or Epydoc style.

    Returns:
        The description of the function, and that of each parameter by its name.
    """
    doc = _with_indented_opening(doc[:MAX_CHARACTERS])
    if _steps(doc) > MAX_STEPS:
        return doc.strip(), {}
    # Loading it costs more than the rest, and only tools made of documented functions need it.
    from docstring_parser import parse  # lazy: not for a tool that is given its schema

    docstring = parse(f"\n{doc}")  # it takes the indentation away from what follows a first line
    described = {entry.arg_name: entry.description for entry in docstring.params if entry.description}
    return "\n\n".join(filter(None, (docstring.short_description, docstring.long_description))), described


def _with_indented_opening(doc: str) -> str:
    """The docstring; if it opens with a section of parameters, with the indentation of that.

    Indentation is counted below the first line: that of a section on the first line is lost.
    """
    first, *rest = doc.splitlines()
    if first.rstrip() not in _PARAMETER_TITLES or next(filter(str.strip, rest), " ")[0].isspace():
        return doc
    return "\n".join([first.rstrip(), *(line if _TITLE.fullmatch(line) else f"    {line}" for line in rest)])


def _steps(doc: str) -> int:
    """Upper bound of the steps that the parser's regular expressions take."""
    steps = 0
    for line in doc.splitlines():
        head = line.partition(":")[0]  # the parser looks for types in it
        steps += len(head) + head.count("(") * len(head) ** 2 + sum(len(run) ** 2 for run in _BLANKS.findall(head))
        steps += line.count(_DEFAULT) * len(line)
    if re.search("^ *@", doc, re.MULTILINE):  # Epydoc's entries, which are searched for words from each letter on
        steps += sum(8 * len(entry) ** 2 for entry in re.split("^ *@", doc, flags=re.MULTILINE)[1:])
    return steps
