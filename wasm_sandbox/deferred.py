"""Deferred building of pydantic models, at their first use, which makes a first result come sooner."""

from __future__ import annotations

from pydantic import VERSION

DEFER_BUILD = tuple(map(int, VERSION.split(".")[:2])) >= (2, 14)
"""Value of ``ConfigDict(defer_build=...)``: an older pydantic fails where two threads first use a model."""
