"""What the tests of each module must come to: read, compared, and recorded anew (`expected.toml`)."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.cpython.running import ModuleResult

PATH = Path(__file__).parent / "expected.toml"

UNKNOWN = "unknown"
"""Reason that `record` gives a failure that no pattern fits. The tests refuse a list that has it."""

HEAD = """\
# What CPython's own tests come to in the guest; `python -m tests.cpython` fails for whatever else it sees.
#
# `tests` are started, `skipped` of them (and of classes) skip themselves. `fails` are those that must fail, by reason;
# `varies` may do either; `left_out` are not started. With `has`, CPython's switch for something that it thinks WASI
# lacks is turned on for this module ("sockets", "subprocesses").
#
# Record anew: python -m tests.cpython --record. That keeps reasons, gives a new failure the first reason whose pattern
# is found in what it said, and else "unknown", which is to be replaced by hand.
"""


@dataclass(frozen=True)
class Reason:
    """Why tests fail: in words, and the pattern by which `record` finds it in ``MODULE.TEST`` and what that said."""

    words: str
    pattern: str = ""


@dataclass
class Expected:
    """What one module must come to."""

    tests: int = 0
    skipped: int = 0
    has: list[str] = field(default_factory=list)
    fails: dict[str, str] = field(default_factory=dict)
    varies: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass
class Expectations:
    """The whole list: reasons by their word, and modules by name."""

    reasons: dict[str, Reason]
    modules: dict[str, Expected]

    @classmethod
    def read(cls, path: Path = PATH) -> Expectations:
        """The list in a file."""
        content = tomllib.loads(path.read_text("utf-8"))
        reasons = {word: Reason(**value) for word, value in content.pop("reasons", {}).items()}
        modules = {}
        for name, value in content.items():
            modules[name] = Expected(
                value["tests"],
                value.get("skipped", 0),
                value.get("has", []),
                *(_by_test(value.get(key, {})) for key in ("fails", "varies", "left_out")),
            )
        return cls(reasons, modules)

    def write(self, path: Path = PATH, head: str = HEAD) -> None:
        """Write the list, always in the same order, below a text that says what it is."""
        lines = [head]
        for word, reason in self.reasons.items():
            lines.append(f"[reasons.{word}]\nwords = {_text(reason.words)}")
            if reason.pattern:
                lines.append(f"pattern = {_text(reason.pattern)}")
            lines.append("")
        for name, expected in sorted(self.modules.items()):
            lines.append(f"[{_text(name)}]\ntests = {expected.tests}")
            if expected.skipped:
                lines.append(f"skipped = {expected.skipped}")
            if expected.has:
                lines.append(f"has = [{', '.join(map(_text, expected.has))}]")
            for key in ("fails", "varies", "left_out"):
                lines += _grouped(key, getattr(expected, key))
            lines.append("")
        path.write_text("\n".join(lines), "utf-8")

    def differences(self, result: ModuleResult) -> list[str]:
        """What is not as expected in a module, one sentence each."""
        expected = self.modules.get(result.module)
        if expected is None:
            return ["is not in the list"]
        found = []
        # A test that varies may also be one that skips itself, or its class: only what is left must be the same.
        if result.tests != expected.tests:
            found.append(f"{result.tests} tests were started, and not {expected.tests}")
        if abs(len(result.skipped) - expected.skipped) > len(expected.varies):
            found.append(f"{len(result.skipped)} tests were skipped, and not {expected.skipped}")
        for name, (outcome, detail) in result.bad.items():
            if name not in expected.fails and name not in expected.varies:
                found.append(f"{name}: {outcome}\n{detail.strip()}")
        for name, reason in expected.fails.items():
            if name not in result.bad:
                found.append(f"{name}: should fail ({self.reasons[reason].words}), and did not")
        return found

    def record(self, result: ModuleResult) -> None:
        """Take a result for what is expected, with the reasons that are known."""
        before = self.modules.get(result.module, Expected())
        fails = {}
        for name, (_, detail) in sorted(result.bad.items()):
            if name not in before.varies:
                fails[name] = before.fails.get(name) or self._reason(f"{result.module}.{name}\n{detail}")
        expected = Expected(result.tests, len(result.skipped), before.has, fails, before.varies, before.left_out)
        self.modules[result.module] = expected

    def _reason(self, said: str) -> str:
        for word, reason in self.reasons.items():
            if reason.pattern and re.search(reason.pattern, said):
                return word
        return UNKNOWN


def _by_test(grouped: dict[str, list[str]]) -> dict[str, str]:
    return {name: reason for reason, names in grouped.items() for name in names}


def _grouped(key: str, tests: dict[str, str]) -> Iterable[str]:
    groups: dict[str, list[str]] = {}
    for name, reason in sorted(tests.items()):
        groups.setdefault(reason, []).append(name)
    for reason, names in sorted(groups.items()):
        yield f"{key}.{reason} = ["
        yield from (f"    {_text(name)}," for name in names)
        yield "]"


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
