"""The module `regex` in the image "science": what `re` does not have, and each way into its C code."""

from __future__ import annotations

import pytest

from wasm_sandbox import Limits, run_code

CALLS = {
    "Unicode properties": (r"regex.findall(r'\p{Lu}\p{Ll}+', 'Ünal, Éva und 12')", ["Ünal", "Éva"]),
    "sets": (r"regex.findall(r'(?V1)[[a-z]--[aeiou]]+', 'banana')", ["b", "n", "n"]),
    "fuzzy": (r"regex.search(r'(?:colour){e<=1}', 'my color').fuzzy_counts", (0, 0, 1)),
    "fuzzy changes": (r"regex.search(r'(?:colour){e<=1}', 'my color').fuzzy_changes", ([], [], [7])),
    "recursion": (r"regex.fullmatch(r'\((?:[^()]|(?R))*\)', '(a(b)c)').span()", (0, 7)),
    "overlaps": ("regex.findall('..', 'abcd', overlapped=True)", ["ab", "bc", "cd"]),
    "all captures": (r"regex.match(r'(?:(\w)-?)+', 'a-b-c').allcaptures()", (["a-b-c"], ["a", "b", "c"])),
    "all spans": (r"regex.match(r'(?:(\w)-?)+', 'a-b').allspans()", ([(0, 3)], [(0, 1), (2, 3)])),
    "captures by name": (r"regex.match(r'(?:(?P<x>\w)-?)+', 'a-b').capturesdict()", {"x": ["a", "b"]}),
    "a captured group": (r"regex.match(r'(?:(\w)-?)+', 'a-b').expandf('{1[0]}{1[1]}')", "ab"),
    "attributes of a match": (
        "(lambda m: (m.regs, m.lastgroup, m.lastindex, m.string, m.pos, m.endpos))(regex.match('(?P<a>b)', 'bc'))",
        (((0, 1), (0, 1)), "a", 1, "bc", 0, 2),
    ),
    "groups of a pattern": ("dict(regex.compile('(?P<a>b)(?P<c>d)').groupindex)", {"a": 1, "c": 2}),
    "copies": ("copy.copy(regex.compile('a')) == copy.deepcopy(regex.compile('a'))", True),
    "copies of matches": ("copy.deepcopy(regex.match('a', 'ab'))[0] + copy.copy(regex.match('a', 'ab'))[0]", "aa"),
    "pickles": ("pickle.loads(pickle.dumps(regex.compile('(a)|b', regex.I))).sub('-', 'xAb')", "x--"),
    "a detached text": ("(lambda m: (m.detach_string(), m.string, m[0]))(regex.match('a', 'ab'))", (None, None, "a")),
    "a scanner": (
        "(lambda s: (s.match()[0], s.search()[0], s.match()))(regex.compile('.').scanner('ab'))",
        ("a", "b", None),
    ),
    "an iterator": ("list(regex.splititer('-', 'a-b'))", ["a", "b"]),
    "a splitter": ("(lambda s: (s.split(), s.split()))(regex.splititer('-', 'a-b'))", ("a", "b")),
    "templates": ("regex.subf('(a)(b)', '{2}{1}', 'abx')", "bax"),
    "reverse": (r"regex.findall(r'(?r)\d', '1a2')", ["2", "1"]),
    "branch reset": (r"regex.match(r'(?|(a)|(b))', 'b').groups()", ("b",)),
    "named lists": (r"regex.findall(r'\L<words>', 'one two', words=['two', 'ten'])", ["two"]),
    "partial": ("regex.fullmatch('abc', 'ab', partial=True).partial", True),
    "sizes": ("regex.compile('a').__sizeof__() > 0", True),
    "types": ("(str(regex.Match[str]), str(regex.Pattern[str]))", ("_regex.Match[str]", "_regex.Pattern[str]")),
    "bytes": ("regex.findall(rb'[a-c]+', b'xaby')", [b"ab"]),
    "in parallel": ("regex.findall('a+', 'aab', concurrent=True)", ["aa"]),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_it_can_do(name: str) -> None:
    expression, value = CALLS[name]
    result = run_code(f"import copy, pickle, regex\n{expression}", image="science")
    assert result.error is None, result.error
    assert result.value == value


def test_wrong_patterns_are_its_own_errors() -> None:
    for pattern, words in (
        ("(", "missing )"),
        ("[a", "unterminated character set"),
        (r"\p{nowhere}", "unknown property"),
    ):
        error = run_code(f"import regex\nregex.compile({pattern!r})", image="science").error
        assert error is not None
        assert words in str(error.message)


def test_a_search_without_end_ends_at_the_limit_and_at_its_own() -> None:
    code = "import regex\nregex.match(r'(?:a|aa)+$', 'a' * 60 + '!'{})"
    error = run_code(code.format(""), image="science", limits=Limits(timeout_seconds=1)).error
    assert error is not None
    assert error.kind == "timeout"
    error = run_code(code.format(", timeout=0.1"), image="science", limits=Limits(timeout_seconds=60)).error
    assert error is not None
    assert error.exception_name == "TimeoutError"
