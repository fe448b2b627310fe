"""``wasm-sandbox repl``: an interactive session, cell by cell."""

from __future__ import annotations

import ast
import codeop
import contextlib
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import wasm_sandbox
from wasm_sandbox.cli.display import complain, write
from wasm_sandbox.cli.inputs import CommandError
from wasm_sandbox.cli.options import environment_option, image_option, limit_options, limits_of, network_option

if TYPE_CHECKING:
    from wasm_sandbox import CodeResult, Event, Network, Session, SessionPoint

PROMPT, MORE = ">>> ", "... "

HELP = """\
A cell is run when it is whole; a block ends with an empty line. Ctrl-C stops a cell, and takes back what it did.
  :undo        take the last cell back
  :fork        go on in a copy of this session
  :back        leave the copy, and go on where it was made
  :save FILE   write the session to a file
  :load FILE   go on with the session in a file
  :help        show this
  :quit        end (as does Ctrl-D)
"""

MAX_FILE_BYTES = 1 << 30

MAX_UNDO = 100
"""Most cells that can be taken back: each keeps what it changed of the guest's memory."""

END = frozenset({":quit", ":exit", "quit", "exit", "quit()", "exit()"})


class Repl:
    """Sessions of the command, the present one last, and what of each can be taken back.

    Args:
        box: sandbox of the sessions.
        read: reads a line after a prompt; raises EOFError at the end.
    """

    def __init__(self, box: wasm_sandbox.Sandbox, read: Callable[[str], str]) -> None:
        self._box, self._read = box, read
        self._sessions: list[Session] = []
        self._points: list[deque[SessionPoint]] = []
        self._compile = codeop.CommandCompiler()
        self._compile.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self._verbs: dict[str, Callable[[str], object]] = {
            "undo": self._undo,
            "fork": self._fork,
            "back": self._back,
            "save": self._save,
            "load": self._load,
            "help": lambda _: write(sys.stdout, HELP),
        }

    @property
    def _session(self) -> Session:
        return self._sessions[-1]

    def run(self) -> None:
        """Read and run cells until the input ends."""
        self._enter(self._box.session(lifetime_seconds=86_400.0, idle_seconds=86_400.0))
        try:
            while True:
                try:
                    cell = self._cell()
                except KeyboardInterrupt:
                    write(sys.stdout, "\nKeyboardInterrupt\n")
                    continue
                if cell is None or cell.strip() in END:
                    return
                self._run_cell(cell)
        finally:
            for session in self._sessions:
                session.close()

    def _enter(self, session: Session) -> None:
        self._sessions.append(session)
        self._points.append(deque(maxlen=MAX_UNDO))

    def _cell(self) -> str | None:
        """Next cell; None at the end of the input."""
        lines: list[str] = []
        try:
            while True:
                lines.append(self._read(MORE if lines else PROMPT))
                if lines[0].startswith(":") or self._is_whole("\n".join(lines)):
                    return "\n".join(lines)
        except EOFError:
            write(sys.stdout, "\n")
            return "\n".join(lines) if lines else None

    def _is_whole(self, source: str) -> bool:
        """Whether no further line is needed; what this Python does not understand, the guest may."""
        for kind in ("single", "exec"):  # several statements come by pasting: the last line may begin another block
            try:
                is_whole = self._compile(source, "<cell>", kind) is not None
            except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError):
                continue
            return is_whole and (kind == "single" or source.splitlines()[-1][:1] not in " \t")
        return True

    def _run_cell(self, cell: str) -> None:
        if not cell.strip():
            return
        try:
            if cell.startswith(":"):
                self._command(cell[1:].strip())
                return
            point = self._session.checkpoint()
            screen = _Screen()
            result = self._session.run_code(cell, on_event=screen.show)
        except KeyboardInterrupt:
            write(sys.stdout, "\nKeyboardInterrupt\n")
            return
        except (wasm_sandbox.SessionError, wasm_sandbox.SnapshotError) as error:
            complain(str(error))
            return
        if not result.rolled_back:
            self._points[-1].append(point)
        screen.end(result)

    def _command(self, text: str) -> None:
        name, _, rest = text.partition(" ")
        verb = self._verbs.get(name)
        if verb is None:
            complain(f"there is no :{name} (see :help)")
        else:
            verb(rest.strip())

    def _undo(self, _: str) -> None:
        if not self._points[-1]:
            complain("there is no cell to take back")
            return
        self._session.rollback(self._points[-1].pop())

    def _fork(self, _: str) -> None:
        self._enter(self._session.fork())
        write(sys.stdout, "in a copy of the session; :back leaves it\n")

    def _back(self, _: str) -> None:
        if len(self._sessions) == 1:
            complain("this session is no copy")
            return
        self._sessions.pop().close()
        self._points.pop()

    def _save(self, path: str) -> None:
        if not path:
            complain("name a file: :save FILE")
            return
        blob = self._session.dump()
        try:
            Path(path).write_bytes(blob)
        except OSError as error:
            complain(f"{path}: {error.strerror or error}")
            return
        write(sys.stdout, f"{len(blob):,} bytes written to {path}\n")

    def _load(self, path: str) -> None:
        if not path:
            complain("name a file: :load FILE")
            return
        try:
            with Path(path).open("rb") as file:
                blob = file.read(MAX_FILE_BYTES)
        except OSError as error:
            complain(f"{path}: {error.strerror or error}")
            return
        self._enter(self._box.load_session(blob, lifetime_seconds=86_400.0, idle_seconds=86_400.0))
        self._sessions.pop(-2).close()
        self._points.pop(-2)


