"""`strftime` of another C library (iron-io/dockers 42, cpython 127527): `time.strftime("%d %P")` gives nothing at all.

The kind: every directive with every flag, width and modifier, and what is no directive, by each way to format a time.
It is as with the GNU C library, which leaves a directive that is none as it stands.
"""

from __future__ import annotations

import datetime
import platform
import random
import string
import subprocess
import sys

import pytest

from wasm_sandbox import Tool, run_tool

NATIVE = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the host's C library is not the GNU one")
MOMENT = (2024, 7, 1, 16, 5, 9, 0, 183, 0)
KNOWN = {
    "%d %P": "01 pm", "%k": "16", "%l": " 4", "%N": "%N", "%^a": "MON", "%-d": "1", "%_d": " 1", "%s": "1719849909",
    "%": "%", "100%": "100%", "%%": "%", "%5": "   %5", "%E": "%E", "%Ey": "24", "%Od": "01", "%Q": "%Q", "%#Z": "utc",
    "%#p": "pm", "%010Y": "0000002024", "%_5d": "    1", "%-H:%-M": "16:5", "%C": "20", "%D": "07/01/24", "%e": " 1",
    "%F": "2024-07-01", "%G-W%V-%u": "2024-W27-1", "%h": "Jul", "%n%t": "\n\t", "%r": "04:05:09 PM", "%R": "16:05",
    "%T": "16:05:09", "%U %W": "26 27", "%^B": "JULY", "%#a": "MON", "%8a": "     Mon", "%08a": "00000Mon",
    "%c": "Mon Jul  1 16:05:09 2024", "%x %X": "07/01/24 16:05:09", "%é": "%é", "ä%P": "äpm", "%+": "%+", "%L": "%L",
}  # fmt: skip
"""Format -> what the GNU C library makes of it."""


def any_format(chance: random.Random) -> str:
    """A text with directives of every kind, and with what looks like one."""
    parts = []
    for _ in range(chance.randrange(1, 5)):
        flags = "".join(chance.choices("_-0^#", k=chance.choice([0, 0, 1, 2])))
        width, modifier = chance.choice(["", "", "", "1", "3", "07", "20"]), chance.choice(["", "", "", "E", "O"])
        conversion = chance.choice([*string.ascii_letters.replace("s", ""), "%", "+", ":", ""])  # not the epoch
        parts += [chance.choice(["", "a", " 1"]), f"%{flags}{width}{modifier}{conversion}"]
    return "".join(parts)


def any_moment(chance: random.Random) -> list[int]:
    then = datetime.datetime(1000, 1, 1) + datetime.timedelta(seconds=chance.randrange(280_000_000_000))
    return [*then.timetuple()[:8], 0]


def formatted(calls: list[tuple[str, list[int]]], expression: str) -> list[str]:
    """What the guest's expression makes of each ``format`` and ``moment``."""
    source = f"import datetime, time\ndef f(calls):\n    return [{expression} for format, moment in calls]\n"
    result = run_tool(Tool.from_source(source), {"calls": calls})
    assert result.error is None
    return list(result.func_return)


def test_directives_that_another_library_lacks_are_those_of_the_gnu_library() -> None:
    made = formatted([(format_, list(MOMENT)) for format_ in KNOWN], "time.strftime(format, tuple(moment))")
    assert dict(zip(KNOWN, made, strict=True)) == KNOWN


@pytest.mark.parametrize(
    "expression",
    [
        "datetime.datetime(*moment[:6]).strftime(format)",
        "format + '' and f'{datetime.datetime(*moment[:6]):{format}}'",
        "datetime.datetime(*moment[:6]).__format__(format)",
    ],
)
def test_datetime_formats_by_them_too(expression: str) -> None:
    known = {format_: text for format_, text in KNOWN.items() if "Z" not in format_}
    made = formatted([(format_, list(MOMENT)) for format_ in known], expression)
    assert dict(zip(known, made, strict=True)) == known


def test_date_and_time_format_by_them_too() -> None:
    calls = [("%-d %P%", list(MOMENT)), ("%k|%l %", list(MOMENT))]
    assert formatted(calls, "datetime.date(*moment[:3]).strftime(format)") == ["1 am%", " 0|12 %"]
    assert formatted(calls, "f'{datetime.time(*moment[3:6]):{format}}'") == ["1 pm%", "16| 4 %"]


@NATIVE
@pytest.mark.parametrize("seed", range(10))
def test_any_format_gives_what_native_python_gives(seed: int) -> None:
    chance = random.Random(seed)
    calls = [(any_format(chance), any_moment(chance)) for _ in range(400)]
    code = "import time\nprint([time.strftime(format, tuple(moment)) for format, moment in eval(input())])"
    native = subprocess.run(
        [sys.executable, "-c", code], input=repr(calls), env={"TZ": "UTC"}, capture_output=True, text=True, check=True
    )
    assert formatted(calls, "time.strftime(format, tuple(moment))") == eval(native.stdout)
