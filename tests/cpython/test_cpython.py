"""A short list of CPython's own tests, and the runner of all of them (`python -m tests.cpython`)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cpython.expected import PATH, UNKNOWN, Expectations, Expected, Reason
from tests.cpython.running import LIMITS, ON_A_MOUNT, ModuleResult, run_module
from tests.cpython.sources import KEPT, ROOT, NoSources, directory_of_tests, modules
from tests.cpython.wanted import SHORT_LIST, all_of

pytestmark = pytest.mark.long

PACKAGE = {
    "__init__.py": "",
    "support.py": "",
    "regrtest.py": "",
    "test_made.py": """
import atexit, os, unittest

class Made(unittest.TestCase):
    def test_a_passes(self):
        with open("made.txt", "w") as file:
            file.write("x")
        self.assertEqual(os.listdir(), ["made.txt"])

    def test_b_never_ends(self):
        while True:
            pass

    def test_c_fails(self):
        self.assertEqual(1, 2)

    def test_d_ends_the_guest(self):
        os._exit(3)

    def test_e_fails_in_part(self):
        for n in range(3):
            with self.subTest(n=n):
                self.assertEqual(n, 1)

    def test_f_skips(self):
        self.skipTest("no time")

    def test_g_raises(self):
        {}["key"]

    @unittest.expectedFailure
    def test_h_passes_though_it_should_not(self):
        pass

    @unittest.expectedFailure
    def test_i_fails_as_it_should(self):
        self.fail()

    def test_j_needs_a_module(self):
        import _testcapi
        _testcapi.something(1)

