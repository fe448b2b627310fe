"""Metering written into a module's own code: fuel, and a point where the guest can be stopped.

wasmtime can meter by itself, with fuel and with epochs, and both together cost nearly half of the computing
speed (``benchmarks/NOTES.md``). Here both are a few instructions at every iteration of a loop and at every
call of a function that is not small:

- Fuel is an i64 global that is taken down, by one for some 32 bytes of code (`_weight`) and by one for every
  64 bytes that are moved or filled at once. Below zero the guest traps.
- A byte is read from a second memory, the *poll page*. To stop the guest the host makes that page
  unreadable (`engine.memory.poll_page`); as safepoint polling does in a Java virtual machine.

What the last `memory.grow` gave is kept in a global, too: C++ and Rust code aborts where it gets no memory, and the
host tells that end apart from others. Another one says that the guest is alone: then a call of an import, and a
`memory.grow`, are traps. So the host can let it compute where no code of the host's may run.

None of these is in the guest's reach: globals and a second memory have no address in the first, and no code of the
module names their indices.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from wasm_sandbox.engine.module import binary as wb

FUEL_EXPORT = "wasm_sandbox_fuel"
"""Export name of the global with the units of fuel that are left; it starts at 0."""

INEXHAUSTIBLE_FUEL = 2**63 - 1
"""Fuel for centuries: for code that counts fuel where none is to be counted."""

POLL_EXPORT = "wasm_sandbox_poll"
"""Export name of the poll page, a memory of one page."""

GROWN_EXPORT = "wasm_sandbox_grown"
"""Export name of the global with what the last `memory.grow` gave: -1 if it was refused. It starts at 0."""

ALONE_EXPORT = "wasm_sandbox_alone"
"""Export name of the global that says, if it is not 0, that the guest may call nothing of the host's."""

ADDED_GLOBALS = frozenset({FUEL_EXPORT, GROWN_EXPORT, ALONE_EXPORT})
"""Export names of the globals that metering adds, which are no part of a guest's state."""

METERING_FORMAT = 4
"""Version of the code that is added; part of the key of a compiled image."""

BULK_BYTES_SHIFT = 6
CHUNK_BYTES = 256 << 10
"""Most bytes that one instruction moves or fills: it could not be stopped meanwhile."""

SMALL_FUNCTION_BYTES = 256
"""Most code of a function that is not charged for if it calls nothing: whoever calls it is charged."""

CODE_BYTES_SHIFT = 5
BRANCHING_WEIGHT = 4
"""Highest charge for code that is mostly passed over: with a jump table, or a function with calls."""

_BRANCH_HINTS = "metadata.code.branch_hint"
_VOID, _I32, _I64, _FUNCTION_TYPE = 0x40, 0x7F, 0x7E, 0x60

_UNREACHABLE, _BLOCK, _LOOP, _IF, _ELSE, _END, _BR, _BR_IF, _BR_TABLE = 0, 2, 3, 4, 5, 0x0B, 0x0C, 0x0D, 0x0E
_CALL, _CALL_INDIRECT, _RETURN_CALL, _RETURN_CALL_INDIRECT = 0x10, 0x11, 0x12, 0x13
_CALLS = frozenset({_CALL, _CALL_INDIRECT, _RETURN_CALL, _RETURN_CALL_INDIRECT})
_DROP, _LOCAL_GET, _LOCAL_SET, _GLOBAL_GET, _GLOBAL_SET = 0x1A, 0x20, 0x21, 0x23, 0x24
_I32_LOAD8_U, _OTHER_MEMORY = 0x2D, 0x40
_I32_CONST, _I32_LE_U, _I32_ADD, _I32_SUB, _I32_SHR_U = 0x41, 0x4D, 0x6A, 0x6B, 0x76
_I64_CONST, _I64_LT_S, _I64_SUB, _I64_EXTEND_I32_U = 0x42, 0x53, 0x7D, 0xAD
_BULK, _MEMORY_COPY, _MEMORY_FILL = 0xFC, 10, 11
_MEMORY_GROW = 0x40
_RETURN, _I32_LT_U, _I32_GE_U, _I32_AND, _I64_MUL = 0x0F, 0x49, 0x4F, 0x71, 0x7E

