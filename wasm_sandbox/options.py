"""Options of a run: written down once, checked once, and handed on whole."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypedDict, cast, get_args

from wasm_sandbox.config import SandboxConfig
from wasm_sandbox.errors import InvalidNetwork, UnsupportedIsolation
from wasm_sandbox.files import HostDir
from wasm_sandbox.limits import Limits
from wasm_sandbox.network import Network
from wasm_sandbox.results import Call, Event

Isolation = Literal["thread", "process"]
"""``"thread"``: WebAssembly alone holds the guest, on a thread of this process. ``"process"``: the same in a worker
process, which has no environment and, where the platform can take them away, no files and no network."""


class ImageChoice(Protocol):
    """Interface of `wasm_sandbox.Image` for values, which know no images."""

    @property
    def reference(self) -> str:
        """Name or id by which the image is found on this machine."""


class RunOptions(TypedDict, total=False):
    """Options of a run."""

    limits: Limits | Mapping[str, Any] | None
    """Limits of the run, `Limits` or a mapping of its fields; the defaults if not given."""
    image: ImageChoice | str | None
    """The image to run in, or its name; by default that of the configuration, else one that was built for just the
    ``pip_requirements`` of the tool, else the default image."""
    files: Mapping[str, bytes] | None
    """Absolute path -> content, for a file system in memory that the tool can read and write; ``{}`` for an empty one.
    Files that the tool changes are in the result's ``files``. Without it a tool has scratch files that end with the
    run, unless ``Limits.file_count`` is 0."""
    mounts: Mapping[str, HostDir] | None
    """Absolute path -> `HostDir`, a directory of the host, through wasmtime's WASI.
    Beside it there are files in memory."""
    env: Mapping[str, str] | None
    """Environment variables of the guest, besides those of a tool's configuration and agent, which win."""
    functions: Sequence[Any] | Mapping[str, Sequence[Any]] | None
    """Functions of the caller that the guest may call: plain and async ones, bound methods, `Tool`, `HostFunction`.
    They are there by name, and as a module ``tools``; or a mapping of names of modules to such."""
    gate: Callable[[Call], Any] | None
    """Function, plain or async, that is asked before each call of such a function: ``None`` lets it pass, `Deny`
    refuses it, and so does anything else."""
    on_event: Callable[[Event], object] | None
    """Function that is called with each `Event` of the run, in order and one at a time, on the thread of the guest or
    of whoever caused it; the guest waits meanwhile. What it raises ends the run, and is raised to the caller."""
    network: Network | str | Sequence[str] | None
    """What the guest may connect to: a `Network`, or just the hosts, as ``"api.example.com,*.example.org"`` or a list.
    Without it there is no network, and every connect is a ``PermissionError``."""
    build_images: bool
    """Whether an image that meets the tool's ``pip_requirements`` is built when there is none: that downloads packages
    that the tool names, and takes a minute. Otherwise the tool is refused, with the command that builds it."""
    isolation: Isolation
    """Where the guest runs, on a ``"thread"`` of this process or in a ``"process"`` of a pool, which has no
    ``mounts``."""


class CallOptions(RunOptions, total=False):
    """Options of a tool call: those of the run, and its caller (see `AsyncToolSandboxBase`)."""

    user: Any
    tool_id: str | None
    agent_id: str | None
    project_id: str | None
    sandbox_config: SandboxConfig | None
    sandbox_env_vars: Mapping[str, str] | None
    additional_env_vars: Mapping[str, str] | None


def checked(options: RunOptions) -> RunOptions:
    """Check options, and fill in defaults; the result is read-only, its limits are `Limits`.

    Raises:
        TypeError: if there is no option of a name, or ``on_event`` cannot be called.
        UnsupportedIsolation: if there is no such isolation, or a worker process cannot do what is asked for.
        InvalidNetwork: if the network is malformed, or a deterministic run is to have one that is not
            replayed.
        ValueError: if limits are out of range (`pydantic.ValidationError`).
    """
    if unknown := options.keys() - _NAMES:
        known = ", ".join(sorted(_NAMES))
        raise TypeError(f"there is no option {', '.join(sorted(unknown))} (options: {known})")
    check_isolation(options.get("isolation", "thread"), options.get("mounts"))
    _check_listener(options.get("on_event"))
    limits = options.get("limits")
    settled = Limits.default() if limits is None else Limits.model_validate(limits)
    network = options.get("network")
    if network is not None:
        network = _checked_network(network, settled)
    return cast(RunOptions, MappingProxyType({**_DEFAULTS, **options, "limits": settled, "network": network}))


def check_network(network: object, has_own_guest: bool) -> None:
    """Refuse a network where the guest could not use it.

    Args:
        network: network of the run, if it has one.
        has_own_guest: whether the image is one of our own guest.

    Raises:
        UnsupportedIsolation: if it is not, and there is a network.
    """
    if network is not None and not has_own_guest:
        raise UnsupportedIsolation(
            "a network needs our own guest: an image of another CPython has none; leave out network, or image"
        )


def _checked_network(given: Network | str | Sequence[str], limits: Limits) -> Network:
    network = Network.of(given)
    if limits.deterministic and network.replay is None:
        raise InvalidNetwork(
            "a deterministic run has no network, whose answers differ: leave out network, or replay recorded answers "
            "(Network.replay)"
        )
    return network


_NAMES = frozenset(RunOptions.__annotations__)
_DEFAULTS = {**dict.fromkeys(_NAMES), "build_images": False, "isolation": "thread"}


def check_isolation(isolation: str, mounts: object = None) -> None:
    """Refuse an unknown isolation, and what worker processes cannot do.

    Args:
        isolation: name of the isolation.
        mounts: directories of the host, if there are any.

    Raises:
        UnsupportedIsolation: if it is none of `Isolation`; or if it is ``"process"``, and there is a mount.
    """
    if isolation not in get_args(Isolation):
        raise UnsupportedIsolation(f'isolation must be "thread" or "process", not {isolation!r}')
    if isolation == "process" and mounts:
        raise UnsupportedIsolation(
            'isolation="process" has no mounts, for its workers can open nothing: give files instead, or take "thread"'
        )


def _check_listener(on_event: object) -> None:
    """Refuse a listener that cannot be one.

    Raises:
        TypeError: if it is not callable, or async.
    """
    if on_event is None:
        return
    if not callable(on_event):
        raise TypeError(f"on_event must be callable, not a {type(on_event).__name__}")
    if inspect.iscoroutinefunction(on_event):
        raise TypeError("on_event must be a plain function; with AsyncSandbox.stream_code events can be awaited")
