"""SandboxFusion's ``/run_code`` and ``/run_jupyter``, as its clients call them (what graders of solutions do).

Its published schema is that of github.com/bytedance/SandboxFusion, sandbox/server/sandbox_api.py.
"""

from __future__ import annotations

import base64
import binascii
import posixpath
import re
import time
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from wasm_sandbox import AsyncSession, CodeResult, ErrorKind, Limits, ToolError
from wasm_sandbox.serve.bodies import JSON, until_hung_up
from wasm_sandbox.serve.calls import Call, Counted, Desk
from wasm_sandbox.serve.operations import Operation
from wasm_sandbox.serve.problems import Problem
from wasm_sandbox.serve.shapes import Text, writable
from wasm_sandbox.serve.tokens import Client
from wasm_sandbox.serve.visits import visit_of
from wasm_sandbox.web import MAX_ENTRIES

Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
Paths = Annotated[list[str], Field(max_length=MAX_ENTRIES)]

KILLED = 137
"""Return code of a program that its memory limit ended."""
MIN_SECONDS = 0.001

_WITH_STDIN = """
import io as _io, linecache as _linecache, sys as _sys
_sys.stdin = _io.TextIOWrapper(_io.BytesIO(_stdin.encode()), "utf-8")
_linecache.cache["main.py"] = (len(_code), None, _code.splitlines(True), "main.py")
_program = compile(_code, "main.py", "exec")
del _io, _linecache, _sys, _stdin, _code
exec(_program, {"__name__": "__main__", "__builtins__": __builtins__})
"""
_FETCH = """
def _fetch(paths):
    found = {}
    for path in paths:
        try:
            with open(path, "rb") as file:
                found[path] = file.read()
        except OSError:
            pass
    return found
_fetch(_paths)
"""


class _FusionShape(BaseModel):
    """Body of a request; as SandboxFusion does, fields that are not known are let pass."""

    model_config = ConfigDict(extra="ignore")


class FusionCodeShape(_FusionShape):
    """Body of ``/run_code``."""

    code: Text
    language: str
    """Only ``python`` runs here."""
    stdin: Text | None = None
    compile_timeout: Seconds = 10.0
    run_timeout: Seconds = 10.0
    memory_limit_MB: int = -1
    files: Annotated[dict[str, str | None], Field(max_length=MAX_ENTRIES)] = {}
    fetch_files: Paths = []
    args: Annotated[list[str], Field(max_length=MAX_ENTRIES)] = []


class FusionJupyterShape(_FusionShape):
    """Body of ``/run_jupyter``."""

    cells: Annotated[list[Text], Field(max_length=MAX_ENTRIES)]
    cell_timeout: Seconds = 0.0
    """Time for a cell; 0 for no bound but that of all."""
    total_timeout: Seconds = 45.0
    memory_limit_MB: int = -1
    kernel: Literal["python3"] = "python3"
    files: Annotated[dict[str, str | None], Field(max_length=MAX_ENTRIES)] = {}
    fetch_files: Paths = []


class CommandResult(BaseModel):
    """Result of a command."""

    status: Literal["Finished", "Error", "TimeLimitExceeded"]
    execution_time: float | None = None
    return_code: int | None = None
    stdout: str | None = None
    stderr: str | None = None


class FusionCodeAnswer(BaseModel):
    """Answer to ``/run_code``."""

    status: Literal["Success", "Failed", "SandboxError"]
    message: str = ""
    compile_result: CommandResult | None = None
    run_result: CommandResult | None = None
    executor_pod_name: str | None = None
    files: dict[str, str] = {}


class CellAnswer(BaseModel):
    """Result of a cell."""

    stdout: str
    stderr: str
    display: list[dict[str, Any]]
    error: list[dict[str, Any]]


class FusionJupyterAnswer(BaseModel):
    """Answer to ``/run_jupyter``."""

    status: Literal["Success", "Failed", "SandboxError"]
    message: str = ""
    driver: CommandResult | None = None
    cells: list[CellAnswer] = []
    executor_pod_name: str | None = None
    files: dict[str, str] = {}