_LEB = rb"[\x80-\xff]*[\x00-\x7f]"
_MEMORY_0 = rb"[\x00-\x3f]" + _LEB  # alignment without the flag that a memory index follows, offset
_PLAIN = (
    rb"(?s:"
    rb"[\x00\x01\x05\x0f\x1a\x1b\x45-\xc4\xd1]"  # control, parametric, numeric: no immediates
    rb"|[\x0c\x0d\x20-\x26\x41\x42\xd0\xd2]" + _LEB +  # branches, variables, constants, references
    rb"|[\x28-\x3e]" + _MEMORY_0 +  # loads and stores
    rb"|\x3f\x00"  # memory.size
    rb"|\x43.{4}|\x44.{8}"  # floating-point constants
    rb"|\x1c\x01."  # select with a type
    rb"|\xfc[\x00-\x07]"  # saturating truncation
    rb"|\xfc\x10" + _LEB +  # table.size
    rb"|\xfd(?:[\x00-\x0b\x5c\x5d]" + _MEMORY_0 +  # SIMD: loads and stores
    rb"|[\x54-\x5b]" + _MEMORY_0 + rb"."  # of a lane
    rb"|[\x0c\x0d].{16}|[\x15-\x22]."  # constant, shuffle; extract, replace
    rb"|[\x0e-\x14\x23-\x53\x5e-\x7f]|[\x80-\xff][\x01-\x02])"
    rb")*+"
)  # fmt: skip
"""Instructions that are copied as they are, as many as follow each other. Compiled where an image is prepared."""


class Metering(Enum):
    """Metering that is written into a guest's code."""

    FUEL = "fuel"
    """Fuel is counted, and the poll page is read."""
    DEADLINE = "deadline"
    """The poll page is read: only a deadline or a caller ends a guest that computes."""
    NONE = "none"
    """Nothing is written, so the guest cannot be stopped: to measure what metering costs, never for hostile code."""


class MeteredCode(NamedTuple):
    """Metered code of a module."""

    section: bytes
    """Body of the code section."""
    hints: bytes
    """Body of the section of branch hints."""
    made_from: tuple[object, ...]
    """Everything that the code depends on."""


def meter_code(module: bytes, metering: Metering = Metering.FUEL) -> MeteredCode:
    """Meter a module's code, which is what takes long; `meter` takes it as long as code and indices are the same.

    Raises:
        MalformedModule: if these bytes are no WebAssembly 1.0 module, or use a proposal that is not known here.
    """
    return _Rewriting(_bodies(module), metering).code()


def meter(module: bytes, metering: Metering = Metering.FUEL, code: MeteredCode | None = None) -> bytes:
    """Meter a module.

    Args:
        module: module as a compiler wrote it; custom sections are dropped.
        metering: what is written. Without fuel its global is there and stays as it is.
        code: result of `meter_code`, if there is one.

    Returns:
        The metered module. The same input gives the same bytes.

    Raises:
        MalformedModule: if these bytes are no WebAssembly 1.0 module, or use a proposal that is not known here.
    """
    return _Rewriting(_bodies(module), metering).module(code)


def _bodies(module: bytes) -> dict[int, bytes]:
    return {number: body for number, body in wb.sections(module) if number != wb.CUSTOM}


@dataclass
class _Region:
    """Code with one charge: a function, or an iteration of a loop, without the loops in it."""

    place: int
    """Index of the charge among the pieces of the function."""
    start: int
    nested_bytes: int = 0
    chooses: bool = False
    """Whether there is a jump table, as in a switch and an interpreter's loop."""

    def own_bytes(self, end: int) -> int:
        return end - self.start - self.nested_bytes


def _weight(size: int, mostly_passed_over: bool) -> int:
    """Charge for a region of this many bytes of code."""
    weight = 1 + (size >> CODE_BYTES_SHIFT)
    return min(weight, BRANCHING_WEIGHT) if mostly_passed_over else weight


