"""Cost of a source text for this Python's parser, by one linear look before any parser sees it. Pure.

CPython's parser holds the interpreter lock until it is done and cannot be interrupted: some 2.5 microseconds a token.
It, and what follows it, recurses in C as deep as the text nests, by brackets or without (`not not x`, `x()()()`).
So a text is counted before it is parsed, at its top-level statements it is cut into pieces, and only a text that is
short and flat is parsed on the caller's own stack. The count is an upper bound, of texts that do not parse, too.
"""

from __future__ import annotations

import re
import sys
from typing import NamedTuple

MAX_CHARACTERS = 256 << 10
"""Longer texts are not looked at."""

MAX_TOKENS = 16_000
"""Some 1,500 lines of code; text inside of strings and comments does not count."""

MAX_STATEMENT_TOKENS = 6_000
"""In one statement at the top level: parsing it holds the interpreter lock for 15 milliseconds."""

PIECE_TOKENS = 4_000
"""Statements are parsed together up to this many tokens."""

_SMALL_TOKENS = 1_500
_FLAT = 30
"""Nesting that fits any caller's stack: 161 brackets use up 256 KiB, and 1,000 lambdas do."""

_FSTRING_WORK = 10_000
"""CPython 3.11 looks through an f-string for each of its expressions: so many characters take as long as a token."""

_HAS_NESTED_FSTRINGS = sys.version_info >= (3, 12)
_WORDS = re.compile(r"\w+|[^\w\s]")
_TOKEN = re.compile(
    r"""
    [ \t\f]* (?:\\\n [ \t\f]*)*
    (?: (?P<string> (?:[rR][bBfFtT]? | [bBfFtT][rR]? | [uU])? (?:\"{3} | '{3} | \" | ') )
    | (?P<word> \w+ )
    | (?P<open> [(\[{] )
    | (?P<close> [)\]}] )
    | (?P<end> (?:\#[^\n]*)? (?:\n [ \t\f]* (?:\#[^\n]*)? (?=\n|\Z)){0,1000} \n | \#[^\n]*\Z )
    | (?P<separator> [,;] )
    | (?P<operator> [^\w\n] ) )
    """,
    re.VERBOSE,
)
_STRING_END = {
    '"': re.compile(r'[^"\\\n]*(?:\\.[^"\\\n]*)*"', re.DOTALL),
    "'": re.compile(r"[^'\\\n]*(?:\\.[^'\\\n]*)*'", re.DOTALL),
    '"""': re.compile(r'[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*"""', re.DOTALL),
    "'''": re.compile(r"[^'\\]*(?:(?:\\.|'(?!''))[^'\\]*)*'''", re.DOTALL),
}
_FORMAT_PART = {
    quote: re.compile(rf"(?:{text}|\\.)*?({quote}|\{{\{{?|\}}\}}?|\Z)", re.DOTALL)
    for quote, text in {'"': r'[^"\{}]', "'": r"[^'\{}]", '"""': r"[^\{}]", "'''": r"[^\{}]"}.items()
}
_NESTING = frozenset({"and", "await", "else", "for", "if", "in", "is", "lambda", "not", "or", "yield", "from", "async"})
_CONTINUED = frozenset({"else", "elif", "except", "finally"})
"""Words at the left margin that go on with a statement."""


class TooCostly(ValueError):
    """A text that would cost its parser more than is allowed, or nests too deeply."""


class Piece(NamedTuple):
    """Statements at the top level that are parsed together.

    Attributes:
        text: their text.
        line: number of lines of the source before it.
    """

    text: str
    line: int


class Cost(NamedTuple):
    """Cost of a text for the parser.

    Attributes:
        tokens: upper bound of its number of tokens.
        height: upper bound of the height of its tree and of its nesting.
        pieces: the text, cut where statements at the top level begin.
    """

    tokens: int
    height: int
    pieces: tuple[Piece, ...]

    @property
    def is_small(self) -> bool:
        """Whether it may be parsed on any stack, an event loop's, too: it takes some milliseconds at most."""
        return self.tokens <= _SMALL_TOKENS and self.height <= _FLAT


def cost_of(text: str) -> Cost:
    """Count what a text would cost its parser.

    Raises:
        TooCostly: if that is more than is allowed; the message says what, and the bound.
    """
    if len(text) > MAX_CHARACTERS:
        raise TooCostly(f"the source has {len(text):,} characters, at most {MAX_CHARACTERS:,} are looked into")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _Scan(text).cost()


