"""Decode a pickle that nobody trusts, as data only.

The guest's result is a pickle because the script that the guest runs writes one. A guest can put any bytes
in its place, so this decoder never imports, never looks up an attribute, and calls nothing outside the table
of ``plain_types.py``. It reads the opcodes itself and takes those that CPython 3.8 to 3.14 writes for plain
data, protocols 0 to 5. How values are put together, and what becomes of classes that the tool defines, is
in ``pickle_machine.py``.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wasm_sandbox.pickle_machine import LONG, DecodeLimits, GuestClass, Machine, Node
from wasm_sandbox.plain_types import (
    ADVICE,
    DICT,
    FROZENSET,
    LIST,
    SET,
    Container,
    CorruptedPickle,
    DecodeError,
    Fill,
    ForbiddenPickle,
    PlainClass,
    find_class,
)

__all__ = [
    "CorruptedPickle",
    "DecodeError",
    "DecodeLimits",
    "Envelope",
    "ForbiddenPickle",
    "decode_envelope",
    "loads",
]


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a run of a tool hands back."""

    results: Any
    """The tool's value."""
    agent_state: Any
    """The agent state after the run."""


_DEFAULT_LIMITS = DecodeLimits()


def loads(payload: bytes, *, limits: DecodeLimits = _DEFAULT_LIMITS) -> Any:
    """Decode a pickle as plain data.

    Time and memory are proportional to the payload, within the limits. Dicts and sets with more than some
    44,000 keys are refused if the keys are neither strings, bytes nor dense small ints: a guest could make
    them collide. Colliding strings are prevented by CPython's hash randomisation, on unless
    ``PYTHONHASHSEED`` is set.

    Args:
        payload: one pickle and nothing after it.
        limits: how much it may hold.

    Raises:
        CorruptedPickle: not a well-formed pickle.
        ForbiddenPickle: not plain data, cyclic, or above a limit; the message says what to return instead.
    """
    try:
        return _run(payload, limits)
    except IndexError:
        # Only reading past the end, and popping or looking below the stack or the memo, index anything.
        raise CorruptedPickle("the pickle is cut, or takes values that it did not write") from None
    except (MemoryError, RecursionError):
        raise ForbiddenPickle("the result needs more memory or stack than the host has") from None


def decode_envelope(payload: bytes, *, limits: DecodeLimits = _DEFAULT_LIMITS) -> Envelope:
    """Decode the pickle of one run: a dict of exactly ``results`` and ``agent_state``.

    Args:
        payload: one pickle and nothing after it.
        limits: how much it may hold; the dict is one level of the depth.

    Raises:
        CorruptedPickle: not a well-formed pickle, or not of such a dict.
        ForbiddenPickle: as for :func:`loads`.
    """
    value = loads(payload, limits=limits)
    if type(value) is not dict or value.keys() != {"results", "agent_state"}:
        raise CorruptedPickle("the pickle does not hold a result: it is no dict of 'results' and 'agent_state'")
    return Envelope(value["results"], value["agent_state"])


def _run(data: bytes, limits: DecodeLimits) -> Any:
    machine = Machine(data, limits)
    max_items = limits.max_items
    while True:
        opcode = data[machine.at]
        machine.at += 1
        if opcode == _STOP:
            return machine.result()
        machine.pushed += _COSTS[opcode]
        if machine.pushed > max_items:
            machine.spend(0)  # says so
        _HANDLERS[opcode](machine)


# The handlers of the opcodes, one each; the machine's loop has read the opcode itself.


def _proto(m: Machine) -> None:
    if m.at != 1 or m.take(1)[0] > 5:
        raise CorruptedPickle("the pickle is of an unknown protocol")


def _frame(m: Machine) -> None:
    # Frames only help a reader to buffer. One may end anywhere, but not behind the end.
    if m.take_number(8) > len(m.data) - m.at:
        raise CorruptedPickle("a frame of the pickle is cut")


def _int_text(m: Machine) -> None:
    line = m.take_line(_MAX_DIGITS)
    if line in (b"00", b"01"):
        m.stack.append(line == b"01")
    else:
        _push_digits(m, line)


def _long_text(m: Machine) -> None:
    _push_digits(m, m.take_line(_MAX_DIGITS).removesuffix(b"L"))


def _push_digits(m: Machine, line: bytes) -> None:
    if not line.removeprefix(b"-").isdigit():
        raise CorruptedPickle("an int of the pickle is not a number")
    try:
        number = int(line)
    except ValueError:  # the host may allow fewer digits still
        raise ForbiddenPickle("the result holds an int with too many digits") from None
    m.push_int(number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True))


def _float_text(m: Machine) -> None:
    try:
        m.stack.append(float(m.take_line(64)))
    except ValueError:
        raise CorruptedPickle("a float of the pickle is not a number") from None


def _float(m: Machine) -> None:
    m.stack.append(_BIG_ENDIAN_DOUBLE.unpack(m.take(8))[0])


def _one_byte_int(m: Machine) -> None:
    m.stack.append(m.data[m.at])
    m.at += 1


def _four_byte_int(m: Machine) -> None:
    m.stack.append(int.from_bytes(m.take(4), "little", signed=True))


