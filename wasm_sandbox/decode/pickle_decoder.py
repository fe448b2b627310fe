"""Decode a pickle that nobody trusts, as data only.

The guest's result is a pickle because the script that the guest runs writes one. A guest can put any bytes
in its place, so this decoder never imports, never looks up an attribute, and calls nothing outside the table
of ``plain_types.py``. It reads the opcodes itself and takes those that CPython 3.8 to 3.14 writes for plain
data, protocols 0 to 5. How values are put together, and what becomes of classes that the tool defines, is
in ``pickle_machine.py``.
"""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Callable
from itertools import chain
from typing import Any, NamedTuple

from wasm_sandbox.decode.pickle_machine import LONG, DecodeLimits, GuestClass, Machine, Node
from wasm_sandbox.decode.plain_types import (
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
from wasm_sandbox.errors import pass_on

__all__ = [
    "CorruptedPickle",
    "DecodeError",
    "DecodeLimits",
    "Envelope",
    "ForbiddenPickle",
    "decode_envelope",
    "loads",
]


class Envelope(NamedTuple):
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
    except IndexError as error:
        pass_on(error)
        # Only reading past the end, and popping or looking below the stack or the memo, index anything.
        raise CorruptedPickle("the pickle is cut, or takes values that it did not write") from None
    except (MemoryError, RecursionError) as error:
        pass_on(error)
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


def _run(data: bytes, limits: DecodeLimits) -> Any:  # noqa: PLR0912, PLR0915 - calls would take time
    """The machine's loop. What big results are made of is done here, all else by the handlers below.

    It is written for speed. Its variables run ahead of the machine's, which get them before a handler is called
    and give them back after it. What an opcode costs is charged with its turn, which counts as one: so ``spent``
    lags behind by ``turn``, and gets the difference of those that cost more or less. Where a length is cut, the
    next opcode lies behind the end.
    """
    m = Machine(data, limits)
    at, spent, max_items = 0, 0, limits.max_items
    stack, marks, memo = m.stack, m.marks, m.memo
    turn = 0
    try:
        while True:
            for turn in _TURNS:
                opcode = data[at]
                if opcode == _BINGET:
                    stack.append(memo[data[at + 1]])
                    at += 2
                elif opcode == _SHORT_BINUNICODE:
                    start = at + 2
                    at = start + data[at + 1]
                    try:
                        stack.append(data[start:at].decode() if at - start <= LONG else m.long_text(data[start:at]))
                    except UnicodeDecodeError:
                        m.pushed = spent + turn + 1
                        stack.append(m.text_with_surrogates(data[start:at]))
                        spent = m.pushed - turn - 1
                    if data[at] == _MEMOIZE:
                        at += 1
                        memo.append(stack[-1])
                elif opcode == _BININT1:
                    stack.append(data[at + 1])
                    at += 2
                elif opcode == _MARK:
                    at += 1
                    marks.append(stack)
                    stack = []
                elif opcode in _NUMBERS:
                    number = _NUMBERS[opcode]
                    end = at + number.size
                    if data[end] != opcode:
                        stack.append(number.unpack_from(data, at)[0])
                        at = end
                    else:
                        run = _RUNS[opcode].match(data, at)
                        end = run.end() if run else end
                        stack.extend(chain.from_iterable(number.iter_unpack(data[at:end])))
                        spent += (end - at) // number.size - 1
                        at = end
                elif opcode in _OPENED:
                    at += 1
                    spent += _CONTAINER_COST - 1
                    stack.append(Node([], 1, 1, _OPENED[opcode]))
                    if data[at] == _MEMOIZE:
                        at += 1
                        memo.append(stack[-1])
                elif opcode in _FILLED:
                    at += 1
                    spent -= 1
                    items, m.stack = stack, marks.pop()
                    stack = m.stack
                    m.fill(_FILLED[opcode], items)
                elif opcode in _TUPLES:
                    at += 1
                    spent += _CONTAINER_COST - 1
                    items = stack[-_TUPLES[opcode] :]
                    del stack[-_TUPLES[opcode] :]
                    if len(items) < _TUPLES[opcode]:
                        raise IndexError
                    stack.append(m.tuple_of(items))
                    if data[at] == _MEMOIZE:
                        at += 1
                        memo.append(stack[-1])
                elif opcode in _FILLED_BY_ONE:
                    at += 1
                    spent += _ONE_FILLED_COST - 1
                    fill, count = _FILLED_BY_ONE[opcode]
                    if len(stack) <= count:
                        raise IndexError
                    items = stack[-count:]
                    del stack[-count:]
                    m.stack = stack
                    m.fill(fill, items)
                elif opcode == _MEMOIZE:
                    at += 1
                    spent -= 1
                    if len(memo) > spent + turn:
                        raise CorruptedPickle(_TOO_MANY_REMEMBERED)
                    memo.append(stack[-1])
                elif opcode == _LONG_BINGET:
                    stack.append(memo[int.from_bytes(data[at + 1 : at + 5], "little")])
                    at += 5
                elif opcode in _CONSTANTS:
                    at += 1
                    stack.append(_CONSTANTS[opcode])
                else:
                    m.at, m.stack = at + 1, stack
                    m.pushed = spent + turn + _COSTS[opcode]
                    m.spend(0)
                    if opcode == _STOP:
                        return m.result()
                    _HANDLERS[opcode](m)
                    at, stack = m.at, m.stack
                    spent = m.pushed - turn - 1
            spent += len(_TURNS)
            if spent > max_items:
                m.pushed = spent
                m.spend(0)  # says so
    except IndexError:
        m.pushed = spent + turn
        m.spend(0)  # that comes first
        raise


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
        raise CorruptedPickle(_TOO_MANY_REMEMBERED)
    m.memo.append(m.stack[-1])


def _put(m: Machine, index: int) -> None:
    if index != len(m.memo):
        raise CorruptedPickle("the pickle does not number its values in order")
    _memoize(m)


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


_TOO_MANY_REMEMBERED = "the pickle remembers more values than it writes"

# What the loop does itself.
_STOP, _MARK, _MEMOIZE = pickle.STOP[0], pickle.MARK[0], pickle.MEMOIZE[0]
_BINGET, _LONG_BINGET = pickle.BINGET[0], pickle.LONG_BINGET[0]
_BININT1, _SHORT_BINUNICODE = pickle.BININT1[0], pickle.SHORT_BINUNICODE[0]
_NUMBERS = {
    pickle.BININT[0]: struct.Struct("<xi"),
    pickle.BININT2[0]: struct.Struct("<xH"),
    pickle.BINFLOAT[0]: struct.Struct(">xd"),
}
_RUNS = {opcode: re.compile(b"(?s:%c.{%d}){1,1000}" % (opcode, one.size - 1)) for opcode, one in _NUMBERS.items()}
_TUPLES = {pickle.TUPLE1[0]: 1, pickle.TUPLE2[0]: 2, pickle.TUPLE3[0]: 3}
_CONSTANTS = {pickle.NONE[0]: None, pickle.NEWTRUE[0]: True, pickle.NEWFALSE[0]: False}
_OPENED = {pickle.EMPTY_LIST[0]: LIST, pickle.EMPTY_DICT[0]: DICT, pickle.EMPTY_SET[0]: SET}
_FILLED = {pickle.APPENDS[0]: Fill.ITEMS, pickle.SETITEMS[0]: Fill.PAIRS, pickle.ADDITEMS[0]: Fill.MEMBERS}
_FILLED_BY_ONE = {pickle.APPEND[0]: (Fill.ITEMS, 1), pickle.SETITEM[0]: (Fill.PAIRS, 2)}
_TURNS = range(4096)  # between two looks at what was spent

_MAX_DIGITS = 4302  # what CPython prints of an int by default, a sign and an L
_MAX_NAME = 1000

# Opcodes that leave a new value, or a mark, on the stack.
_MAKING: dict[bytes, Callable[[Machine], None]] = {
    pickle.INT: _int_text,
    pickle.LONG: _long_text,
    pickle.LONG1: lambda m: m.push_int(m.take(m.take_number(1))),
    pickle.LONG4: lambda m: m.push_int(m.take(m.take_number(4))),
    pickle.FLOAT: _float_text,
    pickle.UNICODE: lambda m: m.push_escaped_text(m.take_line(len(m.data))),
    pickle.BINUNICODE: lambda m: m.push_text(m.take(m.take_number(4))),
    pickle.BINUNICODE8: lambda m: m.push_text(m.take(m.take_number(8))),
    pickle.SHORT_BINBYTES: lambda m: m.push_bytes(m.take(m.take_number(1))),
    pickle.BINBYTES: lambda m: m.push_bytes(m.take(m.take_number(4))),
    pickle.BINBYTES8: lambda m: m.push_bytes(m.take(m.take_number(8))),
    pickle.BYTEARRAY8: lambda m: m.push_bytes(bytearray(m.take(m.take_number(8)))),
    pickle.EMPTY_TUPLE: lambda m: m.push_tuple(()),
    pickle.LIST: _open_filled(LIST),
    pickle.DICT: _open_filled(DICT),
    pickle.TUPLE: lambda m: m.push_tuple(m.pop_mark()),
    pickle.FROZENSET: _frozenset,
    pickle.GET: lambda m: m.stack.append(m.memo[m.take_index()]),
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

# By the time that it takes: what the loop does itself, a handler, and what is slower still.
_CONTAINER_COST = 5
_ONE_FILLED_COST = 2
_HANDLED_COST = 3
_COSTLIER = {
    **dict.fromkeys((pickle.LIST, pickle.DICT, pickle.FROZENSET, pickle.TUPLE, pickle.EMPTY_TUPLE), _CONTAINER_COST),
    **dict.fromkeys((pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.REDUCE, pickle.NEWOBJ), 5),
    **dict.fromkeys((pickle.LONG, pickle.UNICODE, pickle.INT, pickle.GET), 5),
    pickle.BYTEARRAY8: 8,
    # What an honest pickle seldom writes though it makes no value.
    **dict.fromkeys((pickle.BUILD, pickle.PUT, pickle.BINPUT, pickle.LONG_BINPUT, pickle.FRAME), _HANDLED_COST),
}


def _handler(opcode: bytes) -> Callable[[Machine], None]:
    if opcode in _FORBIDDEN:
        return _forbidden(_FORBIDDEN[opcode])
    return _MAKING.get(opcode) or _OTHER.get(opcode, _unknown)


_HANDLERS = tuple(_handler(bytes((opcode,))) for opcode in range(256))
_COSTS = bytes(_COSTLIER.get(bytes((opcode,)), _HANDLED_COST * (bytes((opcode,)) in _MAKING)) for opcode in range(256))
"""How many values each opcode with a handler counts as; what is not in `_MAKING` only ends or annotates one."""
