"""smolagents: an executor for ``CodeAgent``, whose tools the code calls as functions.

``CodeAgent(tools, model, executor=WasmExecutor())``. Variables are kept from step to step. What it cannot do: values
that are no plain data (pictures, audio) reach the code as text; ``additional_authorized_imports`` does not count, for
any import is harmless here, and only what the image has is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from smolagents.local_python_executor import CodeOutput, InterpreterError, PythonExecutor
from smolagents.utils import truncate_content

from wasm_sandbox import CodeResult, HostFunction, Sandbox, SandboxError, Session
from wasm_sandbox.integrations.offers import error_text, offered, plain
from wasm_sandbox.options import RunOptions

FINAL_ANSWER = "final_answer"

_PRELUDE = """
class FinalAnswer(BaseException):
    "Ends the code with an answer."

def final_answer(*args, **kwargs):
    global _final_answer
    _final_answer = args, kwargs
    raise FinalAnswer
"""


class WasmExecutor(PythonExecutor):
    """Executor of an agent's code, in a session of a sandbox.

    Args:
        max_print_outputs_length: most characters of what a step prints that the model is told.
        idle_seconds: seconds without a step after which the variables are forgotten.
        options: `RunOptions` of the sandbox; ``functions`` are there beside the agent's tools.
    """

    def __init__(
        self, *, max_print_outputs_length: int = 50_000, idle_seconds: float = 3600.0, **options: Unpack[RunOptions]
    ) -> None:
        self._box = Sandbox(**options)
        self._given: Any = options.get("functions") or []
        if isinstance(self._given, Mapping):
            raise TypeError("give functions as a list: the agent's tools come beside them")
        self._max_length, self._idle_seconds = max_print_outputs_length, idle_seconds
        self._tools: Mapping[str, Any] = {}
        self._functions: list[Any] = [*self._given]
        self._variables: dict[str, Any] = {}
        self._session: Session | None = None
        self.state: dict[str, Any] = {"_print_outputs": ""}
        """What the last step printed, where an agent looks when it failed."""

    def send_tools(self, tools: Mapping[str, Any]) -> None:
        """Offer the agent's tools and managed agents to the code, by their names."""
        self._tools = dict(tools)
        self._functions = [
            *self._given,
            *(_function(name, tool) for name, tool in tools.items() if name != FINAL_ANSWER),
        ]

    def send_variables(self, variables: Mapping[str, Any]) -> None:
        """Set variables that the code finds; they must be plain data."""
        self._variables |= variables

    def __call__(self, code_action: str) -> CodeOutput:
        """Run the code of a step.

        Raises:
            InterpreterError: if it fails, with the traceback.
        """
        try:
            session = self._current()
            result = session.run_code(code_action, self._variables, functions=self._functions)
        except SandboxError as error:
            raise InterpreterError(str(error)) from error
        logs = truncate_content("".join([*(result.stdout or ()), *_warnings(result)]), max_length=self._max_length)
        self.state["_print_outputs"] = logs
        self._variables = {}
        if result.error is None:
            shown = result.value if result.value is not None or result.text in (None, "None") else result.text
            return CodeOutput(output=shown, logs=logs, is_final_answer=False)
        if result.error.exception_name != "FinalAnswer":
            raise InterpreterError(f"Code execution failed:\n{error_text(result)}")
        args, kwargs = session.get("_final_answer")
        try:
            answer = self._tools[FINAL_ANSWER](*args, **kwargs) if FINAL_ANSWER in self._tools else args[0]
        except Exception as error:  # a final_answer of the user's own may check what it is given
            raise InterpreterError(f"final_answer: {type(error).__name__}: {error}") from error
        return CodeOutput(output=answer, logs=logs, is_final_answer=True)

    def cleanup(self) -> None:
        """Forget all variables, and give their memory back; `CodeAgent.cleanup` calls it."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _current(self) -> Session:
        if self._session is None or self._session.is_closed:
            self._session = self._box.session(idle_seconds=self._idle_seconds, lifetime_seconds=86_400.0)
            self._session.run_code(_PRELUDE)
        return self._session


def _warnings(result: CodeResult) -> list[str]:
    """Standard error, but for the traceback of what failed, which is told apart."""
    return [] if result.error is not None else result.stderr or []


def _function(name: str, tool: Any) -> HostFunction:
    """Tool, or managed agent, as a host function."""

    def call(**arguments: Any) -> Any:
        return plain(tool(**arguments))

    inputs: Mapping[str, Any] = getattr(tool, "inputs", None) or {}
    required = [parameter for parameter, spec in inputs.items() if not spec.get("nullable")]
    return offered(name, call, getattr(tool, "description", None), {"properties": inputs, "required": required})
