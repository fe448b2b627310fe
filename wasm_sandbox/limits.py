"""Limits of one run."""

from __future__ import annotations

from functools import cache
from typing import Annotated

from pydantic import VERSION, BaseModel, ConfigDict, Field

DEFER_BUILD = tuple(map(int, VERSION.split(".")[:2])) >= (2, 14)
"""Value of ``ConfigDict(defer_build=...)``: models are built at their first use, so that a first result comes sooner.
An older pydantic fails where two threads first use a model."""

MIB = 1 << 20


MIN_MEMORY_BYTES = 64 * MIB
"""Smallest memory limit: a guest starts with about 53 MiB: 37 MiB of preloaded memory, and a stack."""


ROOM_BYTES = 8 * MIB
"""Memory that a run needs beside that of its image."""


PositiveInt = Annotated[int, Field(strict=True, gt=0, lt=2**63)]


class Limits(BaseModel):
    """Limits of one run. Every one is enforced; each has a default that suits a small tool.

    Raises:
        pydantic.ValidationError: for a value out of range, a bool, or an unknown name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, defer_build=DEFER_BUILD)

    fuel: PositiveInt | None = 60_000_000_000
    """Units of work: about one for ten WebAssembly instructions, or for 64 bytes moved at once. With
    ``deterministic`` it is the same for the same run with the same image. Otherwise it is about the same: clocks and
    entropy change it by less than 0.5 percent; and from its third call on a tool is not compiled again but charged at
    what compiling it had cost elsewhere, which moves its fuel once, by up to 5 percent. So a limit that near to what a
    call takes may end one call and not the next. The default is roughly a minute of computing. With None no fuel is
    counted and only the deadline ends a run that computes: a tenth quicker, in an image of its own that is compiled
    when it is first asked for (``wasm-sandbox warm --no-fuel``)."""
    memory_bytes: Annotated[int, Field(strict=True, ge=MIN_MEMORY_BYTES, le=4096 * MIB)] = 256 * MIB
    """Ceiling of the guest's linear memory in bytes, 64 MiB to 4 GiB; the interpreter itself needs about 53 MiB."""
    timeout_seconds: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] = 180.0
    """Deadline in seconds of wall time, for computing and sleeping alike; at most a day."""
    output_bytes: Annotated[int, Field(strict=True, ge=0, le=1024 * MIB)] = 1 * MIB
    """Bytes that are kept of stdout and of stderr, each; the rest is dropped and counted in ``Usage``."""
    result_bytes: Annotated[int, Field(strict=True, gt=0, le=1024 * MIB)] = 16 * MIB
    """Largest accepted size of the pickled result, in bytes."""
    deterministic: Annotated[bool, Field(strict=True)] = False
    """The same output and the same fuel every time: the guest's clocks start at a fixed moment (14 November 2023,
    22:13:20 UTC) and step by a microsecond at every look, its random bytes come from a fixed seed, and sleeping moves
    its clocks at once. Nothing random in such a run is secret. The deadline stays one of real time."""
    files_bytes: Annotated[int, Field(strict=True, ge=0, le=1024 * MIB)] = 64 * MIB
    """Size of all files of a run together in bytes, given ones included; and, apart from that, the bytes that a run may
    write to writable mounts."""
    file_count: Annotated[int, Field(strict=True, ge=0, le=100_000)] = 1000
    """Number of files and directories, given ones included; and, apart from that, the number that a run may create in
    writable mounts. With 0 there is no file system unless files, mounts or an image bring one."""

    host_calls: Annotated[int, Field(strict=True, ge=0)] = 10_000
    """Calls of host functions in a run."""
    host_pending: Annotated[int, Field(strict=True, gt=0, le=10_000)] = 1000
    """Calls of host functions that are under way at the same time."""
    host_bytes: Annotated[int, Field(strict=True, ge=0, le=4096 * MIB)] = 64 * MIB
    """Bytes that a run may hand to host functions, and that they may hand to it, each."""
    host_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Seconds that host functions may take in a run, added up. With None only the deadline bounds them."""
    host_time_counts: Annotated[bool, Field(strict=True)] = True
    """Whether the deadline counts the time in which a guest waits for host functions."""

    @classmethod
    @cache
    def default(cls) -> Limits:
        """The same as ``Limits()``, without loading what pydantic validates with; one object, for it is frozen."""
        return cls.model_construct()
