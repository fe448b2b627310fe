"""The playground: one page, and what its browser may do with it.

May import: nothing.
Imported by: serve.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

PAGE = files(__name__).joinpath("index.html").read_bytes()


def _digests(tag: bytes) -> str:
    parts = re.findall(rb"<%b>(.*?)</%b>" % (tag, tag), PAGE, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(part).digest()).decode()}'" for part in parts)


POLICY = (
    f"default-src 'none'; script-src {_digests(b'script')}; style-src {_digests(b'style')}; style-src-attr 'none'; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of the page: its own script and style, pictures that it was given, and this server alone."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
