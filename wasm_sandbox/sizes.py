"""Sizes in bytes as people write and read them."""

from __future__ import annotations

import re

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgt]?)(?:i?b)?", re.IGNORECASE)


def read_size(text: str) -> int:
    """Read a size: ``1500000``, ``64K``, ``128M``, ``64MiB``, ``1G``; the units are powers of 1024.

    Raises:
        ValueError: if the text is no size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size; write bytes, or for example 64K, 128M or 1G")
    number, unit = match.groups()
    factor: int = 1024 ** " kmgt".index(unit.lower() or " ")
    return int(number) * factor if number.isdigit() else int(float(number) * factor)


def size_text(size: int) -> str:
    """Write a size for a reader: ``70.2 MiB``."""
    if size >= 10 << 30:
        return f"{size / (1 << 30):.1f} GiB"
    return f"{size / (1 << 20):.1f} MiB" if size >= 1 << 20 else f"{size / (1 << 10):.1f} KiB"