class _Screen:
    """What a cell shows while it runs, and at its end."""

    def __init__(self) -> None:
        self._shown: str | None = None  # text of the last display, if that looks like more than text

    def show(self, event: Event) -> None:
        """Write what the cell prints or displays."""
        if event.kind in ("stdout", "stderr"):
            write(sys.stdout if event.kind == "stdout" else sys.stderr, event.text or "")
        elif event.kind == "display" and isinstance(event.data, dict):
            text = str(event.data.get("text/plain", ""))
            self._shown = text if len(event.data) > 1 else None
            write(sys.stdout, f"{text}\n")

    def end(self, result: CodeResult) -> None:
        """Write the value, unless that was displayed, or what went wrong."""
        if result.error is None:
            if result.text not in (None, "None", self._shown):
                write(sys.stdout, f"{result.text}\n")
        elif result.error.traceback is None or result.error.exception_name == "SystemExit":
            complain(result.error.message)
        if result.rolled_back:
            complain("the session is what it was before this cell")


def _reader() -> Callable[[str], str]:
    """Reader of lines, with the history of this session where this Python has one."""
    if not sys.stdin.isatty():
        return _read_piped
    with contextlib.suppress(ImportError):  # Windows has none
        import readline  # noqa: F401  # lazy: for terminals only; `input` edits lines with it
    return input


def _read_piped(_: str) -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n")


@click.command()
@environment_option
@image_option
@limit_options
@network_option
def repl(*, environ: dict[str, str], image: str | None, network: Network | None, **limits: Any) -> None:
    """Run Python interactively in a guest that stays: what a cell leaves, the next one finds.

    Each cell has the limits that are given. :help tells of :undo, :fork, :save and the rest.
    """
    checked = limits_of(limits)
    box = wasm_sandbox.Sandbox(limits=checked, env=environ, image=image, files={}, network=network)
    if sys.stdin.isatty():
        write(sys.stdout, f"wasm-sandbox {wasm_sandbox.__version__}; :help tells what there is besides Python\n")
    try:
        Repl(box, _reader()).run()
    except wasm_sandbox.SessionError as error:
        raise CommandError(str(error)) from None
