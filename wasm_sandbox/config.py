"""Sandbox configuration with its fingerprint."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, Self
from uuid import uuid4

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from wasm_sandbox.limits import DEFER_BUILD

CONFIG_ID = r"sandbox-[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-4[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}"
"""Pattern of a configuration's id: ``sandbox-<uuid4>``."""


def _reference(image: Any) -> Any:
    """Reference of an `Image`, by duck typing, for values know no images; anything else as it is."""
    return getattr(image, "reference", image)


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
        """Decimal string that identifies type, organisation and configuration, not the id.

        It is the SHA-256 of their canonical JSON, read as one big-endian integer.
        """
        text = json.dumps(
            {"type": self.type, "organization_id": self.organization_id, "config": self.config},
            sort_keys=True,
            separators=(",", ":"),
        )
        return str(int.from_bytes(hashlib.sha256(text.encode()).digest(), "big"))