class _Rewriting:
    """Rewriting of one module; what is added gets the indices after everything that is there."""

    def __init__(self, bodies: dict[int, bytes], metering: Metering) -> None:
        self._bodies = bodies
        self._metering = metering
        self._counts_fuel = metering is Metering.FUEL
        self._plain = re.compile(_PLAIN)
        imports = wb.import_counts(bodies.get(wb.IMPORT, b"\0"))
        self._bulk_type = self._count(wb.TYPE)
        self._first_function = imports[wb.IMPORT_FUNCTION]
        self._copy = self._first_function + self._count(wb.FUNCTION)
        self._fill = self._copy + 1
        first_global = imports[wb.IMPORT_GLOBAL] + self._count(wb.GLOBAL)
        self._fuel, self._grown, self._alone = (wb.unsigned(first_global + place) for place in range(3))
        self._poll = wb.unsigned(imports[wb.IMPORT_MEMORY] + self._count(wb.MEMORY))
        self._poll_code = bytes([_I32_CONST, 0, _I32_LOAD8_U, _OTHER_MEMORY]) + self._poll + bytes([0, _DROP])
        if metering is Metering.NONE:
            self._poll_code = b""
        self._trap_if_alone = bytes([_GLOBAL_GET]) + self._alone + _TRAP_IF
        self._charge_begin = self._poll_code + bytes([_GLOBAL_GET]) + self._fuel
        self._charge_end = (
            bytes([_I64_SUB, _GLOBAL_SET])
            + self._fuel
            + bytes([_GLOBAL_GET])
            + self._fuel
            + bytes([_I64_CONST, 0, _I64_LT_S])
            + _TRAP_IF
        )

    def code(self) -> MeteredCode:
        section, hints = self._code(self._bodies.get(wb.CODE, b"\0"))
        return MeteredCode(section, hints, self._code_inputs())

    def _code_inputs(self) -> tuple[object, ...]:
        indices = self._first_function, self._copy, self._fuel, self._poll  # and what follows the fuel
        return self._bodies.get(wb.CODE), self._metering, *indices

    def module(self, code: MeteredCode | None = None) -> bytes:
        exports = wb.read_exports(self._bodies.get(wb.EXPORT, b"\0"))
        if {*ADDED_GLOBALS, POLL_EXPORT} & {export.name for export in exports}:
            raise wb.MalformedModule("the module is metered already")
        code = code or self.code()
        if code.made_from != self._code_inputs():
            raise wb.MalformedModule("its code was metered for another module")
        exports.append(wb.Export(FUEL_EXPORT, wb.EXPORT_GLOBAL, wb.Reader(self._fuel).unsigned()))
        exports.append(wb.Export(GROWN_EXPORT, wb.EXPORT_GLOBAL, wb.Reader(self._grown).unsigned()))
        exports.append(wb.Export(ALONE_EXPORT, wb.EXPORT_GLOBAL, wb.Reader(self._alone).unsigned()))
        exports.append(wb.Export(POLL_EXPORT, wb.EXPORT_MEMORY, wb.Reader(self._poll).unsigned()))
        bulk_type = bytes([_FUNCTION_TYPE, 3, _I32, _I32, _I32, 0])
        changed = {
            wb.TYPE: self._appended(wb.TYPE, bulk_type),
            wb.FUNCTION: self._appended(wb.FUNCTION, *[wb.unsigned(self._bulk_type)] * 2),
            wb.MEMORY: self._appended(wb.MEMORY, b"\1\1\1"),
            wb.GLOBAL: self._appended(
                wb.GLOBAL, bytes([_I64, 1, _I64_CONST, 0, _END]), *[bytes([_I32, 1, _I32_CONST, 0, _END])] * 2
            ),
            wb.EXPORT: wb.write_exports(exports),
            wb.CODE: code.section,
        }
        out = [wb.HEADER]
        for number in wb.SECTION_ORDER:
            if number == wb.CODE:
                out.append(wb.section(wb.CUSTOM, wb.text(_BRANCH_HINTS) + code.hints))
            if (body := changed.get(number, self._bodies.get(number))) is not None:
                out.append(wb.section(number, body))
        return b"".join(out)

    def _count(self, number: int) -> int:
        return wb.Reader(self._bodies.get(number, b"\0")).unsigned()

    def _appended(self, number: int, *entries: bytes) -> bytes:
        reader = wb.Reader(self._bodies.get(number, b"\0"))
        count = reader.unsigned()
        return wb.unsigned(count + len(entries)) + reader.data[reader.at :] + b"".join(entries)

    def _code(self, body: bytes) -> tuple[bytes, bytes]:
        """The code section, and the branch hints: that there is hardly ever no fuel."""
        reader = wb.Reader(body)
        count = reader.unsigned()
        functions, hints = [], []
        for index in range(count):
            function, hinted = self._function(reader.take(reader.unsigned()))
            functions.append(wb.unsigned(len(function)) + function)
            if hinted:
                at = b"".join(wb.unsigned(offset) + b"\1\0" for offset in hinted)
                hints.append(wb.unsigned(self._first_function + index) + wb.unsigned(len(hinted)) + at)
        functions += [wb.unsigned(len(f)) + f for f in (self._copy_function(), self._fill_function())]
        return wb.unsigned(count + 2) + b"".join(functions), wb.unsigned(len(hints)) + b"".join(hints)

    def _function(self, body: bytes) -> tuple[bytes, list[int]]:
        """A function with charges in it, and the offsets of their branches."""
        at = _end_of_locals(body)
        whole = _Region(place=1, start=at)
        out, places, calls = [body[:at], b""], [1], False
        blocks: list[_Region | None] = [whole]  # a region for the function and for each loop, nothing for a block
        regions = [whole]
        plain = self._plain.match
        while True:
            start, at = at, plain(body, at).end()  # type: ignore[union-attr]  # it matches nothing, at least
            opcode = body[at] if at < len(body) else -1
            if opcode in (_BLOCK, _IF):
                at = _after_number(body, at + 1)
                out.append(body[start:at])
                blocks.append(None)
            elif opcode == _LOOP:
                at = _after_number(body, at + 1)
                out += [body[start:at], b""]
                places.append(len(out) - 1)
                regions.append(_Region(len(out) - 1, at))
                blocks.append(regions[-1])
            elif opcode == _END:
                at += 1
                out.append(body[start:at])
                if (region := blocks.pop()) is None:
                    continue
                regions.pop()
                if not regions:
                    break
                regions[-1].nested_bytes += at - region.start
                out[region.place] = self._charge(_weight(region.own_bytes(at), region.chooses))
            elif opcode == _CALL:  # the most of what is not plain
                out.append(body[start:at])
                replacement, at = self._call(body, at)
                out.append(replacement)
                calls = True
            else:
                out.append(body[start:at])
                replacement, at = self._instruction(body, at)
                out.append(replacement)
                calls = calls or opcode in _CALLS
                regions[-1].chooses = regions[-1].chooses or opcode == _BR_TABLE
        if at != len(body):
            raise wb.MalformedModule("a function ends before its code does")
        if calls or whole.own_bytes(at) > SMALL_FUNCTION_BYTES:
            out[1] = self._charge(_weight(whole.own_bytes(at), whole.chooses or calls))
        return b"".join(out), self._branches(out, places)

    def _instruction(self, body: bytes, start: int) -> tuple[bytes, int]:
        """What stands for an instruction that is not plain, and where the next one starts."""
        reader = wb.Reader(body, start)
        opcode = reader.byte()
        if opcode == _RETURN_CALL:
            return self._call(body, start)
        if opcode in (_CALL_INDIRECT, _RETURN_CALL_INDIRECT):
            reader.unsigned()
            reader.unsigned()
            return body[start : reader.at], reader.at
        if opcode == _BR_TABLE:
            for _ in range(reader.unsigned() + 1):
                reader.unsigned()
            return body[start : reader.at], reader.at
        if opcode == _BULK:
            kind = reader.unsigned()
            if kind == _MEMORY_COPY and reader.take(2) == b"\0\0":
                return bytes([_CALL]) + wb.unsigned(self._copy), reader.at
            if kind == _MEMORY_FILL and reader.take(1) == b"\0":
                return bytes([_CALL]) + wb.unsigned(self._fill), reader.at
        if opcode == _MEMORY_GROW and reader.byte() == 0:
            kept = bytes([_GLOBAL_SET]) + self._grown + bytes([_GLOBAL_GET]) + self._grown
            return self._trap_if_alone + body[start : reader.at] + kept, reader.at
        raise wb.MalformedModule(f"the module uses an instruction that cannot be metered: {body[start:][:3].hex()}")

    def _call(self, body: bytes, start: int) -> tuple[bytes, int]:
        """What stands for a direct call, and where the next instruction starts."""
        reader = wb.Reader(body, start + 1)
        is_imported = reader.unsigned() < self._first_function
        call = body[start : reader.at]
        return (self._trap_if_alone + call if is_imported else call), reader.at

    def _charge(self, weight: int) -> bytes:
        return self._charge_units(bytes([_I64_CONST]) + wb.signed(weight))

    def _charge_units(self, units: bytes) -> bytes:
        """Code that looks at the poll page and takes down fuel by what ``units`` leaves on the stack."""
        return self._charge_begin + units + self._charge_end if self._counts_fuel else self._poll_code

    def _branches(self, pieces: list[bytes], charges: list[int]) -> list[int]:
        """The offset of the branch of each charge among the pieces of a function."""
        if not self._counts_fuel:
            return []
        found, at, done = [], 0, 0
        for place in charges:
            at += sum(map(len, pieces[done : place + 1]))
            done = place + 1
            if pieces[place]:
                found.append(at - len(_TRAP_IF))
        return found

    # -- moving and filling, in chunks -----------------------------------------------------------------

    def _charge_bytes(self, size: bytes) -> bytes:
        return self._charge_units(size + bytes([_I32_CONST, BULK_BYTES_SHIFT, _I32_SHR_U, _I64_EXTEND_I32_U]))

    def _fill_function(self) -> bytes:
        """``memory.fill``: locals 0 address, 1 value, 2 size."""
        address, value, size = (bytes([_LOCAL_GET, n]) for n in range(3))
        fill = bytes([_BULK, _MEMORY_FILL, 0])
        chunk = address + value + _CHUNK + fill + _moved(0, _I32_ADD)
        whole = address + value + size + fill + self._charge_bytes(size)
        return _SMALL_LOCALS + _small(_fill_small) + self._in_chunks(chunk) + whole + _DONE

    def _copy_function(self) -> bytes:
        """``memory.copy``: locals 0 destination, 1 source, 2 size. From the end, if it moves things up."""
        to, from_, size = (bytes([_LOCAL_GET, n]) for n in range(3))
        copy, add = bytes([_BULK, _MEMORY_COPY, 0, 0]), bytes([_I32_ADD])
        first = to + from_ + _CHUNK + copy + _moved(0, _I32_ADD) + _moved(1, _I32_ADD)
        left = size + _CHUNK + bytes([_I32_SUB])
        last = to + left + add + from_ + left + add + _CHUNK + copy
        down = to + from_ + bytes([_I32_LE_U, _IF, _VOID]) + self._in_chunks(first)
        up = bytes([_ELSE]) + self._in_chunks(last) + _DONE
        whole = to + from_ + size + copy + self._charge_bytes(size)
        return _SMALL_LOCALS + _small(_copy_small) + down + up + whole + _DONE

    def _in_chunks(self, work: bytes) -> bytes:
        """Code that does ``work`` and takes a chunk from local 2 while more than a chunk is left of it."""
        small = bytes([_LOCAL_GET, 2]) + _CHUNK + bytes([_I32_LE_U, _BR_IF, 1])
        again = _moved(2, _I32_SUB) + self._charge_bytes(_CHUNK) + bytes([_BR, 0])
        return bytes([_BLOCK, _VOID, _LOOP, _VOID]) + small + work + again + bytes([_END, _END])