def _short_text(m: Machine) -> None:
    # What most results are made of: the steps of take() and push_text(), without their calls.
    start = m.at + 1
    m.at = end = start + m.data[m.at]
    if end > len(m.data) or end - start > LONG:
        m.at = start
        m.push_text(m.take(end - start))
        return
    try:
        m.stack.append(str(m.data[start:end], "utf-8"))
    except UnicodeDecodeError:
        m.stack.append(m.text_with_surrogates(m.data[start:end]))


def _global(m: Machine) -> None:
    module, name = m.take_line(_MAX_NAME), m.take_line(_MAX_NAME)
    try:
        m.stack.append(_find(module.decode(), name.decode()))
    except UnicodeDecodeError:
        raise CorruptedPickle("a name of the pickle is not valid Unicode") from None


def _stack_global(m: Machine) -> None:
    name, module = _text(m.stack.pop()), _text(m.stack.pop())
    m.stack.append(_find(module, name))


def _text(item: Any) -> str:
    value = item.value if isinstance(item, Node) else item
    if type(value) is not str or len(value) > _MAX_NAME:
        raise CorruptedPickle("the pickle names a class with something that is no name")
    return value


def _find(module: str, name: str) -> PlainClass | GuestClass:
    return GuestClass(name) if module == "__main__" else find_class(module, name)


def _memoize(m: Machine) -> None:
    # Written once per value; more often would only fill the host's memory.
    if len(m.memo) >= m.pushed:
        raise CorruptedPickle("the pickle remembers more values than it writes")
    m.memo.append(m.stack[-1])


def _put(m: Machine, index: int) -> None:
    if index != len(m.memo):
        raise CorruptedPickle("the pickle does not number its values in order")
    _memoize(m)


def _mark(m: Machine) -> None:
    m.marks.append(m.stack)
    m.stack = []


def _open(container: Container) -> Callable[[Machine], None]:
    return lambda m: m.stack.append(Node([], 1, 1, container))


def _open_filled(container: Container) -> Callable[[Machine], None]:
    def handler(m: Machine) -> None:
        items = m.pop_mark()
        m.stack.append(Node([], 1, 1, container))
        m.fill(container.fill, items)

    return handler


def _frozenset(m: Machine) -> None:
    members = m.pop_mark()
    m.charge_keys(members)
    node = Node([], 1, 1, FROZENSET)
    node.value = m.settle_all(members, node)
    m.stack.append(node)


def _small_tuple(length: int) -> Callable[[Machine], None]:
    def handler(m: Machine) -> None:
        stack = m.stack
        if len(stack) < length:
            raise IndexError
        items = stack[-length:]
        del stack[-length:]
        m.push_tuple(items)

    return handler


def _fill_one(fill: Fill, count: int) -> Callable[[Machine], None]:
    def handler(m: Machine) -> None:
        stack = m.stack
        if len(stack) <= count:
            raise IndexError
        items = stack[-count:]
        del stack[-count:]
        m.fill(fill, items)

    return handler


def _fill_many(fill: Fill) -> Callable[[Machine], None]:
    return lambda m: m.fill(fill, m.pop_mark())


def _reduce(m: Machine) -> None:
    arguments = m.stack.pop()
    m.stack.append(m.call(m.stack.pop(), arguments))


def _newobj(m: Machine) -> None:
    arguments = m.stack.pop()
    m.stack.append(m.new(m.stack.pop(), arguments))


def _build(m: Machine) -> None:
    state = m.stack.pop()
    m.build(m.stack[-1], state)


def _forbidden(name: str) -> Callable[[Machine], None]:
    def handler(m: Machine) -> None:
        raise ForbiddenPickle(f"the result uses the pickle opcode {name}, which plain data does not need: {ADVICE}")

    return handler


def _unknown(m: Machine) -> None:
    raise CorruptedPickle("the pickle holds an unknown opcode")


_STOP = pickle.STOP[0]
_MAX_DIGITS = 4302  # what CPython prints of an int by default, a sign and an L
_MAX_NAME = 1000
_BIG_ENDIAN_DOUBLE = struct.Struct(">d")