class _Scan:
    """One look at a text; the order of its tokens is CPython's, wherever CPython goes on reading."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.tokens = 0
        self.height = 0  # of what was read of the bracket or text that is open
        self.chain = 0  # tokens that may nest in each other, since the last comma or line
        self.lambdas = 0  # those among them whose own commas end no chain
        self.outer: list[tuple[int, int, int]] = []  # height, chain and lambdas around each open bracket
        self.elifs = 0  # each nests in the one before
        self.indents = [0]
        self.is_decorated = False
        self.starts = [0]  # of statements at the left margin
        self.tokens_before = [0]

    def cost(self) -> Cost:
        """Look at the whole text."""
        self.read_code()
        while self.outer:
            self.leave()
        return Cost(self.tokens, self.height + self.elifs, self.pieces())

    def read_code(self, until_depth: int = -1) -> str:
        """Read to the end of the text, or to where an expression of an f-string ends: the character that ends it."""
        is_line_start = until_depth < 0
        while found := _TOKEN.match(self.text, self.position):
            kind = found.lastgroup or ""
            self.position = found.end()
            if kind == "end":
                if not self.outer and not is_line_start:
                    self.count(1)
                    self.chain = self.lambdas = 0
                    is_line_start = True
                continue
            token = found[kind]
            if len(self.outer) == until_depth and token in "}:":
                return token
            if is_line_start:
                is_line_start = False
                self.begin_line(found.start(kind), token)
            self.count(1)
            self.take(kind, token)
        return ""

    def take(self, kind: str, token: str) -> None:
        if kind == "word":
            self.word(token)
        elif kind == "operator":
            self.nest()
        elif kind == "separator":
            self.chain = self.lambdas
        elif kind == "open":
            self.enter()
        elif kind == "close":
            self.leave()
        else:
            self.string(token)

    def count(self, tokens: int) -> None:
        self.tokens += tokens
        if self.tokens > MAX_TOKENS:
            raise TooCostly(f"the source has more than {MAX_TOKENS:,} tokens, which are some 1,500 lines of code")
        if self.tokens - self.tokens_before[-1] > MAX_STATEMENT_TOKENS:
            line = self.text.count("\n", 0, self.starts[-1]) + 1
            raise TooCostly(
                f"the statement at line {line} of the source has more than {MAX_STATEMENT_TOKENS:,} tokens: "
                "give data in a text, an argument or a file, and divide code into functions"
            )

    def nest(self, levels: int = 1) -> None:
        self.chain += levels
        self.height = max(self.height, self.chain)

    def enter(self) -> None:
        self.outer.append((self.height, self.chain, self.lambdas))
        self.height = self.chain = self.lambdas = 0

    def leave(self) -> None:
        if self.outer:  # else no parser reads on
            inner = self.height
            self.height, self.chain, self.lambdas = self.outer.pop()
            self.nest(inner + 1)

    def begin_line(self, start: int, first: str) -> None:
        """Note the indentation of a line, and whether a statement at the left margin begins there."""
        line_start = self.text.rfind("\n", 0, start) + 1
        width = len(self.text[line_start:start].expandtabs())
        while self.indents[-1] > width:
            self.indents.pop()
        if self.indents[-1] < width:
            self.indents.append(width)
        self.nest(len(self.indents))
        if start > line_start or first in _CONTINUED:
            return
        if not self.is_decorated:
            self.starts.append(start)
            self.tokens_before.append(self.tokens)
        self.is_decorated = first == "@"

    def word(self, word: str) -> None:
        if word == "lambda":
            self.lambdas += 1
        elif word == "elif":
            self.elifs += 1
        elif word[0].isdigit() and not word.isdigit():
            self.count(2)  # a keyword may follow a number without a blank
            self.nest()
        elif word not in _NESTING:
            return
        self.nest()

    def string(self, opening: str) -> None:
        quote = opening.lstrip("rRbBuUfFtT")
        is_format = not {*"fFtT"}.isdisjoint(opening)
        if is_format and _HAS_NESTED_FSTRINGS:
            self.format_string(quote)
            return
        found = _STRING_END[quote].match(self.text, self.position)
        if found is None:  # no parser reads on, but that is for it to say
            self.uncertain(self.text[self.position :])
            self.position = len(self.text)
            return
        self.position = found.end()
        if is_format and "{" in found[0]:
            self.uncertain(found[0])
            self.count(found[0].count("{") * len(found[0]) // _FSTRING_WORK)

    def uncertain(self, text: str) -> None:
        """Count what may be code, or only a text."""
        tokens = len(_WORDS.findall(text))
        self.count(tokens)
        self.nest(tokens)

    def format_string(self, quote: str, is_specification: bool = False) -> None:
        """Read an f-string as CPython does from 3.12 on, or the format of one of its expressions."""
        part = _FORMAT_PART[quote]
        while found := part.match(self.text, self.position):
            self.position = found.end()
            mark = found[1]
            if mark in (quote, ""):
                return
            if is_specification and mark[0] == "}":
                self.position = found.start(1) + 1
                return
            if mark == "{" or (is_specification and mark == "{{"):
                self.position = found.start(1) + 1
                self.expression(quote)

    def expression(self, quote: str) -> None:
        """Read an expression of an f-string, and its format."""
        self.count(2)
        self.enter()
        if self.read_code(len(self.outer)) == ":":
            self.format_string(quote, is_specification=True)
        self.leave()

    def pieces(self) -> tuple[Piece, ...]:
        pieces: list[Piece] = []
        begin, line, tokens = 0, 0, 0
        after_each = [*self.tokens_before[1:], self.tokens]
        for start, before, after in zip(self.starts, self.tokens_before, after_each, strict=True):
            if after - tokens > PIECE_TOKENS and start > begin:
                pieces.append(Piece(self.text[begin:start], line))
                line += self.text.count("\n", begin, start)
                begin, tokens = start, before
        return (*pieces, Piece(self.text[begin:], line))


_PATTERN_PART = re.compile(r"\\(?:[pP]\{[^}]*\}|.)|\[(?:\\.|[^\]\\])*\]|\{(\d+)(?:,(\d*))?\}|.", re.DOTALL)


def pattern_steps(pattern: str) -> int:
    """How large a regular expression is once its counted repetitions are written out."""
    outer: list[tuple[int, int]] = []
    total, last = 0, 0
    for found in _PATTERN_PART.finditer(pattern):
        part = found[0]
        if found[1]:
            last *= max(int(found[1]), int(found[2] or 0), 1)
        elif part == "(":
            outer.append((total, last))
            total, last = 0, 1
        elif part == ")" and outer:
            group = total + last
            total, last = outer.pop()
            total, last = total + last, group
        else:
            total, last = total + last, 10 if part[0] in "\\[." else 1
    return total + last + sum(map(sum, outer))