def _end_of_locals(body: bytes) -> int:
    reader = wb.Reader(body)
    for _ in range(reader.unsigned()):
        reader.unsigned()
        reader.byte()
    return reader.at


def _after_number(body: bytes, at: int) -> int:
    """Where the LEB128 number at ``at`` ends."""
    while at < len(body) and body[at] & 0x80:
        at += 1
    return at + 1


_TRAP_IF = bytes([_IF, _VOID, _UNREACHABLE, _END])
_CHUNK = bytes([_I32_CONST]) + wb.signed(CHUNK_BYTES)
_DONE = bytes([_END])


# -- moving and filling little: the instructions are calls of the host, which cost more than some loads and stores

_SMALL_LOCALS = bytes([2, 2, _I32, 8, _I64])
_TO_END, _FROM_END, _WORD = 3, 4, 5
"""Where the words at the end begin, in both ranges, and the first of eight words."""


class _Words(NamedTuple):
    """How many words of what width are loaded into, or stored from, an i64 each."""

    number: int
    width: int
    load: int
    store: int


_SIZES = (
    _Words(1, 1, 0x31, 0x3C),
    _Words(1, 2, 0x33, 0x3D),
    _Words(1, 4, 0x35, 0x3E),
    *(_Words(number, 8, 0x29, 0x37) for number in (1, 2, 4)),
)


