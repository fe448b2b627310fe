"""Google ADK: a code executor for agents, whose code calls functions of the program.

``LlmAgent(..., code_executor=WasmCodeExecutor(functions=[search, fetch]))``. Files that the code writes come back,
and with ``stateful=True`` variables are kept for a session of ADK's. What it cannot do: ADK's tools need a context
that code executors are not given, so give the functions themselves; ADK tells the model nothing of them, so the
instruction has to (``WasmCodeExecutor(...).stubs()``); async functions run on an event loop of the library's own.
"""

from __future__ import annotations

import base64
import binascii
import mimetypes
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from google.adk.agents.invocation_context import InvocationContext
from google.adk.code_executors.base_code_executor import BaseCodeExecutor
from google.adk.code_executors.code_execution_utils import CodeExecutionInput, CodeExecutionResult, File
from pydantic import Field, PrivateAttr

from wasm_sandbox import Sandbox, SandboxError
from wasm_sandbox.integrations.offers import KeptSessions, error_text

_WRITE = """
for _name, _data in _files.items():
    with open(_name, "wb") as _file:
        _file.write(_data)
"""


class WasmCodeExecutor(BaseCodeExecutor):
    """Executor of an agent's code.

    Attributes:
        functions: functions that the code may call, by their names.
        options: `RunOptions` of the sandbox.
        max_sessions: most sessions of ADK's whose variables are kept.
    """

    functions: Sequence[Any] = Field(default=(), exclude=True)
    options: dict[str, Any] = Field(default_factory=dict, exclude=True)
    max_sessions: int = 64
    _box: Sandbox = PrivateAttr()
    _sessions: KeptSessions = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Check the options, once."""
        options: dict[str, Any] = {"files": {}, **self.options, "functions": list(self.functions)}
        if self.timeout_seconds is not None:
            limits = Sandbox(**options).options["limits"]
            options["limits"] = {**dict(limits or {}), "timeout_seconds": float(self.timeout_seconds)}
        self._box = Sandbox(**options)
        self._sessions = KeptSessions(self._box, self.max_sessions, 3600.0)

    def stubs(self) -> str:
        """Signatures of the functions, for the agent's instruction."""
        return self._box.functions.stubs()

    def execute_code(
        self, invocation_context: InvocationContext, code_execution_input: CodeExecutionInput
    ) -> CodeExecutionResult:
        """Run code; what it does wrong is in the result's ``stderr``."""
        given = {file.name: _content(file.content) for file in code_execution_input.input_files}
        session = invocation_context.session
        key = (session.app_name, session.user_id, code_execution_input.execution_id or session.id)
        try:
            if self.stateful:
                runner = self._sessions.get(key)
                if given:
                    runner.run_code(_WRITE, {"_files": given})
                result = runner.run_code(code_execution_input.code)
            else:
                files = {str(PurePosixPath("/") / name): data for name, data in given.items()}
                result = self._box.run_code(code_execution_input.code, files={**(self._files()), **files})
        except SandboxError as error:
            return CodeExecutionResult(stderr=str(error), exit_code=1)
        stdout = "".join(result.stdout or ())
        if result.error is not None:
            return CodeExecutionResult(stdout=stdout, stderr=error_text(result), exit_code=1)
        if result.text not in (None, "None"):
            stdout = f"{stdout}{result.text}\n"
        return CodeExecutionResult(stdout=stdout, output_files=_files(result.files or {}), exit_code=0)

    def _files(self) -> dict[str, bytes]:
        return dict(self._box.options["files"] or {})


def _content(content: str | bytes) -> bytes:
    """Content of a file, which is text in base64 or the bytes themselves."""
    if isinstance(content, bytes):
        return content
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        return content.encode()


def _files(files: dict[str, bytes]) -> list[File]:
    return [
        File(
            name=path.removeprefix("/"),
            content=base64.b64encode(data).decode("ascii"),
            mime_type=mimetypes.guess_type(path)[0] or "application/octet-stream",
        )
        for path, data in files.items()
    ]
