"""Machine code of the pause handler for Linux on x86-64, assembled from ``pause_handler.s``.

A module and not a data file: the import system finds it in a wheel and in a zip as any other, and reads it from its
cached bytecode in 0.2 ms; `importlib.resources` alone takes 16 ms to import. The code is position-independent.
"""

from __future__ import annotations

CODE = bytes.fromhex(
    "f30f1efa575652488b7e10f7c7ff0f0000754c4881ef00000102be80000000ba010000004c8d1543"
    "000000b8ca0000000f0583f8f2742848b9111111111111111148394f0875184531d28b0739d0770f"
    "7209b8ca0000000f05ebef5a5e5fc35a5e5f48b82222222222222222ffe000000000000000000000"
    "000000000000"
)

MARK_PLACE = b"\x11" * 8
"""Placeholder of the mark in `CODE`, which has it once."""

HANDLER_PLACE = b"\x22" * 8
"""Placeholder of the address of the handler before, which `CODE` has once."""