def _small(work: Callable[[_Words], bytes]) -> bytes:
    """Code that does and returns what costs no unit of fuel, if the size, in local 2, is that small and not 0.

    Two runs of words do it, one from the start and one up to the end, which may overlap. Outside the memory it
    traps as the instruction does, though perhaps with a part of the work done.
    """
    code = b""
    for words in _SIZES:
        enough = _get(2) + _i32(words.width * words.number) + bytes([_I32_GE_U, _IF, _VOID])
        code = enough + work(words) + (bytes([_ELSE]) + code if code else b"") + bytes([_END])
    small = _get(2) + _i32(1) + bytes([_I32_SUB]) + _i32((1 << BULK_BYTES_SHIFT) - 1) + bytes([_I32_LT_U])
    return small + bytes([_IF, _VOID]) + code + bytes([_RETURN, _END])


def _end_words(start: int, words: _Words, end: int) -> bytes:
    """Code that sets the local ``end`` to where the last words of the range at ``start`` begin."""
    last = _i32(words.width * words.number) + bytes([_I32_SUB, _I32_ADD])
    return _get(start) + _get(2) + last + bytes([_LOCAL_SET, end])


def _copy_small(words: _Words) -> bytes:
    """Code that moves one to two times these words: all are loaded before any is stored, for ranges that overlap."""
    code = _end_words(1, words, _FROM_END) + _end_words(0, words, _TO_END)
    offsets = [words.width * n for n in range(words.number)]
    for local, (base, offset) in enumerate([(b, o) for b in (1, _FROM_END) for o in offsets], _WORD):
        code += _get(base) + bytes([words.load, 0, offset, _LOCAL_SET, local])
    for local, (base, offset) in enumerate([(b, o) for b in (0, _TO_END) for o in offsets], _WORD):
        code += _get(base) + _get(local) + bytes([words.store, 0, offset])
    return code


def _fill_small(words: _Words) -> bytes:
    """Code that fills one to two times these words."""
    repeated = bytes([_I64_CONST]) + wb.signed(0x0101010101010101) + bytes([_I64_MUL])
    value = _get(1) + _i32(0xFF) + bytes([_I32_AND, _I64_EXTEND_I32_U]) + repeated + bytes([_LOCAL_SET, _WORD])
    code = _end_words(0, words, _TO_END) + value
    for base in (0, _TO_END):
        for n in range(words.number):
            code += _get(base) + _get(_WORD) + bytes([words.store, 0, words.width * n])
    return code


def _get(local: int) -> bytes:
    return bytes([_LOCAL_GET, local])


def _i32(value: int) -> bytes:
    return bytes([_I32_CONST]) + wb.signed(value)


def _moved(local: int, operation: int) -> bytes:
    """Code that adds a chunk to a local, or takes it away."""
    return bytes([_LOCAL_GET, local]) + _CHUNK + bytes([operation, _LOCAL_SET, local])
