"""Whether this pydantic can build models when they are first used, which makes a first result come sooner."""

from __future__ import annotations

from pydantic import VERSION

DEFER_BUILD = tuple(map(int, VERSION.split(".")[:2])) >= (2, 14)
"""For ``ConfigDict(defer_build=...)``. An older pydantic fails where two threads are the first users of a model."""
