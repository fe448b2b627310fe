"""Refusals of the network's operations, as a guest sees them: errno of WASI, class and sentence."""

from __future__ import annotations

import errno
import struct

EACCES, EAGAIN, EBADF, ECONNREFUSED, ECONNRESET, EDQUOT, EHOSTUNREACH = 2, 6, 8, 14, 15, 19, 23
EINPROGRESS, EINVAL, EIO, EISCONN, EMFILE, ENETUNREACH, ENOTCONN, EPIPE, ETIMEDOUT = 26, 28, 29, 30, 33, 40, 53, 64, 73

_OF_HOST = {
    errno.ECONNREFUSED: (ECONNREFUSED, "connection refused"),
    errno.ECONNRESET: (ECONNRESET, "connection reset by peer"),
    errno.EHOSTUNREACH: (EHOSTUNREACH, "no route to host"),
    errno.ENETUNREACH: (ENETUNREACH, "network is unreachable"),
    errno.EPIPE: (EPIPE, "broken pipe"),
    errno.ETIMEDOUT: (ETIMEDOUT, "connection timed out"),
}

MAX_MESSAGE = 1000


class Refused(Exception):
    """An operation of a guest is refused, or has failed.

    Args:
        number: errno of WASI.
        message: sentence for the guest.
        kind: class of the exception there; ``"OSError"`` for the one that goes with the errno.
        detail: sentence for the host, if it may know more.
    """

    def __init__(self, number: int, message: str, kind: str = "OSError", detail: str = "") -> None:
        super().__init__(message)
        self.number, self.message, self.kind, self.detail = number, message, kind, detail or message

    def encoded(self) -> bytes:
        """Bytes of the answer."""
        text = f"{self.kind}\0{self.message[:MAX_MESSAGE]}"
        return struct.pack("<i", self.number) + text.encode("utf-8", "replace")


def of_host(error: BaseException) -> Refused:
    """Refusal for what went wrong on the host: of its words no more than the errno says."""
    if isinstance(error, TimeoutError):
        return Refused(ETIMEDOUT, "connection timed out")
    number = error.errno if isinstance(error, OSError) else None
    return Refused(*_OF_HOST.get(number or 0, (ECONNRESET, "the connection was lost")))
