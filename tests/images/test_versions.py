"""Which versions are chosen: the search over a made-up index, compared with trying everything."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from wasm_sandbox.engine.compiled.artifact import find_artifact
from wasm_sandbox.errors import PackageError
from wasm_sandbox.images import resolution
from wasm_sandbox.images.guest_python import GuestPython
from wasm_sandbox.images.installer import Offer, Wanted
from wasm_sandbox.images.resolution import resolve
from wasm_sandbox.images.wheels import Distribution

PYTHON = GuestPython(find_artifact())

Versions = Mapping[str, Mapping[str, Sequence[str]]]
"""Name -> version -> what it requires."""


class MadeUp:
    """An index of versions that there are not."""

    def __init__(self, versions: Versions, requires_python: Mapping[str, str] | None = None) -> None:
        self.versions = versions
        self.requires_python = requires_python or {}
        self.rounds: list[list[str]] = []

    def newest(self, wanted: Wanted) -> dict[str, Offer | None]:
        self.rounds.append(sorted(f"{name}{specifiers}" for name, specifiers in wanted.items()))
        return {name: self._newest(name, specifiers) for name, specifiers in wanted.items()}

    def _newest(self, name: str, specifiers: SpecifierSet) -> Offer | None:
        fitting = [version for version in self.versions.get(name, {}) if version in specifiers]
        if not fitting:
            return None
        version = max(fitting, key=Version)
        requires_python = self.requires_python.get(f"{name} {version}", "")
        return Offer(Distribution(name, version, tuple(self.versions[name][version]), requires_python))

    def read(self, offer: Offer) -> Distribution:
        return offer.distribution

    def explain(self, name: str, versions: SpecifierSet) -> str:
        return f"there is no {name}{versions}"


def chosen(index: MadeUp, *requirements: str, local: Sequence[Distribution] = ()) -> dict[str, str]:
    found = resolve([Requirement(text) for text in requirements], local, PYTHON, index)
    return {name: one.version for name, one in found.items()}


NAMES = ["a", "b", "c", "d"]

requirement = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(NAMES),
    st.sampled_from(["", "", "[e]"]),
    st.sampled_from(["", "", ">=2", "<2", "==1", "!=3", ">2", "~=1.0", ">=2,<3"]),
    st.sampled_from(["", "", "", "; extra == 'e'", "; sys_platform == 'win32'", "; sys_platform == 'wasi'"]),
)
made_up = st.dictionaries(
    st.sampled_from(NAMES),
    st.dictionaries(st.sampled_from(["1.0", "2.0", "3.0"]), st.lists(requirement, max_size=3), max_size=3),
    max_size=4,
)


def fits_together(choice: Mapping[str, str], versions: Versions, roots: Sequence[str]) -> bool:
    """Whether a choice meets the roots and all that it requires itself, seen from every extra that is asked for."""
    pending = [Requirement(text) for text in roots]
    seen: set[tuple[str, bool]] = set()
    while pending:
        one = pending.pop()
        if one.marker is not None and not PYTHON.wants(one, frozenset({""})):
            continue
        if one.name not in choice or choice[one.name] not in one.specifier:
            return False
        for extra in {False, "e" in one.extras}:
            if (one.name, extra) not in seen:
                seen.add((one.name, extra))
                for text in versions[one.name][choice[one.name]]:
                    required = Requirement(text)
                    if PYTHON.wants(required, frozenset({"e", ""} if extra else {""})):
                        required.marker = None
                        pending.append(required)
    return True


def some_choice_fits(versions: Versions, roots: Sequence[str]) -> bool:
    options = [[(name, version) for version in [None, *versions[name]]] for name in versions]
    return any(
        fits_together({name: version for name, version in choice if version is not None}, versions, roots)
        for choice in itertools.product(*options)
    )


@settings(max_examples=400)
@given(made_up, st.lists(requirement, min_size=1, max_size=3))
def test_versions_that_fit_are_found_wherever_there_are_any(versions: Versions, roots: list[str]) -> None:
    try:
        choice = chosen(MadeUp(versions), *roots)
    except PackageError:
        assert not some_choice_fits(versions, roots)
    else:
        assert fits_together(choice, versions, roots)


def test_a_later_requirement_has_an_earlier_choice_made_again() -> None:
    index = MadeUp({"top": {"1.0": ["base", "side"]}, "side": {"1.0": ["base<2"]}, "base": {"1.0": [], "2.0": []}})
    assert chosen(index, "top") == {"top": "1.0", "side": "1.0", "base": "1.0"}


def test_an_older_version_is_taken_whose_requirements_can_be_met() -> None:
    index = MadeUp({"top": {"3.0": ["compiled>=2"], "2.0": ["compiled"], "1.0": ["pure"]}, "pure": {"1.0": []}})
    assert chosen(index, "top") == {"top": "1.0", "pure": "1.0"}


def test_what_is_not_to_blame_is_not_tried_again() -> None:
    """Of ten packages with ten versions each one cannot have what it needs: the other nine are left as they are."""
    many = {f"p{n}": {f"{v}.0": ["base>=1"] for v in range(1, 11)} for n in range(9)}
    index = MadeUp({**many, "last": {"2.0": ["base<1"], "1.0": []}, "base": {"1.0": []}})
    found = chosen(index, *many, "last")
    assert found == {**dict.fromkeys(many, "10.0"), "last": "1.0", "base": "1.0"}
    assert len(index.rounds) < 8


def test_many_are_asked_for_at_a_time() -> None:
    index = MadeUp(
        {"top": {"1.0": ["a", "b", "c"]}, "a": {"1.0": ["d"]}, "b": {"1.0": ["d"]}, "c": {"1.0": []}, "d": {"1.0": []}}
    )
    chosen(index, "top")
    assert index.rounds == [["top"], ["a", "b", "c"], ["d"]]


def test_a_circle_is_walked_once() -> None:
    index = MadeUp({"a": {"1.0": ["b"]}, "b": {"1.0": ["a[all]"]}})
    assert chosen(index, "a") == {"a": "1.0", "b": "1.0"}
    itself = MadeUp({"a": {"1.0": ["a[one] ; extra == 'all'", "b ; extra == 'one'"]}, "b": {"1.0": []}})
    assert chosen(itself, "a[all]") == {"a": "1.0", "b": "1.0"}


def test_only_names_and_versions_are_asked_for() -> None:
    index = MadeUp({"top": {"1.0": ["Some.Thing[x, y] (>=1) ; python_version >= '3'"]}, "some-thing": {"1.0": []}})
    chosen(index, "top")
    assert index.rounds == [["top"], ["some-thing>=1"]]


def test_versions_for_another_python_are_passed_over() -> None:
    requires_python = {"top 3.0": ">=3.14", "top 2.0": ">=3.5.*", "top 1.0": ">=3.13"}  # the second means nothing
    index = MadeUp({"top": {"3.0": [], "2.0": [], "1.0": []}}, requires_python)
    assert chosen(index, "top") == {"top": "2.0"}
    with pytest.raises(PackageError, match=r"top 3\.0 requires Python >=3\.14"):
        chosen(index, "top>=3")
    with pytest.raises(PackageError, match=r"mine 1\.0 requires Python <3, and the guest's is 3\.13"):
        chosen(index, local=[Distribution("mine", "1.0", (), "<3")])


def test_a_version_before_its_release_or_withdrawn_may_be_pinned_after_nothing_was_found() -> None:
    class Withdrawn(MadeUp):
        def _newest(self, name: str, specifiers: SpecifierSet) -> Offer | None:
            pinned = any(one.operator == "==" for one in specifiers)
            return super()._newest(name, specifiers) if name != "old" or pinned else None

    index = Withdrawn({"top": {"1.0": ["old", "pin"]}, "pin": {"1.0": ["old==1.0"]}, "old": {"1.0": []}})
    assert chosen(index, "pin", "top") == {"pin": "1.0", "top": "1.0", "old": "1.0"}


def test_a_local_wheel_is_the_only_one_of_its_name() -> None:
    mine = Distribution("mine", "1.0", ("base<2",))
    index = MadeUp({"mine": {"9.0": []}, "top": {"2.0": ["mine>=2"], "1.0": ["mine"]}, "base": {"1.0": [], "2.0": []}})
    assert chosen(index, "top", local=[mine]) == {"top": "1.0", "mine": "1.0", "base": "1.0"}
    with pytest.raises(PackageError, match=r"top 2\.0 needs mine>=2; the local package mine 1\.0 is given"):
        chosen(index, "top>=2", local=[mine])
    with pytest.raises(PackageError, match=r"mine is given twice: as 1\.0 and as 2\.0"):
        chosen(index, local=[mine, Distribution("mine", "2.0")])


def test_a_conflict_names_all_that_ask() -> None:
    index = MadeUp({"one": {"1.0": ["base<2"]}, "two": {"1.0": ["base>=2"]}, "base": {"1.0": [], "2.0": []}})
    reason = r"the requirements one, two conflict:\none 1\.0 needs base<2\ntwo 1\.0 needs base>=2"
    with pytest.raises(PackageError, match=reason):
        chosen(index, "one", "two")
    with pytest.raises(PackageError, match=r"top cannot be had: top 1\.0 needs gone>=3; there is no gone>=3"):
        chosen(MadeUp({"top": {"1.0": ["gone>=3"]}}), "top")


@pytest.mark.parametrize(
    ("bound", "value", "reason"),
    [
        ("MAX_ASKED", 5, "more than 5 downloads to find versions for top that fit"),
        ("MAX_STEPS", 5, "no versions for top were found that fit together: say which"),
        ("MAX_DISTRIBUTIONS", 5, "top need more than 5 distributions"),
        ("MAX_IMAGE_BYTES", 0, "the packages of an image may take 0 MiB"),
    ],
)
def test_a_search_without_an_end_is_given_up(
    bound: str, value: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Large(MadeUp):
        def read(self, offer: Offer) -> Distribution:
            return Distribution(offer.distribution.name, offer.distribution.version, files={"a.py": b"x"})

    monkeypatch.setattr(resolution, bound, value)
    long = {f"n{n}": {"2.0": [f"n{n + 1}"], "1.0": [f"n{n + 1}"]} for n in range(8)}
    end: dict[str, dict[str, list[str]]] = (
        {"n8": {"1.0": []}} if bound in ("MAX_IMAGE_BYTES", "MAX_DISTRIBUTIONS") else {}
    )
    with pytest.raises(PackageError, match=reason):
        chosen(Large({"top": {"1.0": ["n0"]}, **long, **end}), "top")


HOSTILE = [
    "a" * 5000,
    "a; " + "(" * 2000 + "os_name == 'x'" + ")" * 2000,
    "a>=" + "9" * 4090,
    "a==" + "1." * 2000 + "0",
    "a; sys_platform ~= 'wasi'",
    "a; python_version in 3",
    "a; 'x' == 'y'",
    "a; os_name == os_name",
    "a; unknown == '1'",
    "a; extra ~= 'x'",
    "a; 'x' in extras",
    "a; 'x' in dependency_groups",
    "a; platform_release >= '1'",
    "a[" + "x," * 1000 + "x]",
    "a\0",
    "é",
    "a>=1e5",
    "",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_whatever_stands_for_a_requirement_it_is_one_or_refused(text: str) -> None:
    index = MadeUp({"top": {"1.0": [text]}, "a": {"1.0": []}})
    said = ""
    try:
        assert set(chosen(index, "top")) <= {"top", "a"}
    except PackageError as error:
        said = str(error)
    assert len(said) < 2000
