"""The list of defences that are taken out: it fits the tree, and THREAT_MODEL.md has its table."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tools import mutants

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]
DEFENCE = """
def f(x):
    if x > 1:
        raise ValueError
    return x
"""
TESTS = """
import pytest, defence
def test_it_is_refused():
    with pytest.raises(ValueError):
        defence.f(2)
@pytest.mark.parametrize("x", [0, 1])
def test_it_is_taken(x):
    assert defence.f(x) == x
def test_it_ends():
    if defence.f(0) == 9:
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_each_text_is_there_once_and_each_test_exists() -> None:
    assert mutants.defects(mutants.read_list()) == []


def test_the_table_is_what_the_list_says() -> None:
    rows = mutants.read_list()
    assert mutants.table_in(mutants.DOCUMENT.read_text(encoding="utf-8")) == mutants.table(rows), (
        "run: python tools/mutants.py --table"
    )
    assert len({row.without for row in rows}) == len(rows)


def test_ci_takes_the_defences_out() -> None:
    assert "make mutants" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "tools/mutants.py" in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_shares_are_together_all_rows(count: int) -> None:
    rows = mutants.read_list()
    shares = [mutants.share_of(rows, number + 1, count) for number in range(count)]
    assert sorted(row.without for share in shares for row in share) == sorted(row.without for row in rows)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("share", ["0/2", "3/2", "2", "a/b", "/"])
def test_a_share_that_is_none_is_refused(share: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        mutants.main(["--share", share])
    assert f"--share: invalid share value: '{share}'" in capsys.readouterr().err


@pytest.fixture
def tree(tmp_path: Path) -> mutants.Tree:
    """A tree with a defence and its tests."""
    root = tmp_path / "tree"
    for name, text in {
        "defence.py": DEFENCE,
        "test_defence.py": TESTS,
        "pyproject.toml": "[tool.pytest.ini_options]\n",
    }.items():
        root.mkdir(exist_ok=True)
        (root / name).write_text(text)
    (root / "tools").mkdir()
    plugin = ROOT / "tools" / "mutants_plugin.py"
    (root / "tools" / "mutants_plugin.py").write_text(plugin.read_text())
    (tmp_path / "prepared").mkdir()
    return mutants.Tree(root, tmp_path / "cache")


def row(old: str, new: str, *tests: str, ends: str = mutants.FAIL) -> mutants.Row:
    patch = mutants.Patch("defence.py", old, new)
    return mutants.Row("a defence", (patch,), tuple(f"test_defence.py::{test}" for test in tests), ends)


@pytest.mark.skipif(sys.platform == "win32", reason="it is run where there are process groups and signals")
@pytest.mark.parametrize(
    ("tried", "said"),
    [
        (row("x > 1", "x > 2", "test_it_is_refused"), ""),
        (row("x > 1", "x > 0", "test_it_is_taken"), ""),
        (row("return x", "return 9", "test_it_ends", ends=mutants.DIE), ""),
        (row("return x", "return 9", "test_it_ends", ends=mutants.ANY), ""),
        (row("x > 1", "x > 2", "test_it_is_refused", ends=mutants.ANY), ""),
        (
            row("x > 1", "x > 2", "test_it_is_refused", "test_it_is_taken"),
            "passed without it: test_defence.py::test_it_is_taken",
        ),
        (row("x > 1", "x >= 2", "test_it_is_refused"), "should fail, and pass"),
        (row("x > 1", "x >= 2", "test_it_is_refused", ends=mutants.ANY), "should fail, and pass"),
        (row("return x", "return", "test_it_ends", ends=mutants.DIE), "should die, and pass"),
        (row("x > 1", "x >", "test_it_is_refused"), "passed without it: test_defence.py::test_it_is_refused"),
    ],
    ids=[
        "missed",
        "missed by one case",
        "the process dies",
        "it dies as it may",
        "it fails as it may",
        "one test is not told apart",
        "not missed",
        "not missed in any way",
        "lives",
        "broken",
    ],
)
def test_a_defence_that_is_not_missed_is_told(
    tree: mutants.Tree, tmp_path: Path, tried: mutants.Row, said: str
) -> None:
    wrong = mutants.try_without(tree, tried, tmp_path / "prepared")
    assert wrong.startswith(said) if said.startswith("passed") else said in wrong
    assert bool(wrong) is bool(said)
    assert (tree.root / "defence.py").read_text() == DEFENCE


def test_what_does_not_fit_the_tree_is_told(tree: mutants.Tree) -> None:
    rows = [
        row("x > 1", "x > 2", "test_it_is_gone"),
        row("not there", "", "test_it_ends"),
        row("x", "y", "test_it_ends"),
    ]
    assert mutants.defects(rows, tree.root) == [
        "a defence: there is no test_defence.py::test_it_is_gone",
        "a defence: defence.py has the text to replace 0 times",
        "a defence: defence.py has the text to replace 3 times",
    ]
