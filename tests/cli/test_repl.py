"""The interactive session, by a pipe and on a terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def typed(lines: str, *options: str, cwd: Path | None = None) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "wasm_sandbox", "repl", *options],
        input=lines, capture_output=True, text=True, check=False, timeout=60, cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_cells_share_their_names_and_show_their_values() -> None:
    out, err = typed("x = 20\ndef f(n):\n    return n + 1\n\nf(x)\nprint('printed')\n1 / 0\nx\nNone\n")
    assert out == "21\nprinted\n20\n\n"
    assert 'File "<cell 5>", line 1, in <module>' in err
    assert "ZeroDivisionError" in err


def test_awaiting_blocks_and_syntax_errors() -> None:
    out, err = typed("import asyncio\nawait asyncio.sleep(0, 7)\nfor n in range(2):\n    print(n)\n\nif x\n'after'\n")
    assert out == "7\n0\n1\n'after'\n\n"
    assert "SyntaxError" in err


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        (
            "for n in range(2):\n    print(n)\n    print(-n)\n\n"
            "if False:\n    print(1)\nelse:\n    print(2)\n    print(3)\n\n"
            "def f(n):\n    def g():\n        return n\n    return g()\n\nf(4)\n"
            "@staticmethod\ndef f():\n    x = 5\n    return x\n\nf()\n",
            "0\n0\n1\n-1\n2\n3\n4\n5\n",
        ),
        (
            "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    return 5\n\nawait f()\n"
            'x = """a\n  b"""\nx\n'
            "x = [\n1,\n\n2]\nx\n# nothing\n\n8\n",
            "5\n'a\\n  b'\n[1, 2]\n8\n",
        ),
        (
            "def f():\n    return 6\nfor n in range(2):\n    print(n)\n    print(f())\n\ndef f():\n    return 7\nf()\n",
            "0\n6\n1\n6\n7\n",
        ),
    ],
    ids=["blocks", "brackets and texts", "pasted without empty lines"],
)
def test_a_block_is_run_when_it_is_whole(lines: str, shown: str) -> None:
    assert typed(lines) == (f"{shown}\n", "")


def test_what_looks_like_more_than_text_is_shown_once() -> None:
    rich = "class Rich:\n    def _repr_html_(self): return '<b/>'\n    def __repr__(self): return 'rich'\n\n"
    out, _ = typed(f"{rich}Rich()\nx = Rich()\ndisplay(x); x\ndisplay(3); 3\nx; 'rich'\nexit()\nx\n")
    assert out.splitlines() == ["rich", "rich", "rich", "3", "3", "'rich'"]


def test_cells_are_taken_back_and_forked() -> None:
    out, err = typed(
        ":undo\nx = [1]\nx.append(2)\n:undo\nx\n:fork\nx.append(3)\nx\n:back\nx\n:back\n:nothing\n:help\n:quit\nx\n"
    )
    assert out.startswith("[1]\nin a copy of the session; :back leaves it\n[1, 3]\n[1]\nA cell is run")
    assert "there is no cell to take back" in err
    assert "this session is no copy" in err
    assert "there is no :nothing" in err


def test_a_session_is_saved_and_loaded(tmp_path: Path) -> None:
    out, err = typed("x = 'kept'\n:save s.bin\n:save\n:load\n:save no/dir\n", cwd=tmp_path)
    assert "bytes written to s.bin" in out
    assert "name a file: :save FILE" in err
    assert "name a file: :load FILE" in err
    (tmp_path / "bad").write_bytes(b"no session")
    out, err = typed("x = 1\n:load nothing\n:load bad\nx\n:load s.bin\nx\n", cwd=tmp_path)
    assert out == "1\n'kept'\n\n"
    assert "nothing: No such file" in err
    assert "the snapshot is damaged" in err


def test_a_limit_takes_a_cell_back() -> None:
    out, err = typed("x = 1\nx = 2; exec('while True: pass')\nx\n", "--timeout", "0.5")
    assert out == "1\n\n"
    assert "the session is what it was before this cell" in err


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_stops_the_cell_and_not_the_session() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
         "from wasm_sandbox.__main__ import main; main()", "repl"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("x = 1\nprint('on', flush=True); exec('while True: pass')\n")
    process.stdin.flush()
    assert process.stdout.readline() == "on\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "\n"
    assert process.stdout.readline() == "KeyboardInterrupt\n"
    out, _ = process.communicate("x\n", timeout=30)
    assert out == "1\n\n"
    assert process.returncode == 0