# Opcodes that leave a new value, or a mark, on the stack.
_MAKING: dict[bytes, Callable[[Machine], None]] = {
    pickle.NONE: lambda m: m.stack.append(None),
    pickle.NEWTRUE: lambda m: m.stack.append(True),
    pickle.NEWFALSE: lambda m: m.stack.append(False),
    pickle.INT: _int_text,
    pickle.LONG: _long_text,
    pickle.BININT: _four_byte_int,
    pickle.BININT1: _one_byte_int,
    pickle.BININT2: lambda m: m.stack.append(m.take_number(2)),
    pickle.LONG1: lambda m: m.push_int(m.take(m.take_number(1))),
    pickle.LONG4: lambda m: m.push_int(m.take(m.take_number(4))),
    pickle.FLOAT: _float_text,
    pickle.BINFLOAT: _float,
    pickle.UNICODE: lambda m: m.push_escaped_text(m.take_line(len(m.data))),
    pickle.SHORT_BINUNICODE: _short_text,
    pickle.BINUNICODE: lambda m: m.push_text(m.take(m.take_number(4))),
    pickle.BINUNICODE8: lambda m: m.push_text(m.take(m.take_number(8))),
    pickle.SHORT_BINBYTES: lambda m: m.push_bytes(m.take(m.take_number(1))),
    pickle.BINBYTES: lambda m: m.push_bytes(m.take(m.take_number(4))),
    pickle.BINBYTES8: lambda m: m.push_bytes(m.take(m.take_number(8))),
    pickle.BYTEARRAY8: lambda m: m.push_bytes(bytearray(m.take(m.take_number(8)))),
    pickle.EMPTY_LIST: _open(LIST),
    pickle.EMPTY_DICT: _open(DICT),
    pickle.EMPTY_SET: _open(SET),
    pickle.EMPTY_TUPLE: lambda m: m.push_tuple(()),
    pickle.LIST: _open_filled(LIST),
    pickle.DICT: _open_filled(DICT),
    pickle.TUPLE: lambda m: m.push_tuple(m.pop_mark()),
    pickle.TUPLE1: _small_tuple(1),
    pickle.TUPLE2: _small_tuple(2),
    pickle.TUPLE3: _small_tuple(3),
    pickle.FROZENSET: _frozenset,
    pickle.MARK: _mark,
    pickle.GET: lambda m: m.stack.append(m.memo[m.take_index()]),
    pickle.BINGET: lambda m: m.stack.append(m.memo[m.take_number(1)]),
    pickle.LONG_BINGET: lambda m: m.stack.append(m.memo[m.take_number(4)]),
    pickle.GLOBAL: _global,
    pickle.STACK_GLOBAL: _stack_global,
    pickle.REDUCE: _reduce,
    pickle.NEWOBJ: _newobj,
}
_OTHER: dict[bytes, Callable[[Machine], None]] = {
    pickle.PROTO: _proto,
    pickle.FRAME: _frame,
    pickle.PUT: lambda m: _put(m, m.take_index()),
    pickle.BINPUT: lambda m: _put(m, m.take_number(1)),
    pickle.LONG_BINPUT: lambda m: _put(m, m.take_number(4)),
    pickle.MEMOIZE: _memoize,
    pickle.APPEND: _fill_one(Fill.ITEMS, 1),
    pickle.APPENDS: _fill_many(Fill.ITEMS),
    pickle.SETITEM: _fill_one(Fill.PAIRS, 2),
    pickle.SETITEMS: _fill_many(Fill.PAIRS),
    pickle.ADDITEMS: _fill_many(Fill.MEMBERS),
    pickle.BUILD: _build,
}
# What CPython 3 writes for no plain data: code, other people's registries and buffers, and corrections to
# the stack that only cycles need.
_FORBIDDEN = {
    pickle.POP: "POP",
    pickle.POP_MARK: "POP_MARK",
    pickle.DUP: "DUP",
    pickle.STRING: "STRING",
    pickle.BINSTRING: "BINSTRING",
    pickle.SHORT_BINSTRING: "SHORT_BINSTRING",
    pickle.PERSID: "PERSID",
    pickle.BINPERSID: "BINPERSID",
    pickle.EXT1: "EXT1",
    pickle.EXT2: "EXT2",
    pickle.EXT4: "EXT4",
    pickle.INST: "INST",
    pickle.OBJ: "OBJ",
    pickle.NEWOBJ_EX: "NEWOBJ_EX",
    pickle.NEXT_BUFFER: "NEXT_BUFFER",
    pickle.READONLY_BUFFER: "READONLY_BUFFER",
}

# What takes as long as two small ints, and what an honest pickle seldom writes though it makes no value.
_COSTLIER = {
    **dict.fromkeys((pickle.EMPTY_LIST, pickle.EMPTY_DICT, pickle.EMPTY_SET, pickle.EMPTY_TUPLE), 2),
    **dict.fromkeys((pickle.LIST, pickle.DICT, pickle.FROZENSET), 2),
    **dict.fromkeys((pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3), 2),
    **dict.fromkeys((pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.REDUCE, pickle.NEWOBJ), 2),
    **dict.fromkeys((pickle.LONG, pickle.UNICODE, pickle.INT, pickle.GET), 2),
    pickle.BYTEARRAY8: 3,
    **dict.fromkeys((pickle.APPEND, pickle.SETITEM, pickle.BUILD), 1),
    **dict.fromkeys((pickle.PUT, pickle.BINPUT, pickle.LONG_BINPUT, pickle.FRAME), 1),
}


def _handler(opcode: bytes) -> Callable[[Machine], None]:
    if opcode in _FORBIDDEN:
        return _forbidden(_FORBIDDEN[opcode])
    return _MAKING.get(opcode) or _OTHER.get(opcode, _unknown)


_HANDLERS = tuple(_handler(bytes((opcode,))) for opcode in range(256))
_COSTS = bytes(_COSTLIER.get(bytes((opcode,)), bytes((opcode,)) in _MAKING) for opcode in range(256))
"""How many values each opcode counts as, by the time it takes; what is not in `_MAKING` only ends or annotates one."""
