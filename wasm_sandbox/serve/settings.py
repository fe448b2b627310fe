"""Settings of a server, checked before it listens."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from wasm_sandbox import Limits
from wasm_sandbox.options import Isolation
from wasm_sandbox.serve.tokens import Tokens
from wasm_sandbox.web import is_loopback

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a server.

    Raises:
        ValueError: if it would listen to others without a token, or a number is out of range.
    """

    host: str = "127.0.0.1"
    """Address to listen at."""
    port: int = 8080
    """Port; 0 for a free one."""
    tokens: Tokens | None = None
    """Clients that may call; with None everybody on this machine may."""
    limits: Limits = field(default_factory=Limits)
    """Ceiling of the limits of whoever comes without a token."""
    isolation: Isolation = "thread"
    """Where guests run."""
    concurrency: int = 32
    """Calls that are under way at the same time."""
    queue: int = 256
    """Most calls of one client that wait."""
    queue_seconds: float = 30.0
    """Longest wait for the begin of a call."""
    body_bytes: int = 16 * MIB
    """Largest body of a request."""
    bodies_bytes: int = 64 * MIB
    """Most bytes of all bodies together, from their reading to the end of their requests."""
    connections: int = 1000
    """Most connections."""
    sessions: int = 100
    """Most sessions of all clients together."""
    head_seconds: float = 10.0
    """Longest time in which the head of a request comes."""
    body_seconds: float = 30.0
    """Longest time in which its body comes."""
    write_seconds: float = 30.0
    """Time in which a client takes 64 KiB of what waits for it, or all of it."""
    drain_seconds: float = 30.0
    """Longest time that calls under way have when the server is to end."""
    mcp_tools: bool = False
    """Whether the stored tools are offered at ``/mcp``, which run with the stored variables."""
    data_directory: Path | None = None
    """Directory of the sessions that outlive the server; with None they end with it."""

    def __post_init__(self) -> None:
        if self.tokens is None and not is_loopback(self.host):
            raise ValueError(
                f"{self.host} can be reached from other machines, and anybody there could run code here: "
                "give a token file (--token-file), or listen at 127.0.0.1"
            )
        for name in ("concurrency", "queue", "body_bytes", "bodies_bytes", "connections", "sessions"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.bodies_bytes < self.body_bytes:
            raise ValueError("bodies_bytes must be at least body_bytes")
