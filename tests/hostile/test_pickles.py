"""Pickles that attack whoever reads them, written by a guest: an error of ours, soon, with little memory, no effect."""

from __future__ import annotations

import copyreg
import pickle
import struct
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import fuzz_result
from tests.hostile.conftest import RunBody
from tests.hostile.test_frames import FORGE
from wasm_sandbox import ErrorKind
from wasm_sandbox.decode.pickle_decoder import CorruptedPickle, DecodeError, ForbiddenPickle, loads

pytestmark = pytest.mark.long

MIB = 1 << 20
TOUCH = f"{Path(tempfile.gettempdir()).as_posix()}/wasm-sandbox-was-owned"
TOUCH_BYTES = len(f"touch {TOUCH}")

# Each is an expression, for the guest to make the bytes and for the host to have the same ones.
IMPORTS = {
    "a call of a function": f"b'cos\\nsystem\\n(V touch {TOUCH}\\ntR.'",
    "a call by names on the stack": "b'\\x80\\x04\\x8c\\x02os\\x8c\\x06system\\x93'"
    f" b'\\x8c\\x{TOUCH_BYTES:02x}touch {TOUCH}\\x85R.'",
    "an old instance": f"b'(V touch {TOUCH}\\nios\\nsystem\\n.'",
    "an old object": f"b'(cos\\nsystem\\nV touch {TOUCH}\\no.'",
    "a new object": "b'cos\\nsystem\\n)\\x81.'",
    "a new object with keywords": "b'\\x80\\x04cos\\nsystem\\n)}\\x92.'",
    "a module that is not loaded": "b'cantigravity\\nx\\n.'",
    "eval": "b'c__builtin__\\neval\\n(V1\\ntR.'",
    "a builtin that makes code": "b'cbuiltins\\ncompile\\n(V1\\nVx\\nVeval\\ntR.'",
    "getattr of a known class": "b'cbuiltins\\ngetattr\\n(cdatetime\\ndatetime\\nVnow\\ntR.'",
    "a dotted name": "b'\\x80\\x04\\x8c\\x08builtins\\x8c\\x0dint.__bases__\\x93.'",
    "an extension that is registered": "b'\\x82\\xc8.'",
    "a persistent id": "b'Pos.system\\n.'",
    "a persistent id from the stack": "b'Vx\\nQ.'",
    "a buffer from outside": "b'\\x97.'",
    "state with attributes": "b'cdecimal\\nDecimal\\n(V1\\ntR}V__class__\\nK\\1sb.'",
    "state for a list": "b']}V__class__\\nK\\1sb.'",
    "a zone that is a path": "b'cbuiltins\\ngetattr\\n(czoneinfo\\nZoneInfo\\nV_unpickle\\ntR'"
    " + b'(V../../etc/passwd\\nK\\1tR.'",
    "a default factory": "b'ccollections\\ndefaultdict\\n(cos\\ngetcwd\\ntR.'",
}
BOMBS = {
    "a memo index of 2**24": "b'Nr' + struct.pack('<I', 1 << 24) + b'.'",
    "a memo index as text": "b'Np16777216\\n.'",
    "a gigabyte of bytes, it says": "b'\\x8e' + struct.pack('<Q', 1 << 30) + b'x.'",
    "all of memory as text, it says": "b'\\x8d' + struct.pack('<Q', 2**64 - 1) + b'x.'",
    "a buffer of a gigabyte, it says": "b'\\x96' + struct.pack('<Q', 1 << 30) + b'x.'",
    "a frame of a gigabyte, it says": "b'\\x80\\x04\\x95' + struct.pack('<Q', 1 << 30) + b'x.'",
    "a long int of two gigabytes, it says": "b'\\x8b' + struct.pack('<I', 2**31 - 1) + b'x.'",
    "a long int of negative length": "b'\\x8b' + struct.pack('<i', -1) + b'x.'",
    "an int of a megabyte": "b'\\x8b' + struct.pack('<I', 1 << 20) + b'\\x7f' * (1 << 20) + b'.'",
    "digits": "b'L' + b'9' * 1_000_000 + b'L\\n.'",
    "a million memories of one value": "b'N' + b'\\x94' * 1_000_000 + b'.'",
    "references that expand": "b']' + b''.join(b'\\x94](' + (b'h%c' % n) * 10 + b'e' for n in range(9)) + b'.'",
    "a text shared many times": "b'(X' + struct.pack('<I', 10**6) + b'x' * 10**6 + b'\\x94' + b'h\\0' * 1000 + b'l.'",
    "copies of a buffer": "b'(B' + struct.pack('<I', 1 << 20) + bytes(1 << 20) + b'\\x94cbuiltins\\nbytearray\\n\\x94'"
    " + b'h\\1h\\0\\x85R' * 1000 + b'l.'",
    "a hundred thousand lists in one another": "b']' * 100_000 + b'a' * 99_999 + b'.'",
    "a hundred thousand tuples in one another": "b')' + b'\\x85' * 100_000 + b'.'",
    "a deep tuple that is hashed": "b'})' + b'\\x85' * 100_000 + b'Ns.'",
    "a list in itself": "b']\\x94h\\0a.'",
    "keys with one hash": "b'\\x8f(' + b''.join(b'\\x8a\\x0a' + (n * (2**61 - 1)).to_bytes(10, 'little')"
    " for n in range(1, 20_000)) + b'\\x90.'",
    "keys that meet in the table": "b'\\x8f(' + b''.join(b'\\x8a\\x08' + (n << 32).to_bytes(8, 'little')"
    " for n in range(60_000)) + b'\\x90.'",
    "a key that is hashed again and again": "b'((' + b'K\\1' * 10_000 + b't\\x94' + b'}h\\0Ns' * 1000 + b'l.'",
    "six million values": "b'(' + b'N' * 6_000_000 + b'l.'",
    "marks": "b'(' * 6_000_000 + b'.'",
}
CUT = {
    "nothing": "b''",
    "a stop alone": "b'.'",
    "no stop": "pickle.dumps([1, 2, 3], 4)[:-1]",
    "an opcode that there is not": "b'\\xff.'",
    "an unhashable key": "b'}]Ns.'",
    "a mark that is not there": "b'K\\1e.'",
    "a protocol of the future": "b'\\x80\\xff.'",
    "half of a number": "b'J\\1\\2.'",
    "text that is no UTF-8": "b'X\\2\\0\\0\\0\\xff\\xff.'",
}
ATTACKS = {**IMPORTS, **BOMBS, **CUT}
KINDS = {ForbiddenPickle: ErrorKind.FORBIDDEN_RESULT, CorruptedPickle: ErrorKind.CORRUPTED_RESULT}


