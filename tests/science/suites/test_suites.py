"""A few files of numpy's and pandas's own tests, and the runner of all of them (`python -m tests.science.suites`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cpython.expected import UNKNOWN, Expectations
from tests.science.suites.__main__ import HEAD, PATH
from tests.science.suites.running import LIMITS, run_file
from tests.science.suites.sources import PACKAGES, NoSources, directory_of, files

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

SHORT_LIST = (
    "numpy/_core/tests/test_indexing.py",
    "numpy/_core/tests/test_item_selection.py",
    "numpy/fft/tests/test_helper.py",
    "numpy/linalg/tests/test_regression.py",
    "numpy/random/tests/test_seed_sequence.py",
    "pandas/tests/frame/test_query_eval.py",
    "pandas/tests/libs/test_lib.py",
    "pandas/tests/reshape/test_cut.py",
)

MADE = """
import os
import numpy as np
import pytest

@pytest.mark.parametrize("n", [1, 2])
def test_a(n):
    assert np.arange(2).sum() == n

def test_b_ends_the_guest():
    os._exit(3)

def test_c_skips():
    pytest.skip("no time")

@pytest.mark.xfail
def test_d_fails_as_it_should():
    assert False

@pytest.fixture
def unfit():
    raise OSError("not here")

def test_e_has_no_fixture(unfit):
    pass

def test_f_never_ends():
    while True:
        np.ones(10**6).cumsum()

def test_g_needs_what_only_the_sources_have():
    from numpy._core import _rational_tests
    _rational_tests.rational(1, 2)

@pytest.mark.slow
def test_h_is_slow():
    assert False
"""


def source_of(package: str) -> Path:
    try:
        return directory_of(package)
    except NoSources as problem:
        pytest.skip(str(problem))


@pytest.mark.parametrize("name", SHORT_LIST)
def test_a_file_comes_to_what_is_expected(name: str) -> None:
    expectations = Expectations.read(PATH)
    expected = expectations.modules[name]
    result = run_file(name, source_of(name.partition("/")[0]), list(expected.left_out))
    assert not expectations.differences(result)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_list_has_every_file_and_no_other(package: str) -> None:
    listed = Expectations.read(PATH).modules
    assert [name for name in listed if name.startswith(f"{package}/")] == files(package, source_of(package))


def test_the_list_gives_a_reason_for_each_failure() -> None:
    expectations = Expectations.read(PATH)
    for name, expected in expectations.modules.items():
        for test, reason in {**expected.fails, **expected.varies, **expected.left_out}.items():
            assert reason != UNKNOWN, (name, test)
            assert expectations.reasons[reason].words


def test_the_list_is_written_as_it_is_read(tmp_path: Path) -> None:
    Expectations.read(PATH).write(tmp_path / "expected.toml", HEAD)
    assert (tmp_path / "expected.toml").read_text("utf-8") == PATH.read_text("utf-8")


def test_each_ending_of_a_test_is_told(tmp_path: Path) -> None:
    place = tmp_path / "numpy" / "tests"
    place.mkdir(parents=True)
    (place / "test_made.py").write_text(MADE)
    result = run_file("numpy/tests/test_made.py", tmp_path, limits=LIMITS.model_copy(update={"fuel": 5_000_000_000}))
    outcomes = {name: outcome for name, (outcome, _) in result.bad.items()}
    assert outcomes == {
        "test_a[2]": "failure",
        "test_b_ends_the_guest": "ended",
        "test_e_has_no_fixture": "error",
        "test_f_never_ends": "ended",
    }
    assert set(result.skipped) == {"test_c_skips", "test_g_needs_what_only_the_sources_have"}
    assert result.tests == 8


def test_a_directory_that_skips_itself_is_told(tmp_path: Path) -> None:
    place = tmp_path / "numpy" / "tests"
    place.mkdir(parents=True)
    (place / "conftest.py").write_text("import pytest\npytest.importorskip('no_such_module')\n")
    (place / "test_made.py").write_text("def test_a():\n    assert False\n")
    result = run_file("numpy/tests/test_made.py", tmp_path)
    assert (result.tests, result.bad, list(result.skipped)) == (0, {}, ["(all)"])
    assert "no_such_module" in result.skipped["(all)"]
