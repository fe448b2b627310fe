"""Results that are as slow to decode as their bytes allow. As a script it prints the processor time of each.

python tests/hostile/decoding.py
"""

from __future__ import annotations

import gc
import pickle
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from wasm_sandbox.decode.pickle_decoder import DecodeError, DecodeLimits, loads
from wasm_sandbox.limits import Limits

FIRST, SECOND = b"h\0", b"h\1"  # what is remembered of the preparation


def text(value: str | bytes) -> bytes:
    encoded = value.encode() if isinstance(value, str) else value
    return b"\x8c" + bytes([len(encoded)]) + encoded


def named(name: str) -> bytes:
    module, _, last = name.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def wide(number: int) -> bytes:
    octets = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8b" + struct.pack("<I", len(octets)) + octets


@dataclass(frozen=True)
class Repeated:
    """A list of the same piece again and again."""

    piece: bytes
    cost: int
    """How many values each counts as, at least."""
    before: bytes = b""

    def payload(self, most_bytes: int, most_pieces: int) -> bytes:
        room = most_bytes - len(self.before) - 10
        return b"(" + self.before + self.piece * min(most_pieces, room // len(self.piece)) + b"l."


def calls(name: str, arguments: bytes, cost: int, state: bytes = b"", call: bytes = b"R") -> Repeated:
    """One call after the other, of a class and with arguments that are remembered."""
    before = named(name) + b"\x94" + arguments + b"\x94" + call + state
    return Repeated(FIRST + SECOND + call + state, cost, before)


def keys(name: str, arguments: bytes, cost: int) -> Repeated:
    """As `calls`, each the one key of a dict: it is hashed."""
    made = calls(name, arguments, cost)
    return Repeated(b"}" + made.piece + b"Ns", cost, made.before)


_A, _B = 1, 1
while _B.bit_length() < 8000:
    _A, _B = _B, _A + _B  # neighbours of Fibonacci's: the most steps that a greatest common divisor can take
V6 = text("1234:1234:1234:1234:1234:1234:1234:1234")
V6_NETWORK = text("1234:1234:1234:1234:1234:1234:1234:1234/128")
UTC = named("datetime.timezone") + named("datetime.timedelta") + b"K\0K\1K\0\x87R\x85R"
ZONE = named("builtins.getattr") + named("zoneinfo.ZoneInfo") + text("_unpickle") + b"\x86R"
MOMENT = b"C\x0a\x07\xe8\1\1\1\1\1\0\0\0"

CASES = {
    "ints": Repeated(b"M\1\2", 1),
    "ints as text": Repeated(b"I12345\n", 2),
    "long ints as text": Repeated(b"L12345L\n", 2),
    "wide ints": Repeated(b"\x8a\x41" + b"\x7f" * 65, 1),
    "floats as text": Repeated(b"F1.79e308\n", 1),
    "bytes": Repeated(b"C\1a", 1),
    "bytearrays": Repeated(b"\x96\1\0\0\0\0\0\0\0a", 3),
    "escaped texts": Repeated(b"V\\u1234\n", 2),
    "lone surrogates": Repeated(text(b"\xed\xa0\x80" * 2), 4),
    "lone surrogates in long strings": Repeated(b"X\3\0\0\0\xed\xa0\x80", 4),
    "remembered values": Repeated(b"N\x94", 1),
    "references": Repeated(b"j\0\0\0\0", 1, b"N\x94"),
    "references as text": Repeated(b"g0\n", 2, b"N\x94"),
    "frames": Repeated(b"\x95" + bytes(8), 1, b"N"),
    "lists": Repeated(b"]", 2),
    "dicts": Repeated(b"}", 2),
    "sets": Repeated(b"\x8f", 2),
    "empty tuples": Repeated(b")", 2),
    "marks": Repeated(b"(l", 3),
    "marked tuples": Repeated(b"(t", 3),
    "lists in tuples": Repeated(b"]\x85", 4),
    "tuples in tuples": Repeated(b")\x85\x85\x85", 8),
    "lists of one": Repeated(b"]Na", 4),
    "lists of a list": Repeated(b"]]a", 5),
    "appending to one list": Repeated(b"Na", 2, b"]"),
    "appending nothing": Repeated(b"(e", 1, b"]"),
    "dicts of one": Repeated(b"}K\1Ns", 5),
    "dicts of one float": Repeated(b"}G" + bytes(8) + b"Ns", 5),
    "sets of one": Repeated(b"\x8f(K\1\x90", 4),
    "frozensets of one": Repeated(b"(K\1\x91", 4),
    "names": Repeated(named("__main__.A") + b")R", 6),
    "complex numbers": calls("builtins.complex", b"G" + bytes(8) + b"G" + bytes(8) + b"\x86", 8),
    "ranges": calls("builtins.range", b"K\1K\2K\3\x87", 8),
    "sets of a list": calls("builtins.set", b"](K\1K\2e\x85", 8),
    "dates": calls("datetime.date", b"C\4\x07\xe8\1\1\x85", 8),
    "moments": calls("datetime.datetime", MOMENT + UTC + b"\x86", 8),
    "moments of a zone as keys": keys("datetime.datetime", MOMENT + ZONE + text("Asia/Tokyo") + b"K\1\x86R\x86", 10),
    "zones": Repeated(FIRST + text("Asia/Tokyo") + b"K\1\x86R", 9, ZONE + b"\x94N\x85"),
    "deques": calls("collections.deque", b")K\1\x86", 8),
    "default dicts": calls("collections.defaultdict", named("builtins.list") + b"\x85", 8),
    "ordered dicts of one": Repeated(FIRST + b")RK\1Ns", 12, named("collections.OrderedDict") + b"\x94)R"),
    "counters": calls("collections.Counter", b"}K\1K\1s\x85", 8),
    "decimals": calls("decimal.Decimal", text("1.5") + b"\x85", 8),
    "long decimals": Repeated(
        FIRST + text("5" * 250) + b"\x85R", 9, named("decimal.Decimal") + b"\x94" + text("1") + b"\x85R"
    ),
    "decimals as keys": keys("decimal.Decimal", text("1e999999999") + b"\x85", 12),
    "fractions": calls("fractions.Fraction", b"K\1K\2\x86", 8),
    "wide fractions": Repeated(
        FIRST + wide(_A) + wide(_B) + b"\x86R", 10, named("fractions.Fraction") + b"\x94K\1K\1\x86R"
    ),
    "shared wide fractions": calls("fractions.Fraction", wide(_A) + wide(_B) + b"\x86", 8),
    "shared wide fractions as keys": keys("fractions.Fraction", wide(_A) + wide(_B) + b"\x86", 12),
    "one wide fraction as a key": Repeated(
        b"}" + FIRST + b"Ns", 5, named("fractions.Fraction") + wide(_A) + wide(_B) + b"\x86R\x94"
    ),
    "fractions as keys": keys("fractions.Fraction", b"K\1K\2\x86", 12),
    "paths": calls("pathlib.PurePosixPath", text("a") + b"\x85", 8),
    "paths of many parts": calls("pathlib.PurePosixPath", b"(" + text("a") * 250 + b"t", 250),
    "Windows paths of many parts": calls("pathlib.PureWindowsPath", b"(" + text("a") * 250 + b"t", 250),
    "paths of a long name": calls("pathlib.PurePosixPath", text("a/" * 120) + b"\x85", 8),
    "Windows paths of many parts as keys": keys("pathlib.PureWindowsPath", b"(" + text("a") * 250 + b"t", 250),
    "Windows paths as keys": keys("pathlib.PureWindowsPath", text("a") + b"\x85", 12),
    "addresses": calls("ipaddress.IPv6Address", V6 + b"\x85", 12),
    "networks": calls("ipaddress.IPv6Network", V6_NETWORK + b"\x85", 24),
    "networks as keys": keys("ipaddress.IPv6Network", V6_NETWORK + b"\x85", 24),
    "interfaces": calls("ipaddress.IPv6Interface", V6_NETWORK + b"\x85", 24),
    "one network as a key": Repeated(
        b"}" + FIRST + b"Ns", 5, named("ipaddress.IPv6Network") + V6_NETWORK + b"\x85R\x94"
    ),
    "universal ids": calls(
        "uuid.UUID", b")", 15, b"}" + text("int") + b"K\1sb", b"\x81"
    ),
    "exceptions": calls("builtins.ValueError", text("a") + b"\x85", 8),
    "exceptions with notes": Repeated(
        FIRST + b")R" + SECOND + b"b", 10,
        named("builtins.ValueError") + b"\x94}" + text("__notes__") + b"](" + text("n") * 20 + b"es\x94N\x85",
    ),
    "members of a tool's enum": calls("__main__.A", b"K\1\x85", 4),
    "instances of a tool's class": calls("__main__.A", b"K\1\x85", 5, b"Nb", b"\x81"),
    "values through the guest's own pickler": calls("_sandbox_pickle.plain", b"N\x85", 8),
}  # fmt: skip

COLLIDING: dict[str, Callable[[], object]] = {
    "keys in few places of the table": lambda: {n << 32 for n in range(44_000)},
    "floats in few places of the table": lambda: {float(n) * 2.0**45 for n in range(44_000)},
    "many such sets": lambda: [{n << 32 for n in range(11_000)} for _ in range(16)],
    "sets of few keys with one hash": lambda: [{n * (2**61 - 1) for n in range(1, 17)} for _ in range(80_000)],
}


def decode(payload: bytes) -> tuple[float, str]:
    """The processor time in seconds, and what became of it."""
    gc.collect()
    began = time.thread_time()
    try:
        loads(payload)
        end = "accepted"
    except DecodeError as error:
        end = str(error)
    return time.thread_time() - began, end


def _pickled(make: Callable[[], object]) -> bytes:
    return pickle.dumps(make(), 4)


def main() -> None:
    size = Limits().result_bytes
    payloads: dict[str, Callable[[], bytes]] = {}
    for name, case in CASES.items():
        payloads[name] = partial(case.payload, size, 1 << 30)
    for name, make in COLLIDING.items():
        payloads[name] = partial(_pickled, make)
    for name, case in CASES.items():
        accepted = DecodeLimits().max_items * 39 // 40 // case.cost
        payloads[f"{name}, just accepted"] = partial(case.payload, size, accepted)
    found = []
    for name, made in payloads.items():
        payload = made()
        seconds, end = decode(payload)
        found.append((seconds, name))
        print(f"{seconds:6.2f} s  {len(payload) / 1e6:5.1f} MB  {name}: {end}", flush=True)
    print("slowest:", ", ".join(f"{name} {seconds:.1f} s" for seconds, name in sorted(found)[:-6:-1]))


if __name__ == "__main__":
    main()