@pytest.fixture(autouse=True)
def registered_extension() -> Iterator[None]:
    """The host has used the extension registry, whose cache goes past everything that looks at names."""
    fuzz_result.import_what_the_host_needs()
    copyreg.add_extension("builtins", "int", 200)
    pickle.loads(b"\x82\xc8.")
    yield
    copyreg.remove_extension("builtins", "int", 200)


def made(attack: str) -> bytes:
    payload = eval(attack, {"struct": struct, "pickle": pickle})
    assert isinstance(payload, bytes)
    return payload


@pytest.mark.parametrize("name", ATTACKS)
def test_a_guests_pickle_is_an_error_of_its_kind_and_does_nothing(run_body: RunBody, name: str) -> None:
    modules, began = set(sys.modules), time.monotonic()
    result = run_body(f"import pickle, struct\nwrite(frame({ATTACKS[name]}))\nleave()", top=FORGE)
    assert time.monotonic() - began < 20  # most of it inside the guest, which makes millions of bytes
    assert result.error is not None, result.func_return
    assert result.error.kind in (KINDS[ForbiddenPickle],) if name in IMPORTS else KINDS.values(), result.error
    assert set(sys.modules) - modules <= {name for name in sys.modules if name.startswith("wasm_sandbox.")}


TO_THE_BOUND = {"six million values", "marks"}
"""As many values as there may be are made, and then one too many: that takes some hundred megabytes."""


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in TO_THE_BOUND])
def test_decoding_it_takes_little_memory_and_time(name: str) -> None:
    payload = made(ATTACKS[name])
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            loads(payload)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # A value of one byte may be a list of 56: those that are counted, at most, and the rest in proportion.
    assert peak < 8 * MIB + 80 * len(payload)


def test_none_of_these_left_anything_on_the_host() -> None:
    assert not Path(TOUCH).exists()


# -- whatever the bytes are (`tests/fuzz` does the same for hours) --------------------------------------------

KEPT = sorted(path.read_bytes() for path in fuzz_result.CORPUS.iterdir())
PIECES = st.sampled_from([made(attack) for attack in ATTACKS.values() if len(made(attack)) < 2000] + KEPT)


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=400), PIECES, st.lists(PIECES | st.binary(max_size=20), max_size=5).map(b"".join)))
def test_any_output_is_plain_data_or_an_error_of_ours(data: bytes) -> None:
    fuzz_result.check(data)


@settings(max_examples=300)
@given(PIECES, st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 3), st.binary(max_size=6)), max_size=6))
def test_a_kept_output_with_bytes_changed_is_plain_data_or_an_error_of_ours(data: bytes, edits: list[Any]) -> None:
    changed = bytearray(data)
    for place, removed, added in edits:
        at = place % (len(changed) + 1)
        changed[at : at + removed] = added
    fuzz_result.check(bytes(changed))
    with suppress(DecodeError):
        loads(bytes(changed))


def test_every_kept_output_holds() -> None:
    assert fuzz_result.replay() == len(KEPT) > 50
