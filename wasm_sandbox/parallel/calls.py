"""`ToolCall`: the call of a tool as a value, for any engine that carries values to other processes and machines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from wasm_sandbox import Image, Limits, Sandbox, Tool, ToolExecutionResult


@dataclass(frozen=True)
class ToolCall:
    """Call of a tool: picklable, immutable, and equal to any other of the same parts.

    Attributes:
        tool: tool, or a function, which is taken by its source (`Tool.from_function`).
        args: argument name -> value; a copy, read-only.
        limits: limits of the run, `Limits` or a mapping of its fields; None for the defaults.
        image: image to run in: its id, which is the hash of its content and the same on every machine, or its name;
            of an `Image` that is kept on this machine its id. None for the default image, which is the exported one
            of ``WASM_SANDBOX_IMAGE`` where that is set.

    Raises:
        TypeError: if the arguments are no mapping of names, or the tool or the image is something else.
        ToolSourceError: if no tool can be made of the function.
        ValueError: if limits are out of range (`pydantic.ValidationError`).
    """

    tool: Tool
    args: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits | None = None
    image: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "tool", tool_of(self.tool))
        object.__setattr__(self, "args", MappingProxyType(checked_args(self.args)))
        if self.limits is not None:
            object.__setattr__(self, "limits", Limits.model_validate(self.limits))
        object.__setattr__(self, "image", _reference(self.image))

    def __reduce__(self) -> Any:
        return type(self), (self.tool, dict(self.args), self.limits, self.image)

    def __hash__(self) -> int:
        return hash((self.tool.name, self.tool.source_code, tuple(self.args), self.limits, self.image))


def run_call(call: ToolCall) -> ToolExecutionResult:
    """Run a call in this process, which holds an engine from its first call on, and wait for its result.

    This is what other engines map over calls: ``client.map(run_call, calls)``.

    Returns:
        The result, whatever the tool did.

    Raises:
        TypeError: if it is no `ToolCall`.
        SandboxError: if the run cannot be made, of the classes that `wasm_sandbox.run_tool` raises; `ImageNotFound` if
            its image is not on this machine.
    """
    if not isinstance(call, ToolCall):
        raise TypeError(f"run_call runs a ToolCall, not a {type(call).__name__}")
    return _sandbox(call.image, call.limits).run_tool(call.tool, call.args)


# Guarantees: an id is a content hash, so what is kept never goes stale; a name may come to mean another image, and is
# looked up at every run. Locks: none; threads that are the first together may each look the image up.
@lru_cache(maxsize=16)
def _image(identifier: str) -> Image:
    return Image.named(identifier)


def _sandbox(reference: str | None, limits: Limits | None) -> Sandbox:
    if reference is None:
        return Sandbox(limits=limits)
    return Sandbox(limits=limits, image=_image(reference) if _is_id(reference) else reference)


def _is_id(reference: str) -> bool:
    return len(reference) == 64 and not set(reference) - set("0123456789abcdef")


def _reference(image: object) -> str | None:
    """Id of an image, or the name that was given for one.

    Raises:
        TypeError: if it is something else.
    """
    if image is None or isinstance(image, str):
        return image
    if isinstance(image, Image):
        return image.id
    raise TypeError(f"image must be an Image, its id or its name, not a {type(image).__name__}")


def tool_of(tool: Tool | Callable[..., Any]) -> Tool:
    """A tool as it is; a function by its source.

    Raises:
        TypeError: if it is neither.
        ToolSourceError: if no tool can be made of the function.
    """
    if isinstance(tool, Tool):
        return tool
    if not callable(tool):
        raise TypeError(f"the tool must be a Tool or a function, not a {type(tool).__name__}")
    return Tool.from_function(tool)


def checked_args(args: Any) -> dict[str, Any]:
    """Copy of the arguments of a call.

    Raises:
        TypeError: if they are no mapping, or a name is no text.
    """
    if not isinstance(args, Mapping):
        raise TypeError(f"arguments must map names to values, not be a {type(args).__name__}")
    copy = dict(args)
    for name in copy:
        if not isinstance(name, str):
            raise TypeError(f"the name of an argument must be text, not {name!r}")
    return copy