class Fusion:
    """Handlers of SandboxFusion's interface. Limits that are asked for are lowered to the token's ceilings.

    Args:
        desk: what all handlers share.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def operations(self) -> list[Operation]:
        """What is answered here."""
        problems = ("image-forbidden", "over-budget")
        return [
            Operation(
                method="POST", path="/run_code", name="fusion_run_code", tag="SandboxFusion", handler=self.run_code,
                takes=FusionCodeShape, gives=FusionCodeAnswer, problems=problems,
                summary="Run a program, as SandboxFusion does",
            ),
            Operation(
                method="POST", path="/run_jupyter", name="fusion_run_jupyter", tag="SandboxFusion",
                handler=self.run_jupyter, takes=FusionJupyterShape, gives=FusionJupyterAnswer, problems=problems,
                summary="Run cells, as SandboxFusion does",
            ),
        ]  # fmt: skip

    async def run_code(self, request: Request) -> Response:
        """Run a program."""
        shape = await self._desk.bodies.read_json(request, FusionCodeShape)
        if shape.language != "python":
            return _answer(
                FusionCodeAnswer(status="SandboxError", message=f"no {shape.language[:40]} here: only python runs")
            )
        client = visit_of(request).client
        limits = _limits(client, shape.run_timeout, shape.memory_limit_MB)
        box, limits = self._desk.box_of(client, None, limits, files=_files(shape.files))
        code, inputs = shape.code, None
        if shape.stdin is not None:
            code, inputs = _WITH_STDIN, {"_stdin": shape.stdin, "_code": shape.code}

        async def work() -> FusionCodeAnswer:
            async with self._desk.counted(visit_of(request), Call("fusion", None, limits)) as counted:
                if not shape.fetch_files:
                    counted.result = result = await box.run_code(code, inputs)
                    return _code_answer(result, {})
                # A run that failed has no files in its result; a session has them still.
                async with await box.session() as session:
                    counted.result = result = await session.run_code(code, inputs)
                    return _code_answer(result, await _fetched(session, shape.fetch_files))

        return _answer(await until_hung_up(request, work()))

    async def run_jupyter(self, request: Request) -> Response:
        """Run cells in one guest, each after the other, whatever the one before did."""
        shape = await self._desk.bodies.read_json(request, FusionJupyterShape)
        client = visit_of(request).client
        limits = _limits(client, shape.total_timeout, shape.memory_limit_MB)
        box, limits = self._desk.box_of(client, None, limits, files=_files(shape.files))

        async def work() -> FusionJupyterAnswer:
            call = Call("fusion", None, limits)
            async with self._desk.counted(visit_of(request), call) as counted, await box.session() as session:
                return await _run_cells(session, shape, limits, counted)

        return _answer(await until_hung_up(request, work()))


async def _run_cells(
    session: AsyncSession, shape: FusionJupyterShape, limits: Limits, counted: Counted
) -> FusionJupyterAnswer:
    """Run cells, which have time and fuel together."""
    began, spent, cells = time.monotonic(), 0, list[CellAnswer]()
    for code in shape.cells:
        left = limits.timeout_seconds - (time.monotonic() - began)
        own: dict[str, Any] = {"timeout_seconds": max(min(left, shape.cell_timeout or left), MIN_SECONDS)}
        if limits.fuel is not None:
            own["fuel"] = max(1, limits.fuel - spent)
        result = await session.run_code(code, limits=limits.model_copy(update=own))
        if result.usage is not None:
            spent += result.usage.fuel or 0
            counted.result = result.model_copy(update={"usage": result.usage.model_copy(update={"fuel": spent})})
        if left <= 0 or _is_over_time(result):
            driver = CommandResult(status="TimeLimitExceeded", execution_time=time.monotonic() - began)
            return FusionJupyterAnswer(status="Failed", driver=driver)
        cells.append(_cell_answer(result))
    files = await _fetched(session, shape.fetch_files) if shape.fetch_files else {}
    seconds = time.monotonic() - began
    driver = CommandResult(status="Finished", execution_time=seconds, return_code=0, stdout="", stderr="")
    return FusionJupyterAnswer(status="Success", driver=driver, cells=cells, files=files)


def _limits(client: Client, seconds: float, memory_mib: int) -> Limits:
    """Limits of a call: those that are asked for, as far as the client may have them."""
    most = client.within(None)
    asked: dict[str, Any] = {"timeout_seconds": max(MIN_SECONDS, min(seconds, client.limits.timeout_seconds))}
    if memory_mib > 0:
        asked["memory_bytes"] = max(64 << 20, min(memory_mib << 20, client.limits.memory_bytes))
    return most.model_copy(update=asked)


def _files(given: dict[str, str | None]) -> dict[str, bytes]:
    """Files of the guest, whose paths may be relative to its directory.

    Raises:
        Problem: if one is no base64.
    """
    found = {}
    for path, content in given.items():
        try:
            found[posixpath.join("/", path)] = base64.b64decode(content or "", validate=True)
        except (binascii.Error, ValueError):
            raise Problem("invalid-body", "files: one is no base64", kind=ErrorKind.BAD_ARGUMENTS) from None
    return found


async def _fetched(session: AsyncSession, paths: list[str]) -> dict[str, str]:
    result = await session.run_code(_FETCH, {"_paths": paths})
    found = result.value if isinstance(result.value, dict) else {}
    return {path: base64.b64encode(data).decode() for path, data in found.items() if isinstance(data, bytes)}


def _is_over_time(result: CodeResult) -> bool:
    return result.error is not None and result.error.kind in {ErrorKind.TIMEOUT, ErrorKind.OUT_OF_FUEL}


def _code_answer(result: CodeResult, files: dict[str, str]) -> FusionCodeAnswer:
    seconds = result.usage.wall_seconds if result.usage is not None else None
    out, err = "".join(result.stdout or []), "".join(result.stderr or [])
    if _is_over_time(result):
        ran = CommandResult(status="TimeLimitExceeded", execution_time=seconds, stdout=out, stderr=err)
        return FusionCodeAnswer(status="Failed", run_result=ran, files=files)
    code = 0 if result.error is None else _return_code(result.error)
    if result.error is not None and not err and result.error.exception_name != "SystemExit":
        err = f"{result.error.message}\n"
    ran = CommandResult(status="Finished", execution_time=seconds, return_code=code, stdout=out, stderr=err)
    return FusionCodeAnswer(status="Failed" if code else "Success", run_result=ran, files=files)


def _return_code(error: ToolError) -> int:
    if error.kind is ErrorKind.OUT_OF_MEMORY:
        return KILLED
    if error.exception_name == "SystemExit" or error.kind is ErrorKind.NO_RESULT:
        told = re.search(r"exit code (\d+)", error.message)
        return int(told[1]) if told else 1
    return 1


def _cell_answer(result: CodeResult) -> CellAnswer:
    shown = [{kind: _text(data) for kind, data in bundle.items()} for bundle in result.displays]
    if result.text is not None and result.text != "None":
        shown.append({"text/plain": result.text})
    err, error = "".join(result.stderr or []), result.error
    if error is None:
        return CellAnswer(stdout="".join(result.stdout or []), stderr=err, display=shown, error=[])
    trace = error.traceback or error.message
    told = {
        "ename": error.exception_name or str(error.kind),
        "evalue": error.message,
        "traceback": trace.splitlines(),
    }
    return CellAnswer(stdout="".join(result.stdout or []), stderr=err.removesuffix(trace), display=shown, error=[told])


def _text(data: str | bytes) -> str:
    return data if isinstance(data, str) else base64.b64encode(data).decode()


def _answer(document: BaseModel) -> Response:
    return Response(to_json(writable(document.model_dump())), media_type=JSON)
