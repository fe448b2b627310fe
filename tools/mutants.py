"""Take each line of defence out of a copy of the tree, and see that the tests named for it fail.

Usage: mutants.py [--table] [--jobs N] [--passed] [--share K/N] [WORD ...]
The list is mutants.toml, beside this file. With words only those are tried whose name contains one of them; with
``--share 2/3`` the second of three shares, which together are all. First the named tests are run with everything in
place: they must pass; with ``--passed`` the caller sees to that. Exits with 1 if one defence can be missing unnoticed.
With ``--table`` nothing is run; the table in THREAT_MODEL.md is written anew from the list.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).parents[1]
LIST = ROOT / "tools" / "mutants.toml"
DOCUMENT = ROOT / "THREAT_MODEL.md"
TABLE_HEAD = "| taken out | what failed | how |\n| --- | --- | --- |\n"

LONGEST_SECONDS = 120
LONGEST_END_SECONDS = 15
"""The same where not to end is a way to fail."""
CAUGHT_VARIABLE = "WASM_SANDBOX_TEST_CAUGHT"
"""Names the file in which a test run lists the tests that failed (`mutants_plugin`)."""
CACHE_VARIABLE = "WASM_SANDBOX_CACHE_DIR"
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "dist", "build")

FAIL, DIE, HANG, ANY = "fail", "die", "hang", "any"
ENDS = {FAIL: "", DIE: ": the process dies", HANG: ": it does not end", ANY: ": it fails, dies or does not end"}
"""What a test does without the defence -> what the table says of it. `ANY` where a guest goes on with memory that is
not its own: what it does then is up to chance."""


@dataclass(frozen=True)
class Patch:
    """A piece of text of one file, and what stands there instead."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Row:
    """A line of defence.

    Attributes:
        without: what is taken out.
        patches: how; none where it is taken out by hand.
        tests: pytest's names of tests of which each must fail then.
        ends: in which way, one of `ENDS`.
        by_hand: what failed when it was tried by hand.
    """

    without: str
    patches: tuple[Patch, ...] = ()
    tests: tuple[str, ...] = ()
    ends: str = FAIL
    by_hand: str = ""

    @property
    def line(self) -> str:
        """Row of the table."""
        names = dict.fromkeys(map(function_name, self.tests))
        failed = ", ".join(f"`{name}`" for name in names) + ENDS[self.ends]
        return f"| {self.without} | {self.by_hand or failed} | {'by hand' if self.by_hand else 'in CI'} |"


def function_name(test: str) -> str:
    """Name of a test function, from pytest's name of it."""
    return test.rpartition("::")[2].partition("[")[0]


def read_list(path: Path = LIST) -> list[Row]:
    """The rows, in the order of the table.

    Raises:
        SystemExit: if a row lacks a key, or has one that there is not.
    """
    rows = []
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["row"]:
        name = entry.get("without", "?")
        try:
            row = Row(entry.pop("without"), tuple(_patches(entry)), tuple(entry.pop("tests", ())), **entry)
        except (KeyError, TypeError) as error:
            raise SystemExit(f"{path.name}: {name}: {error}") from None
        if row.ends not in ENDS or bool(row.by_hand) is bool(row.patches and row.tests):
            raise SystemExit(f"{path.name}: {name}: it has file, old, new and tests, or by_hand")
        rows.append(row)
    return rows


def _patches(entry: dict[str, str]) -> Iterator[Patch]:
    if "file" in entry:
        yield Patch(entry.pop("file"), entry.pop("old"), entry.pop("new"))
    for other in entry.pop("also", ()):
        yield Patch(**other)  # type: ignore[arg-type]  # TOML's tables


def defects(rows: Sequence[Row], root: Path = ROOT) -> list[str]:
    """What does not fit the tree: texts that are not there exactly once, tests that there are not."""
    found = []
    for row in rows:
        for patch in row.patches:
            file = root / patch.file
            count = file.read_text(encoding="utf-8").count(patch.old) if file.is_file() else 0
            if count != 1:
                found.append(f"{row.without}: {patch.file} has the text to replace {count} times")
            if patch.old == patch.new:
                found.append(f"{row.without}: nothing is replaced")
        for test in row.tests:
            path, _, _ = test.partition("::")
            defined = rf"^\s*(?:async )?def {re.escape(function_name(test))}\("
            file = root / path
            if not file.is_file() or not re.search(defined, file.read_text(encoding="utf-8"), re.MULTILINE):
                found.append(f"{row.without}: there is no {test}")
    return found


