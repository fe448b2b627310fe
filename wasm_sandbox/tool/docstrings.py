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

_BLANKS = re.compile(r"\s{8,}")
_DEFAULT = ". Defaults to "


def read_docstring(doc: str) -> tuple[str, dict[str, str]]:
    """Read a docstring in Google, NumPy, reST or Epydoc style.

    Returns:
        The description of the function, and that of each parameter by its name.
    """
    doc = doc[:MAX_CHARACTERS]
    if _steps(doc) > MAX_STEPS:
        return doc.strip(), {}
    # Loading it costs more than the rest, and only tools made of documented functions need it.
    from docstring_parser import parse  # lazy: not for a tool that is given its schema

    docstring = parse(doc)
    described = {entry.arg_name: entry.description for entry in docstring.params if entry.description}
    return "\n\n".join(filter(None, (docstring.short_description, docstring.long_description))), described


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
