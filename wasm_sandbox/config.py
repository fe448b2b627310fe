"""What a caller may set: the limits of one run, and the sandbox configuration with its fingerprint."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, Self
from uuid import uuid4

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from wasm_sandbox.deferred import DEFER_BUILD
from wasm_sandbox.image import Image

MIB = 1 << 20

MIN_MEMORY_BYTES = 64 * MIB
"""A guest starts with about 40 MiB of preloaded memory; less than this would leave no room."""

ROOM_BYTES = 16 * MIB
"""What a run needs beside the memory that its image takes."""

PositiveInt = Annotated[int, Field(strict=True, gt=0, lt=2**63)]

CONFIG_ID = r"sandbox-[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-4[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}"
"""What the id of a configuration looks like: ``sandbox-<uuid4>``."""


class Limits(BaseModel):
    """Limits of one run. Every one is enforced; each has a default that suits a small tool.

    Raises:
        pydantic.ValidationError: for a value out of range, a bool, or an unknown name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, defer_build=DEFER_BUILD)

    fuel: PositiveInt | None = 60_000_000_000
    """Units of work: about one for ten WebAssembly instructions, or for 64 bytes moved at once. The same for the
    same run with the same image. The default is roughly a minute of computing. With None no fuel is counted and
    only the deadline ends a run that computes: a tenth quicker, in an image of its own that is compiled when it is
    first asked for (``wasm-sandbox warm --no-fuel``)."""
    memory_bytes: Annotated[int, Field(strict=True, ge=MIN_MEMORY_BYTES, le=4096 * MIB)] = 256 * MIB
    """Ceiling of the guest's linear memory in bytes, 64 MiB to 4 GiB; the interpreter itself needs about 40 MiB."""
    timeout_seconds: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] = 180.0
    """Deadline in seconds of wall time, for computing and sleeping alike; at most a day."""
    output_bytes: Annotated[int, Field(strict=True, ge=0, le=1024 * MIB)] = 1 * MIB
    """Bytes kept of stdout and of stderr, each; what is past it is dropped and counted in ``Usage``."""
    result_bytes: Annotated[int, Field(strict=True, gt=0, le=1024 * MIB)] = 16 * MIB
    """Largest accepted size of the pickled result, in bytes."""
    deterministic: Annotated[bool, Field(strict=True)] = False
    """The same output and the same fuel every time: the guest's clocks start at a fixed moment (14 November 2023,
    22:13:20 UTC) and step by a microsecond at every look, its random bytes come from a fixed seed, and sleeping moves
    its clocks at once. Nothing random in such a run is secret. The deadline stays one of real time."""
    files_bytes: Annotated[int, Field(strict=True, ge=0, le=1024 * MIB)] = 64 * MIB
    """What all files of a run may hold together, given ones included; and, apart from that, what a run may write
    to writable mounts."""
    file_count: Annotated[int, Field(strict=True, ge=0, le=100_000)] = 1000
    """How many files and directories there may be, given ones included; and, apart from that, how many a run may
    create in writable mounts."""

    @classmethod
    def default(cls) -> Limits:
        """What ``Limits()`` is, without loading what pydantic validates with."""
        return cls.model_construct()


def _reference(image: Any) -> Any:
    return image.reference if isinstance(image, Image) else image


class SandboxConfig(BaseModel):
    """A named sandbox configuration, as agent servers store it.

    ``image`` is an `Image` or the name of one; it is kept, by name, in ``config["image"]``, too.
    Its ``fingerprint`` tells whether two configurations mean the same environment. An ``id`` is ``sandbox-<uuid4>``,
    as the stores demand; without one a new one is made.
    """

    model_config = ConfigDict(defer_build=DEFER_BUILD)

    id: str = Field(default_factory=lambda: f"sandbox-{uuid4()}", pattern=rf"^{CONFIG_ID}$")
    type: Literal["wasm", "local", "e2b", "modal"] = "wasm"
    organization_id: str | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    image: Annotated[str | None, BeforeValidator(_reference)] = None

    @model_validator(mode="after")
    def _agree_on_image(self) -> Self:
        if self.type == "wasm":
            kept = self.config.get("image")
            if self.image is None:
                self.image = kept if isinstance(kept, str) else None
            elif kept is None:
                self.config = {**self.config, "image": self.image}
            elif kept != self.image:
                raise ValueError(f"image is {self.image!r}, but config['image'] is {kept!r}: give one of them")
        return self

    def fingerprint(self) -> str:
        """A decimal string that identifies type, organisation and configuration, not the id.

        It is the SHA-256 of their canonical JSON, read as one big-endian integer.
        """
        text = json.dumps(
            {"type": self.type, "organization_id": self.organization_id, "config": self.config},
            sort_keys=True,
            separators=(",", ":"),
        )
        return str(int.from_bytes(hashlib.sha256(text.encode()).digest(), "big"))