class Unfit(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        raise OSError("not here")

    def test_never(self):
        pass
""",
    "test_ends_at_import.py": "import os; os._exit(0)",
    "test_skips_at_import.py": "import unittest\nraise unittest.SkipTest('not here')",
    "test_fails_at_import.py": "import no_such_module",
}


@pytest.fixture(scope="module")
def cpython() -> Path:
    try:
        return directory_of_tests(KEPT)
    except NoSources as problem:
        pytest.skip(str(problem))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package ``test`` with a test of each ending."""
    directory = tmp_path_factory.mktemp("made")
    for name, text in PACKAGE.items():
        (directory / name).write_text(text)
    return directory


@pytest.mark.parametrize("module", SHORT_LIST)
def test_a_module_comes_to_what_is_expected(module: str, cpython: Path) -> None:
    expectations = Expectations.read()
    expected = expectations.modules[module]
    result = run_module(module, cpython, list(expected.left_out), expected.has)
    assert not expectations.differences(result)


def test_the_list_has_every_module(cpython: Path) -> None:
    assert sorted(Expectations.read().modules) == sorted(all_of(modules(cpython)))


def test_the_list_gives_a_reason_for_each_failure() -> None:
    expectations = Expectations.read()
    for name, expected in expectations.modules.items():
        for test, reason in {**expected.fails, **expected.varies, **expected.left_out}.items():
            assert reason != UNKNOWN, (name, test)
            assert expectations.reasons[reason].words


def test_the_list_is_written_as_it_is_read(tmp_path: Path) -> None:
    Expectations.read().write(tmp_path / "expected.toml")
    assert (tmp_path / "expected.toml").read_text("utf-8") == PATH.read_text("utf-8")


@pytest.mark.parametrize("where", ["", ON_A_MOUNT])
def test_whatever_ends_a_guest_costs_one_test(made: Path, where: str) -> None:
    limits = LIMITS.model_copy(update={"fuel": 500_000_000})
    result = run_module(f"test_made{where}", made, limits=limits)
    assert {name: outcome for name, (outcome, _) in result.bad.items()} == {
        "Made.test_b_never_ends": "ended",
        "Made.test_c_fails": "failure",
        "Made.test_d_ends_the_guest": "ended",
        "Made.test_e_fails_in_part": "failure",
        "Made.test_g_raises": "error",
        "Made.test_h_passes_though_it_should_not": "failure",
        "Made.test_j_needs_a_module": "error",
        "setUpClass (Unfit)": "error",
    }
    assert result.skipped == {"Made.test_f_skips": "no time"}
    assert result.tests == 10
    assert "fuel" in result.bad["Made.test_b_never_ends"][1]
    assert "AssertionError: 0 != 1" in result.bad["Made.test_e_fails_in_part"][1]
    assert "KeyError: 'key'" in result.bad["Made.test_g_raises"][1]


def test_tests_are_left_out_and_absent_modules_skip(made: Path) -> None:
    left_out = [f"Made.test_{name}" for name in ("b_never_ends", "d_ends_the_guest")]
    result = run_module("test_made", made, left_out, ["_testcapi"])
    assert result.tests == 8
    assert result.skipped == {
        "Made.test_f_skips": "no time",
        "Made.test_j_needs_a_module": "requires _testcapi.something",
    }


@pytest.mark.parametrize(
    ("module", "bad", "skipped"),
    [
        ("test_ends_at_import", {"(after the import)": "ended"}, []),
        ("test_skips_at_import", {}, ["(all)"]),
        ("test_fails_at_import", {"unittest.loader._FailedTest.test_fails_at_import": "error"}, []),
    ],
)
def test_a_module_that_cannot_be_imported_is_told(
    made: Path, module: str, bad: dict[str, str], skipped: list[str]
) -> None:
    result = run_module(module, made)
    assert {name: outcome for name, (outcome, _) in result.bad.items()} == bad
    assert list(result.skipped) == skipped


def test_what_is_not_as_expected_is_told() -> None:
    reasons = {"why": Reason("for want of it")}
    expected = Expected(3, 1, fails={"A.fails": "why"}, varies={"A.varies": "why"})
    expectations = Expectations(reasons, {"test_made": expected})
    bad = {"A.fails": ("error", "OSError")}
    fine = ModuleResult("test_made", 3, {"A.skips": ""}, bad)
    assert not expectations.differences(fine)
    assert not expectations.differences(
        ModuleResult("test_made", 3, {"A.skips": ""}, {**bad, "A.varies": ("error", "")})
    )
    for result, told in [
        (ModuleResult("test_other", 3, {}, {}), "not in the list"),
        (ModuleResult("test_made", 2, {"A.skips": ""}, bad), "2 tests were started, and not 3"),
        (ModuleResult("test_made", 3, dict.fromkeys("abc", ""), bad), "3 tests were skipped, and not 1"),
        (ModuleResult("test_made", 3, {"A.skips": ""}, {}), "A.fails: should fail (for want of it), and did not"),
        (ModuleResult("test_made", 3, {"A.skips": ""}, {**bad, "A.new": ("failure", "1 != 2")}), "A.new: failure"),
    ]:
        assert [told in difference for difference in expectations.differences(result)] == [True]


def test_a_new_result_keeps_reasons_and_finds_others_by_their_pattern() -> None:
    reasons = {"why": Reason("for want of it"), "files": Reason("there are no links", r"Operation not permitted")}
    expected = Expected(3, 1, ["sockets"], {"A.fails": "why", "A.gone": "why"}, {"A.varies": "why"})
    expectations = Expectations(reasons, {"test_made": expected})
    bad = {
        "A.fails": ("error", "PermissionError: Operation not permitted"),
        "A.links": ("error", "PermissionError: Operation not permitted"),
        "A.new": ("failure", "1 != 2"),
        "A.varies": ("failure", "late"),
    }
    expectations.record(ModuleResult("test_made", 4, {}, bad))
    recorded = expectations.modules["test_made"]
    assert recorded.fails == {"A.fails": "why", "A.links": "files", "A.new": UNKNOWN}
    assert (recorded.tests, recorded.skipped, recorded.has, recorded.varies) == (4, 0, ["sockets"], {"A.varies": "why"})


@pytest.mark.parametrize("inside", ["Lib/test", "Python-3.13.15/Lib/test", ""])
def test_a_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str) -> None:
    tests = tmp_path / inside
    (tests / "test_asyncio").mkdir(parents=True)
    for name in ("regrtest.py", "test_a.py", "test_asyncio/test_b.py", "test_asyncio/utils.py", "support.py"):
        (tests / name).touch()
    monkeypatch.setenv("CPYTHON_TESTS", str(tmp_path))
    assert directory_of_tests(tmp_path / "kept") == tests
    assert modules(tests) == ["test_a", "test_asyncio.test_b"]


def test_no_directory_says_what_to_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPYTHON_TESTS", str(tmp_path / "absent"))
    with pytest.raises(NoSources, match=r"absent.*name python3\.13_3\.13\.15\.orig\.tar\.xz"):
        directory_of_tests(tmp_path)


@pytest.mark.parametrize(
    ("named", "module", "code", "said"),
    [
        ("absent", "test_made", 2, "which is neither an archive nor has Lib/test"),
        ("", "test_absent", 2, "no such test modules: test_absent"),
        ("", "test_fails_at_import", 1, "is not in the list"),
    ],
)
def test_the_command_fails_for_what_it_does_not_know(made: Path, named: str, module: str, code: int, said: str) -> None:
    command = [sys.executable, "-m", "tests.cpython", module, "--again", "--jobs", "1"]
    env = {**os.environ, "CPYTHON_TESTS": str(made / named)}
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert said in done.stdout + done.stderr
