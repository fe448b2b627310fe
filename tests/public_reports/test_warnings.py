"""Warnings (letta PR 2164): `warnings.warn("old")` shows nothing, and `PYTHONWARNINGS` has no effect.

The kind: whatever native Python warns of by default, and whatever the variable asks for, is on standard error; what is
silent by default is silent.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from wasm_sandbox import Tool, run_tool

WARNED = {
    "warn": "import warnings\nwarnings.warn('old')",
    "a category": "import warnings\nwarnings.warn('old', RuntimeWarning)",
    "a deprecation of the tool's own": "import warnings\nwarnings.warn('old', DeprecationWarning)",
    "a deprecation of others": (
        "import warnings\ntext = \"warnings.warn('old', DeprecationWarning)\""
        "\nexec(compile(text, 'lib.py', 'exec'), {'__name__': 'lib', 'warnings': warnings})"
    ),
    "pending": "import warnings\nwarnings.warn('old', PendingDeprecationWarning)",
    "a resource": "import warnings\nwarnings.warn('old', ResourceWarning)",
    "an import": "import warnings\nwarnings.warn('old', ImportWarning)",
    "twice from one line": "import warnings\nfor _ in range(2): warnings.warn('old')",
    "from two lines": "import warnings\nwarnings.warn('old')\nwarnings.warn('old')",
    "a stack level": "import warnings\ndef g(): warnings.warn('old', stacklevel=2)\ng()",
    "a coroutine": "async def g(): pass\ng()",
    "the compiler": "compile('\"\\\\\\\\d\"', 'text', 'exec')",
    "a literal": "compile('assert (1, 2)', 'text', 'exec')",
    "a method of the library": "import datetime\ndatetime.datetime.utcnow()",
    "logging of warnings": "import logging, warnings\nlogging.captureWarnings(True)\nwarnings.warn('old')",
    "silenced": "import warnings\nwarnings.simplefilter('ignore')\nwarnings.warn('old')",
    "always": (
        "import warnings\nwarnings.simplefilter('always')\nfor _ in range(2): warnings.warn('old', ResourceWarning)"
    ),
    "an error": (
        "import warnings\nwarnings.simplefilter('error')\ntry: warnings.warn('old')\nexcept UserWarning as e: print(e)"
    ),
    "its own hook": "import warnings\nwarnings.showwarning = lambda *a: print(a[0])\nwarnings.warn('old')",
    "caught": "import warnings\nwith warnings.catch_warnings(record=True) as w: warnings.warn('old')\nprint(len(w))",
}
VALUES = [
    "ignore", "default", "error", "always", "once", "module", "error::DeprecationWarning", "ignore::UserWarning",
    "default::ResourceWarning,ignore::UserWarning", "nonsense", "error:old", "ignore:old",
    "ignore::RuntimeWarning:__main__", "always::ImportWarning,always::PendingDeprecationWarning", "",
]  # fmt: skip
LINES = ("Warning: ", "Warning\n", "Invalid -W option")


def in_guest(body: str, environ: dict[str, str]) -> tuple[list[str], list[str]]:
    """Printed lines, and kinds and texts of the warnings on standard error."""
    source = "def f():\n" + "".join(f"    {line}\n" for line in body.splitlines())
    result = run_tool(Tool.from_source(source), env=environ)
    return "".join(result.stdout or []).splitlines(), shown("".join(result.stderr or []))


def in_process(body: str, environ: dict[str, str], tmp_path: Path) -> tuple[list[str], list[str]]:
    script = tmp_path / "script.py"
    script.write_text("def f():\n" + "".join(f"    {line}\n" for line in body.splitlines()) + "f()\n")
    command = [sys.executable, "-S", "-s", str(script)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    return done.stdout.splitlines(), shown(done.stderr)


def shown(stderr: str) -> list[str]:
    """Class and text of each warning, without its place, and what is said of the variable."""
    return re.findall(r"\w+Warning: .*|Invalid -W option .*", stderr)


@pytest.mark.parametrize("name", WARNED)
def test_a_guest_warns_as_a_process_does(name: str, tmp_path: Path) -> None:
    if name == "a method of the library" and sys.version_info < (3, 12):
        assert "utcnow() is deprecated" in "".join(in_guest(WARNED[name], {})[1])
        return
    assert in_guest(WARNED[name], {}) == in_process(WARNED[name], {}, tmp_path)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("name", ["warn", "a category", "pending", "a resource", "an import", "twice from one line"])
def test_the_variable_sets_the_filters(name: str, value: str, tmp_path: Path) -> None:
    environ = {"PYTHONWARNINGS": value}
    assert in_guest(WARNED[name], environ) == in_process(WARNED[name], environ, tmp_path)


def test_a_warning_names_its_line_and_shows_it() -> None:
    tool = Tool.from_source("import warnings\n\ndef f():\n    warnings.warn('old')\n    return 1\n")
    (stderr,) = run_tool(tool).stderr or [""]
    assert stderr == "f.py:4: UserWarning: old\n  warnings.warn('old')\n"


def test_the_compiler_warns_in_each_run() -> None:
    tool = Tool.from_source("def f():\n    return '\\d'\n")
    for _ in range(3):
        result = run_tool(tool)
        assert result.func_return == "\\d"
        assert "SyntaxWarning: invalid escape sequence" in "".join(result.stderr or [])


def test_what_one_run_sets_is_not_there_in_the_next() -> None:
    tool = Tool.from_source("import warnings\n\ndef f():\n    warnings.warn('old')\n")
    assert run_tool(tool, env={"PYTHONWARNINGS": "ignore"}).stderr == []
    assert "UserWarning: old" in "".join(run_tool(tool).stderr or [])
