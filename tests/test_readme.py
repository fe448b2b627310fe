"""The README and docs/: their code runs, their commands print what is shown, their tables say what is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

import wasm_sandbox
from tests.support.documents import DOCUMENTS, ROOT, Block, Shell, blocks, commands, environment, names, rows
from wasm_sandbox import ErrorKind, Limits, ToolError, errors
from wasm_sandbox.cli.app import cli
from wasm_sandbox.cli.display import exit_code

README = ROOT / "README.md"
DOCS = ROOT / "docs"
TEXT = README.read_text(encoding="utf-8")

posix_only = pytest.mark.skipif(os.name != "posix", reason="the commands are for a POSIX shell")


# --- What is shown runs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.name)
def test_the_python_example_prints_what_its_comments_say(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "example.py"
    file.write_text(block.text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(file)], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment()
    )
    assert (done.returncode, done.stderr) == (0, "")
    # Beside a print, or on lines of its own.
    shown = re.findall(r"^(?:.*\bprint\(.*\)  )?# (.*)$", block.text, re.MULTILINE)
    assert done.stdout.splitlines() == shown
    assert shown


@posix_only
@pytest.mark.parametrize("line", [line for block in blocks("sh") for line in block.text.splitlines()])
def test_a_command_works(line: str, tmp_path: Path) -> None:
    done = Shell(tmp_path).run(line)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@posix_only
@pytest.mark.parametrize(
    "block", [block for block in blocks("console") if not block.needs_the_network], ids=lambda block: block.name
)
def test_the_commands_of_a_block_print_what_is_shown(block: Block, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    assert commands(block.text)
    for line, shown in commands(block.text):
        done = shell.run(line)
        assert (done.returncode, done.stdout) == (0, shown), done.stderr


def test_what_is_not_run_says_that_it_is_text() -> None:
    (make,) = blocks("")
    assert [line.partition("#")[0].strip() for line in make.text.splitlines()] == ["make demo", "make test"]
    assert {block.document for block in blocks("text")} == {
        "architecture",
        "images",
        "network",
        "own-python",
        "scaling",
        "serve",
    }


def test_what_needs_the_network_is_about_packages_and_the_network() -> None:
    assert [block.document for block in blocks("console") if block.needs_the_network] == ["README", "README"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.stem)
def test_its_links_lead_somewhere(document: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", _prose(document)) if "://" not in link]
    assert [link for link in links if not _leads_somewhere(document, link)] == []


# --- The README -----------------------------------------------------------------------------------------


def test_the_readme_is_read_in_five_minutes() -> None:
    assert len(TEXT.splitlines()) <= 200
    assert [block.language for block in blocks("", "python", "sh", "console") if block.document == "README"]


def test_the_readme_leads_to_every_document() -> None:
    assert {document for document in DOCUMENTS[1:] if f"(docs/{document.name})" not in TEXT} == set()


def test_the_readme_names_every_exception_that_a_caller_can_catch_and_a_table_says_what_to_do() -> None:
    public = [getattr(wasm_sandbox, name) for name in wasm_sandbox.__all__]
    raised = {value.__name__ for value in [*public, *vars(errors).values()] if _is_exception(value)}
    section = TEXT.partition("## Exceptions\n")[2].partition("\n## ")[0]
    for listed in (names(section), [names(row[0])[0] for row in rows(DOCS / "results.md", "exception")]):
        assert len(listed) == len({*listed})
        assert {*listed} == raised | {"ToolSourceError"}


def test_the_readme_says_the_defaults_of_the_limits() -> None:
    limits = Limits()
    section = " ".join(TEXT.partition("## Limits\n")[2].partition("\n## ")[0].split())
    for words in (
        f"{limits.fuel:,} units of fuel",
        f"{limits.timeout_seconds:g} s of wall time",
        f"{limits.memory_bytes >> 20} MiB of memory",
        f"{limits.output_bytes >> 20} MiB kept of stdout",
        f"a result of {limits.result_bytes >> 20} MiB",
        f"{limits.files_bytes >> 20} MiB in {limits.file_count} files",
    ):
        assert words in section


# --- The tables -----------------------------------------------------------------------------------------


def test_the_table_of_errors_is_complete_and_says_their_exit_codes() -> None:
    shown = {names(row[0])[0]: int(row[2]) for row in rows(DOCS / "results.md", "`ErrorKind`")}
    assert shown == {kind.value: exit_code(ToolError(kind=kind, message="")) for kind in ErrorKind}


def test_the_table_of_a_result_names_every_field() -> None:
    shown = {name for row in rows(DOCS / "results.md", "field") for name in names(row[0])}
    assert shown == {*wasm_sandbox.ToolExecutionResult.model_fields}


def test_the_table_of_limits_names_every_limit_and_its_default() -> None:
    defaults = {names(row[0])[0]: row[2] for row in rows(DOCS / "limits.md", "`Limits(…)`")}
    limits = Limits()
    assert defaults == {
        "fuel": f"{limits.fuel:,}",
        "memory_bytes": f"{limits.memory_bytes >> 20} MiB",
        "timeout_seconds": f"{limits.timeout_seconds:g} s",
        "output_bytes": f"{limits.output_bytes >> 20} MiB",
        "result_bytes": f"{limits.result_bytes >> 20} MiB",
        "files_bytes": f"{limits.files_bytes >> 20} MiB",
        "file_count": f"{limits.file_count}",
        "host_calls": f"{limits.host_calls:,}",
        "host_pending": f"{limits.host_pending:,}",
        "host_bytes": f"{limits.host_bytes >> 20} MiB",
        "host_seconds": "none" if limits.host_seconds is None else "",
        "host_time_counts": "yes" if limits.host_time_counts else "no",
    }
    assert {*defaults, "deterministic"} == {*Limits.model_fields}


def test_the_table_of_commands_names_every_command() -> None:
    shown = set()
    for row in rows(DOCS / "command-line.md", "command"):
        verb, _, rest = names(row[0])[0].partition(" ")
        is_group = isinstance(cli.commands[verb], click.Group)
        shown |= {f"{verb} {one}" for one in rest.split("\\|")} if is_group else {verb}
    assert shown == {*_commands()}


def test_the_table_of_options_names_every_option_of_run_and_exec() -> None:
    shown: dict[str, str] = {}
    for row in rows(DOCS / "command-line.md", "option"):
        shown |= {name.split()[0]: row[1] for name in names(row[0])}
    for verb, other in (("run", "exec"), ("exec", "run")):
        assert {name for name, text in shown.items() if not text.endswith(f"`{other}` only")} == _options(verb)


def test_the_table_of_exit_codes_has_those_of_the_kinds_of_errors() -> None:
    shown = {int(row[0]) for row in rows(DOCS / "command-line.md", "exit code")}
    assert shown == {exit_code(ToolError(kind=kind, message="")) for kind in ErrorKind} | {0, 4, 130}


def test_the_table_of_environment_variables_names_every_one_that_the_package_knows() -> None:
    shown = {names(row[0])[0] for row in rows(DOCS / "configuration.md", "variable")}
    sources = [file.read_text(encoding="utf-8") for file in (ROOT / "wasm_sandbox").rglob("*.py")]
    assert shown == {name for source in sources for name in re.findall(r"WASM_SANDBOX_[A-Z_]+", source)}


def test_the_table_of_extras_names_every_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    shown = {names(row[0])[0] for row in rows(DOCS / "configuration.md", "extra")}
    assert shown == {f"wasm-sandbox[{extra}]" for extra in project["optional-dependencies"]}


def _commands() -> list[str]:
    found = []
    for verb, command in cli.commands.items():
        found += [f"{verb} {one}" for one in command.commands] if isinstance(command, click.Group) else [verb]
    return found


def _options(verb: str) -> set[str]:
    options = [option for option in cli.commands[verb].params if isinstance(option, click.Option)]
    return {name for option in options for name in option.opts}


def _is_exception(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Exception)


def _prose(document: Path) -> str:
    return re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def _leads_somewhere(document: Path, link: str) -> bool:
    path, _, heading = link.partition("#")
    target = document.parent / path if path else document
    return target.exists() and (not heading or heading in _anchors(target))


def _anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _prose(document), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