# --- The table --------------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    """Table of the rows."""
    return TABLE_HEAD + "".join(f"{row.line}\n" for row in rows)


def table_in(document: str) -> str:
    """The table as a document has it, from its head to the next empty line.

    Raises:
        ValueError: if there is none.
    """
    start = document.index(TABLE_HEAD)
    return document[start : document.index("\n\n", start) + 1]


def write_table(rows: Sequence[Row]) -> None:
    """Write the table into the document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(text.replace(table_in(text), table(rows)), encoding="utf-8")


# --- Trying -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tree:
    """Copy of the tree, with an image cache of its own."""

    root: Path
    cache: Path

    def run(self, tests: Sequence[str], seconds: float, *options: str) -> tuple[str, set[str], str]:
        """Run tests: how they ended (`FAIL`, `DIE`, `HANG`, empty if they passed), which failed, what was printed."""
        caught = self.root.parent / "caught"
        caught.unlink(missing_ok=True)
        scratch = self.root.parent / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700)
        environ = {
            **{name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")},  # another pytest's
            "PYTHONPATH": str(self.root),
            CACHE_VARIABLE: str(self.cache),
            CAUGHT_VARIABLE: str(caught),
            "TMPDIR": str(scratch),  # an attack that succeeds leaves its traces there
        }
        # -m pytest puts this directory first: the package is the copy's, also for what a test starts
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tools.mutants_plugin"]
        command += ["--tb=short", *(options or ("-p", "no:xdist")), *tests]
        with subprocess.Popen(
            command, cwd=self.root, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", start_new_session=True,
        ) as process:  # fmt: skip
            try:
                printed, _ = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                printed, _ = process.communicate()
                return HANG, set(), printed
        failed = set(caught.read_text(encoding="utf-8").splitlines()) if caught.is_file() else set()
        if process.returncode < 0:
            return DIE, failed, printed
        return "" if process.returncode == 0 else FAIL, failed, printed

    def prepare(self) -> None:
        """Fill the cache with what the default cache has, where the built-in images are prepared if need be."""
        environ = {**os.environ, "PYTHONPATH": str(self.root)}
        for options in ((), ("--image", "science")):
            command = [sys.executable, "-m", "wasm_sandbox", "warm", *options]
            done = subprocess.run(command, cwd=self.root, env=environ, stdout=subprocess.PIPE, text=True, check=True)
        image = Path(done.stdout.rstrip("\n").rpartition(": ")[2])
        shutil.copytree(image.parent, self.cache, dirs_exist_ok=True)

    @contextmanager
    def without(self, row: Row) -> Iterator[None]:
        """Take a defence out, inside of the block."""
        kept = {patch.file: (self.root / patch.file).read_text(encoding="utf-8") for patch in row.patches}
        try:
            for patch in row.patches:
                file = self.root / patch.file
                self._write(file, file.read_text(encoding="utf-8").replace(patch.old, patch.new))
            yield
        finally:
            for name, text in kept.items():
                self._write(self.root / name, text)

    @staticmethod
    def _write(file: Path, text: str) -> None:
        file.write_text(text, encoding="utf-8")
        for code in (file.parent / "__pycache__").glob(f"{file.stem}.*"):  # known by size and second only
            code.unlink()


def link_or_copy(source: str, target: str) -> str:
    """Copy a file of an image cache; code, which is large, replaced and never written to, becomes a link."""
    if source.endswith(".cwasm"):
        os.link(source, target)
        return target
    return shutil.copy2(source, target)


def digests(directory: Path) -> dict[str, str]:
    """SHA-256 of each file of a directory."""
    found = {}
    for path in sorted(filter(Path.is_file, directory.iterdir())):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def try_without(tree: Tree, row: Row, prepared: Path) -> str:
    """Take a defence out and run its tests: what is wrong with that, empty if they fail as they should."""
    shutil.rmtree(tree.cache, ignore_errors=True)
    # what is prepared without a defence must not be used by others
    shutil.copytree(prepared, tree.cache, copy_function=link_or_copy)
    with tree.without(row):
        ended, failed, printed = tree.run(
            row.tests, LONGEST_END_SECONDS if row.ends in (HANG, ANY) else LONGEST_SECONDS
        )
    unnoticed = [test for test in row.tests if function_name(test) not in failed]
    if ended != row.ends and (row.ends != ANY or not ended):
        return f"the tests should {FAIL if row.ends == ANY else row.ends}, and {ended or 'pass'}\n{printed}"
    if ended == FAIL and unnoticed:
        return f"passed without it: {', '.join(unnoticed)}\n{printed}"
    return ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the arguments say."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--table", action="store_true", help="write the table into THREAT_MODEL.md")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many are tried at once")
    parser.add_argument("--passed", action="store_true", help="do not run the tests with every defence in place")
    parser.add_argument("--share", type=share, default=(1, 1), help="try one of so many shares (2/3)")
    parser.add_argument("words", nargs="*", help="try only those with one of these words in their name")
    chosen = parser.parse_args(arguments)
    rows = read_list()
    if wrong := defects(rows):
        raise SystemExit("\n".join(wrong))
    if chosen.table:
        write_table(rows)
        return
    words = chosen.words or [""]
    rows = share_of([row for row in rows if row.patches and any(word in row.without for word in words)], *chosen.share)
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        raise SystemExit(1 if _try_all(rows, Path(directory), chosen.jobs, chosen.passed) else 0)


def share(text: str) -> tuple[int, int]:
    """Number and count of a share, as in ``2/3``."""
    number, _, count = text.partition("/")
    if not 1 <= int(number) <= int(count):
        raise ValueError(text)
    return int(number), int(count)


def share_of(rows: Sequence[Row], number: int, count: int) -> list[Row]:
    """One of so many shares of the rows, which are of the same size and together all; the first has number 1."""
    return list(rows[number - 1 :: count])


def _pass(tree: Tree, rows: Sequence[Row], jobs: int) -> bool:
    """Run the tests of all rows with every defence in place; whether they pass."""
    began = time.monotonic()
    every = sorted({test for row in rows for test in row.tests})
    ended, _, printed = tree.run(every, 600, "--numprocesses", str(jobs), "--dist", "worksteal")
    if ended:
        print(f"with every defence in place the tests {ended}:\n{printed}")
        return False
    print(f"{len(every)} tests pass with every defence in place ({time.monotonic() - began:.0f} s)", flush=True)
    return True


def _try_all(rows: Sequence[Row], directory: Path, jobs: int, passed: bool) -> bool:
    """Try all rows; whether one of them went unnoticed."""
    trees: SimpleQueue[Tree] = SimpleQueue()
    for number in range(jobs):
        root = directory / str(number) / "tree"
        shutil.copytree(ROOT, root, ignore=NOT_COPIED)
        trees.put(Tree(root, directory / str(number) / "cache"))

    began = time.monotonic()
    prepared = directory / "cache"
    prepared.mkdir(mode=0o700)
    first = trees.get()
    whole = Tree(first.root, prepared)
    whole.prepare()
    if not passed and not _pass(whole, rows, jobs):
        return True
    trees.put(first)
    before = digests(prepared)

    def one(row: Row) -> str:
        start = time.monotonic()
        tree = trees.get()
        try:
            wrong = try_without(tree, row, prepared)
        finally:
            trees.put(tree)
        print(f"{time.monotonic() - start:5.1f} s  {'UNNOTICED' if wrong else 'noticed'}  {row.without}", flush=True)
        return wrong and f"\n== without {row.without}: {wrong}"

    with ThreadPoolExecutor(jobs) as pool:
        unnoticed = list(filter(None, pool.map(one, rows)))
    if digests(prepared) != before:
        unnoticed.append("\n== files of the image cache were written to: what was tried after that counts for nothing")
    print(*unnoticed, sep="\n")
    print(f"{len(rows)} defences taken out, {len(unnoticed)} unnoticed ({time.monotonic() - began:.0f} s)")
    return bool(unnoticed)


if __name__ == "__main__":
    main()
