"""Write the exceptions and long jumps of a linked module as plain code.

Usage: exceptions.py MODULE MAP LISTED OUTPUT
    MAP     what the linker wrote about MODULE (--Map)
    LISTED  file with the archives and objects whose functions exceptions may leave, one a line

Neither metering nor the engine knows `try_table`, and so nothing else in a guest pays for it. An exception in flight is
two globals: its tag's number plus one, 0 if there is none, and its payload. A call that may throw is followed by a
test, and a branch to the handler, or to the end of the function, which returns zeros to a caller that tests, too.

Which calls may throw is found out: a function of the listed objects *escapes* if an exception can leave it, by a
`throw` or by a call of a function that escapes. What a call through the table reaches may escape if some function of
its type does.

Everything else does not know of exceptions, and must not go on with one in flight. So a function that escapes has two
indices. The one by which all know it is a guard, which calls the function and ends the run if an exception left it; at
the end of the code is the function itself, which only functions that test can name. The table is there twice: they call
through its second half.

An `exnref` is an i64: the number of the tag above the payload. Format: the WebAssembly specification, 3.0.
"""

import pathlib
import re
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

CUSTOM, TYPE, IMPORT, FUNCTION, TABLE, MEMORY, GLOBAL, EXPORT, START, ELEMENT, CODE, DATA, DATA_COUNT, TAG = range(14)
ORDER = (TYPE, IMPORT, FUNCTION, TABLE, MEMORY, GLOBAL, EXPORT, START, ELEMENT, DATA_COUNT, CODE, DATA)

VARIABLES = ("sandbox_exception_tag", "sandbox_exception_payload")
"""Export names of the two globals. A snapshot has all that change, and is taken when none has: both are 0 at rest."""

UNCAUGHT = "sandbox_uncaught"
"""Function that is called with the payload where an exception would leave to code that does not know of it."""

VOID, I32, I64, F32, F64, V128, EXNREF, FUNCTION_TYPE = 0x40, 0x7F, 0x7E, 0x7D, 0x7C, 0x7B, 0x69, 0x60
BLOCK, LOOP, IF, ELSE, THROW, THROW_REF, END, BR, BR_IF, BR_TABLE = 2, 3, 4, 5, 8, 0x0A, 0x0B, 0x0C, 0x0D, 0x0E
RETURN, CALL, CALL_INDIRECT, TRY_TABLE, UNREACHABLE = 0x0F, 0x10, 0x11, 0x1F, 0
LOCAL_GET, GLOBAL_GET, GLOBAL_SET, I32_CONST, I64_CONST, REF_NULL = 0x20, 0x23, 0x24, 0x41, 0x42, 0xD0
I32_EQ, I32_ADD, I32_WRAP, I64_EXTEND, I64_OR, I64_SHL, I64_SHR = 0x46, 0x6A, 0xA7, 0xAD, 0x84, 0x86, 0x88
CATCH, CATCH_REF, CATCH_ALL, CATCH_ALL_REF = range(4)
ZEROS = {
    I32: b"\x41\0",
    I64: b"\x42\0",
    F32: b"\x43" + bytes(4),
    F64: b"\x44" + bytes(8),
    V128: b"\xfd\x0c" + bytes(16),
}

_LEB = rb"[\x80-\xff]*[\x00-\x7f]"
_MEMORY = _LEB + _LEB  # alignment, offset
PLAIN = re.compile(
    rb"(?s:"
    rb"[\x00\x01\x0f\x1a\x1b\x45-\xc4\xd1]"  # no immediates
    rb"|[\x20-\x26\x41\x42\xd2]" + _LEB +  # variables, integers, references
    rb"|[\x28-\x3e]" + _MEMORY +
    rb"|[\x3f\x40]\x00|\x43.{4}|\x44.{8}"
    rb"|\x1c\x01[\x7b-\x7f]"  # select
    rb"|\xfc(?:[\x00-\x07]|\x08" + _LEB + rb"\x00|\x09" + _LEB + rb"|\x0a\x00\x00|\x0b\x00|\x10" + _LEB + rb")"
    rb"|\xfd(?:[\x00-\x0b\x5c\x5d]" + _MEMORY +
    rb"|[\x54-\x5b]" + _MEMORY + rb"."
    rb"|[\x0c\x0d].{16}|[\x15-\x22]."
    rb"|[\x0e-\x14\x23-\x53\x5e-\x7f]|[\x80-\xff][\x01-\x02])"
    rb")++"
)  # fmt: skip
"""Instructions that stay as they are, as many as follow each other."""


class Unsupported(Exception):
    """The module has what is not known here; the message says what."""


def unsigned(value: int) -> bytes:
    """Unsigned LEB128."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def signed(value: int) -> bytes:
    """Signed LEB128 of a number that is not negative."""
    out = bytearray()
    while value > 0x3F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


class Reader:
    """Cursor over bytes."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return value
            shift += 7

    def take(self, size: int) -> bytes:
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self) -> bytes:
        """Bytes of a LEB128 number."""
        start = self.at
        while self.byte() & 0x80:
            pass
        return self.data[start : self.at]

    def vector(self) -> bytes:
        return self.take(self.unsigned())

    def rest(self) -> bytes:
        return self.data[self.at :]


class Clause(NamedTuple):
    """What a `try_table` catches, and where it goes."""

    kind: int
    tag: int
    label: int


class Instruction(NamedTuple):
    """An instruction, or several that stay as they are, which have no opcode."""

    opcode: int | None
    code: bytes = b""
    """The instructions; of a block its type, with i64 in place of `exnref`."""
    index: int = 0
    """Label, function, type or tag."""
    labels: tuple[int, ...] = ()
    clauses: tuple[Clause, ...] = ()


class Function:
    """A function of a listed object, and how exceptions leave it."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.throws = False
        """Whether a `throw` in it leaves it."""
        self.calls: set[int] = set()
        """Functions that are called outside of what catches all."""
        self.types: set[int] = set()
        """Types of calls through the table outside of what catches all."""
        reader = Reader(body)
        self.locals = b"".join(_locals(reader))
        self.code = list(_instructions(reader))
        self._scan()

    def _scan(self) -> None:
        catching = [False]  # whether a block or one around it catches all
        for instruction in self.code:
            opcode, index = instruction.opcode, instruction.index
            if opcode in (BLOCK, LOOP, IF):
                catching.append(catching[-1])
            elif opcode == TRY_TABLE:
                catching.append(catching[-1] or _catches_all(instruction.clauses))
            elif opcode == END:
                catching.pop()
            elif catching[-1]:
                continue
            elif opcode == CALL:
                self.calls.add(index)
            elif opcode == CALL_INDIRECT:
                self.types.add(index)
            elif opcode in (THROW, THROW_REF):
                self.throws = True


def _locals(reader: Reader) -> Iterator[bytes]:
    count = reader.unsigned()
    yield unsigned(count)
    for _ in range(count):
        yield reader.number() + bytes([_plain_type(reader.byte())])


def _plain_type(value_type: int) -> int:
    return I64 if value_type == EXNREF else value_type


def _block_type(reader: Reader) -> bytes:
    code = reader.number()
    return bytes([I64]) if code == bytes([EXNREF]) else code


def _instructions(reader: Reader) -> Iterator[Instruction]:
    body = reader.data
    while reader.at < len(body):
        if plain := PLAIN.match(body, reader.at):
            reader.at = plain.end()
            yield Instruction(None, plain[0])
            continue
        opcode = reader.byte()
        if opcode in (BLOCK, LOOP, IF):
            yield Instruction(opcode, _block_type(reader))
        elif opcode in (BR, BR_IF, CALL, THROW):
            yield Instruction(opcode, index=reader.unsigned())
        elif opcode in (ELSE, END, THROW_REF):
            yield Instruction(opcode)
        elif opcode == BR_TABLE:
            yield Instruction(opcode, labels=tuple(reader.unsigned() for _ in range(reader.unsigned() + 1)))
        elif opcode == CALL_INDIRECT:
            called = reader.unsigned()
            if reader.unsigned():
                raise Unsupported("a call through another table")
            yield Instruction(opcode, index=called)
        elif opcode == TRY_TABLE:
            kind = _block_type(reader)
            yield Instruction(opcode, kind, clauses=tuple(_clauses(reader)))
        elif opcode == REF_NULL and reader.byte() == EXNREF:
            yield Instruction(None, ZEROS[I64])
        else:
            raise Unsupported(f"opcode {opcode:#x} in a function with exceptions")


def _clauses(reader: Reader) -> Iterator[Clause]:
    for _ in range(reader.unsigned()):
        kind = reader.byte()
        tag = reader.unsigned() if kind in (CATCH, CATCH_REF) else 0
        yield Clause(kind, tag, reader.unsigned())


def _catches_all(clauses: Iterable[Clause]) -> bool:
    return any(clause.kind in (CATCH_ALL, CATCH_ALL_REF) for clause in clauses)


class Frame(NamedTuple):
    """A block that is open where code is written."""

    labels: int
    """How many blocks stand for it; branches to it go to the outermost, and landings are at the innermost."""
    lands: bool
    """Whether an exception in flight in it goes to its end."""
    clauses: tuple[Clause, ...] = ()


class Lowering:
    """One module.

    Args:
        module: linked module.
        listed: indices of the functions that exceptions may leave.
        uncaught: index of the function for those that leave the listed functions; it takes the payload.

    Raises:
        Unsupported: if the module has what is not known here.
    """

    def __init__(self, module: bytes, listed: Iterable[int], uncaught: int) -> None:
        self._sections = dict(_sections(module))
        self._names = _name_section(module)
        self._uncaught = uncaught
        self._types = list(_types(self._section(TYPE)))
        imported, self._globals = _imports(self._section(IMPORT))
        self._functions = imported + list(_vector(self._section(FUNCTION)))
        self._first = len(imported)
        self._globals += Reader(self._section(GLOBAL)).unsigned()
        self._tags = list(self._read_tags())
        self._bodies = list(_bodies(self._section(CODE)))
        self._table, self._elements = self._read_table()
        defined = set(range(self._first, len(self._functions)))
        self._listed = {index: Function(self._bodies[index - self._first]) for index in sorted({*listed} & defined)}
        self.escaping = self._find_escaping()
        """Indices of the functions that an exception can leave."""
        self._escaping_types = {self._kind(index) for index in self.escaping & {*self._elements.values()}}
        later = len(self._functions) + len(self.escaping)
        self._moved = dict(zip(sorted(self.escaping), range(len(self._functions), later), strict=True))
        self._raise, self._take = later, later + 1
        self._tag, self._payload = unsigned(self._globals), unsigned(self._globals + 1)
        self._none = b"".join(bytes([I32_CONST, 0, GLOBAL_SET]) + index for index in (self._tag, self._payload))

    def module(self) -> bytes:
        """The module without exceptions."""
        moved = [unsigned(self._functions[index]) for index in self._moved]
        kinds = [unsigned(len(self._types)), unsigned(len(self._types) + 1)]
        types = [*self._types, bytes([FUNCTION_TYPE, 1, I64, 0]), bytes([FUNCTION_TYPE, 0, 1, I64])]
        bodies = {index: function.body for index, function in self._listed.items()}
        for index, function in self._listed.items():
            if self._changes(function):
                bodies[index] = self._lowered(index, function)
        code = [bodies.get(index, body) for index, body in enumerate(self._bodies, self._first)]
        for index in self._moved:
            code[index - self._first] = self._guard(index)
        code += [bodies[index] for index in self._moved] + [self._raise_body(), self._take_body()]
        changed = {
            TYPE: unsigned(len(types)) + b"".join(types),
            FUNCTION: _appended(self._section(FUNCTION), *moved, *kinds),
            GLOBAL: _appended(self._section(GLOBAL), *[bytes([I32, 1, I32_CONST, 0, END])] * 2),
            EXPORT: _appended(self._section(EXPORT), *self._exports()),
            CODE: unsigned(len(code)) + b"".join(unsigned(len(body)) + body for body in code),
        }
        if self._escaping_types:
            changed |= self._table_twice()
        out = [b"\0asm\1\0\0\0"]
        for number in ORDER:
            if (body := changed.get(number, self._sections.get(number))) is not None:
                out.append(bytes([number]) + unsigned(len(body)) + body)
        return b"".join(out) + self._names

    def _exports(self) -> Iterator[bytes]:
        for name, index in zip(VARIABLES, (self._tag, self._payload), strict=True):
            yield unsigned(len(name)) + name.encode() + b"\3" + index

    def _section(self, number: int) -> bytes:
        return self._sections.get(number, b"\0")

    def _kind(self, function: int) -> bytes:
        """Type of a function; two types that are alike are the same."""
        return self._types[self._functions[function]]

    def _read_tags(self) -> Iterator[int]:
        reader = Reader(self._section(TAG))
        for _ in range(reader.unsigned()):
            reader.byte()
            kind = reader.unsigned()
            if self._types[kind] != bytes([FUNCTION_TYPE, 1, I32, 0]):
                raise Unsupported("a tag whose payload is not one i32")
            yield kind

    def _read_table(self) -> tuple[int, dict[int, int]]:
        """Size of the table, and the function of each element."""
        reader = Reader(self._section(TABLE))
        if not reader.unsigned():
            return 0, {}
        reader.byte()
        bounded, size = reader.byte(), reader.unsigned()
        if not bounded or reader.unsigned() != size or reader.rest():
            raise Unsupported("a table that grows, or another one")
        elements = {}
        reader = Reader(self._section(ELEMENT))
        for _ in range(reader.unsigned()):
            if reader.byte() or reader.byte() != I32_CONST:
                raise Unsupported("elements of another kind than functions at a constant")
            start = reader.unsigned()
            reader.byte()
            for at in range(start, start + reader.unsigned()):
                elements[at] = reader.unsigned()
        return size, elements

    def _table_twice(self) -> dict[int, bytes]:
        size = unsigned(2 * self._table)
        second = [unsigned(self._moved.get(index, index)) for _, index in sorted(self._elements.items())]
        start = min(self._elements)
        if len(second) != max(self._elements) + 1 - start:
            raise Unsupported("a table with gaps")
        place = bytes([0, I32_CONST]) + signed(self._table + start) + bytes([END])
        segment = place + unsigned(len(second)) + b"".join(second)
        return {TABLE: b"\1\x70\1" + size + size, ELEMENT: _appended(self._section(ELEMENT), segment)}

    def _find_escaping(self) -> set[int]:
        callers: dict[object, list[int]] = {}  # of a function, and of a type
        for index, function in self._listed.items():
            for callee in (*function.calls, *(self._types[kind] for kind in function.types)):
                callers.setdefault(callee, []).append(index)
        reachable = {*self._elements.values()}
        escaping: set[int] = set()
        waiting = [index for index, function in self._listed.items() if function.throws]
        while waiting:
            index = waiting.pop()
            if index in escaping:
                continue
            escaping.add(index)
            waiting += callers.get(index, ())
            if index in reachable:
                waiting += callers.pop(self._kind(index), ())
        return escaping

    def _may_throw(self, instruction: Instruction) -> bool:
        """Whether an exception may be in flight after an instruction."""
        if instruction.opcode == CALL:
            return instruction.index in self.escaping
        if instruction.opcode == CALL_INDIRECT:
            return self._types[instruction.index] in self._escaping_types
        return instruction.opcode in (THROW, THROW_REF)

    def _changes(self, function: Function) -> bool:
        return any(i.opcode == TRY_TABLE or self._may_throw(i) for i in function.code)

    def _landing_tries(self, function: Function) -> set[int]:
        """Places of the `try_table` instructions that exceptions go to."""
        landing: set[int] = set()
        open_blocks: list[int | None] = []  # a place for each `try_table`, nothing for the others
        for place, instruction in enumerate(function.code):
            if instruction.opcode in (BLOCK, LOOP, IF):
                open_blocks.append(None)
            elif instruction.opcode == TRY_TABLE:
                open_blocks.append(place)
            elif instruction.opcode == END and open_blocks:
                left = open_blocks.pop()
                if left in landing and not _catches_all(function.code[left].clauses):
                    landing |= _innermost(open_blocks)
            elif self._may_throw(instruction):
                landing |= _innermost(open_blocks)
        return landing

    def _lowered(self, index: int, function: Function) -> bytes:
        """A function's body, with tests after calls, and handlers at the end of blocks."""
        lands = self._landing_tries(function)
        escapes = index in self.escaping
        out = [function.locals]
        if escapes:
            out.append(bytes([BLOCK, VOID]))
        frames = [Frame(2, True) if escapes else Frame(1, False)]
        for place, instruction in enumerate(function.code):
            if instruction.opcode is None:
                out.append(instruction.code)
            elif instruction.opcode in (BLOCK, LOOP, IF, TRY_TABLE):
                out.append(_begin(instruction, place in lands, frames))
            elif instruction.opcode == END:
                out.append(self._end(index, frames))
            else:
                out.append(self._within(instruction, frames))
        return b"".join(out)

    def _end(self, index: int, frames: list[Frame]) -> bytes:
        """Code at the end of a block or function."""
        frame = frames.pop()
        if not frame.lands:
            return bytes([END])
        if frames:
            return bytes([BR, 1, END]) + self._handlers(frames, frame.clauses) + bytes([END])
        return bytes([RETURN, END]) + self._zeros(index) + bytes([END])

    def _within(self, instruction: Instruction, frames: list[Frame]) -> bytes:
        opcode = instruction.opcode
        if opcode == ELSE:
            return bytes([ELSE])
        if opcode in (BR, BR_IF):
            return bytes([opcode]) + unsigned(_branch(frames, instruction.index))
        if opcode == BR_TABLE:
            labels = [unsigned(_branch(frames, label)) for label in instruction.labels]
            return bytes([opcode]) + unsigned(len(labels) - 1) + b"".join(labels)
        return self._passing(instruction, frames)

    def _passing(self, instruction: Instruction, frames: list[Frame]) -> bytes:
        """Code of a call or throw."""
        opcode, index = instruction.opcode, instruction.index
        throws = self._may_throw(instruction)
        if opcode == THROW:
            code = bytes([GLOBAL_SET]) + self._payload + bytes([I32_CONST]) + signed(index + 1)
            return code + bytes([GLOBAL_SET]) + self._tag + bytes([BR]) + unsigned(_landing(frames))
        if opcode == THROW_REF:
            return bytes([CALL]) + unsigned(self._raise) + bytes([BR]) + unsigned(_landing(frames))
        if opcode == CALL:
            code = bytes([CALL]) + unsigned(self._moved.get(index, index))
        else:
            second = bytes([I32_CONST]) + signed(self._table) + bytes([I32_ADD]) if throws else b""
            code = second + bytes([CALL_INDIRECT]) + unsigned(index) + b"\0"
        if not throws:
            return code
        return code + bytes([GLOBAL_GET]) + self._tag + bytes([BR_IF]) + unsigned(_landing(frames))

    def _handlers(self, frames: list[Frame], clauses: tuple[Clause, ...]) -> bytes:
        """Code that goes where clauses say, within a block that they count from the outside of."""
        out = []
        taken = bytes([CALL]) + unsigned(self._take)
        payload = bytes([GLOBAL_GET]) + self._payload
        pushed = {
            CATCH: payload + self._none,
            CATCH_REF: payload + taken,
            CATCH_ALL: self._none,
            CATCH_ALL_REF: taken,
        }
        for kind, tag, label in clauses:
            target = 1 + _branch(frames, label)
            if kind in (CATCH_ALL, CATCH_ALL_REF):
                return b"".join(out) + pushed[kind] + bytes([BR]) + unsigned(target)
            is_tag = bytes([GLOBAL_GET]) + self._tag + bytes([I32_CONST]) + signed(tag + 1) + bytes([I32_EQ, IF, VOID])
            out.append(is_tag + pushed[kind] + bytes([BR]) + unsigned(target + 1) + bytes([END]))
        return b"".join(out) + bytes([BR]) + unsigned(1 + _landing(frames))

    def _zeros(self, index: int) -> bytes:
        reader = Reader(self._kind(index), 1)
        reader.vector()
        results = reader.vector()
        if any(kind not in ZEROS for kind in results):
            raise Unsupported("a function that throws or gives a reference")
        return b"".join(ZEROS[kind] for kind in results)

    def _guard(self, index: int) -> bytes:
        """Body that calls a function for who does not know of exceptions."""
        parameters = Reader(self._kind(index), 1).unsigned()
        given = b"".join(bytes([LOCAL_GET]) + unsigned(n) for n in range(parameters))
        call = bytes([CALL]) + unsigned(self._moved[index])
        payload = bytes([GLOBAL_GET]) + self._payload + self._none
        end = payload + bytes([CALL]) + unsigned(self._uncaught) + bytes([UNREACHABLE])
        return b"\0" + given + call + bytes([GLOBAL_GET]) + self._tag + bytes([IF, VOID]) + end + bytes([END, END])

    def _raise_body(self) -> bytes:
        """Body that puts the exception of an `exnref` in flight."""
        payload = bytes([LOCAL_GET, 0, I32_WRAP, GLOBAL_SET]) + self._payload
        tag = bytes([LOCAL_GET, 0, I64_CONST, 32, I64_SHR, I32_WRAP, GLOBAL_SET]) + self._tag
        return b"\0" + payload + tag + bytes([END])

    def _take_body(self) -> bytes:
        """Body that takes the exception out of flight and gives its `exnref`."""
        tag = bytes([GLOBAL_GET]) + self._tag + bytes([I64_EXTEND, I64_CONST, 32, I64_SHL])
        payload = bytes([GLOBAL_GET]) + self._payload + bytes([I64_EXTEND, I64_OR])
        return b"\0" + tag + payload + self._none + bytes([END])


def _begin(instruction: Instruction, lands: bool, frames: list[Frame]) -> bytes:
    """Code at the beginning of a block; there are two where exceptions land."""
    opcode = BLOCK if instruction.opcode == TRY_TABLE else instruction.opcode
    frames.append(Frame(2, True, instruction.clauses) if lands else Frame(1, False))
    return bytes([opcode]) + instruction.code + (bytes([BLOCK, VOID]) if lands else b"")


def _innermost(open_blocks: list[int | None]) -> set[int]:
    """The last place, if there is any."""
    return set(next(([place] for place in reversed(open_blocks) if place is not None), []))


def _branch(frames: list[Frame], label: int) -> int:
    """Label, where code is written, of a label of the code that is read."""
    inner = sum(frame.labels for frame in frames[len(frames) - label :])
    return inner + frames[-1 - label].labels - 1


def _landing(frames: list[Frame]) -> int:
    """Label of the end to which an exception in flight goes."""
    inner = 0
    for frame in reversed(frames):
        if frame.lands:
            return inner
        inner += frame.labels
    raise Unsupported("an exception that nothing catches in a function that none leaves")


def _sections(module: bytes) -> Iterator[tuple[int, bytes]]:
    reader = Reader(module, 8)
    while reader.at < len(module):
        number, body = reader.byte(), reader.vector()
        if number != CUSTOM:
            yield number, body


def _name_section(module: bytes) -> bytes:
    """The names of a module, which stay right: no index that has a name changes."""
    reader = Reader(module, 8)
    while reader.at < len(module):
        start, number, body = reader.at, reader.byte(), reader.vector()
        if number == CUSTOM and Reader(body).vector() == b"name":
            return module[start : reader.at]
    return b""


def _types(body: bytes) -> Iterator[bytes]:
    """Types of functions, with i64 in place of `exnref`."""
    reader = Reader(body)
    for _ in range(reader.unsigned()):
        if reader.byte() != FUNCTION_TYPE:
            raise Unsupported("a type that is not a function's")
        parts = [bytes(map(_plain_type, reader.vector())) for _ in range(2)]
        yield bytes([FUNCTION_TYPE]) + b"".join(unsigned(len(part)) + part for part in parts)


def _imports(body: bytes) -> tuple[list[int], int]:
    """Types of imported functions, and the number of imported globals."""
    reader, functions, variables = Reader(body), [], 0
    for _ in range(reader.unsigned()):
        reader.vector()
        reader.vector()
        kind = reader.byte()
        if kind == 0:
            functions.append(reader.unsigned())
        elif kind == 3:
            variables += 1
            reader.take(2)
        else:
            raise Unsupported("an import that is no function and no global")
    return functions, variables


def _vector(body: bytes) -> Iterator[int]:
    reader = Reader(body)
    for _ in range(reader.unsigned()):
        yield reader.unsigned()


def _bodies(body: bytes) -> Iterator[bytes]:
    reader = Reader(body)
    for _ in range(reader.unsigned()):
        yield reader.vector()


def _appended(body: bytes, *entries: bytes) -> bytes:
    reader = Reader(body)
    count = reader.unsigned()
    return unsigned(count + len(entries)) + reader.rest() + b"".join(entries)


MAPPED = re.compile(r" +- +[0-9a-f]+ +([0-9a-f]+) {9}(\S.*):\((.*)\)")
"""Line of the linker's map about a function: size with its head, file, name."""


def functions_of(text: str) -> list[tuple[int, str, str]]:
    """Size, file (an archive without its member) and name of each function that is defined, by a linker's map."""
    lines = iter(text.splitlines())
    for line in lines:
        if line.split()[-1] == "CODE":
            break
    found = []
    for line in lines:
        if match := MAPPED.match(line):
            found.append((int(match[1], 16), re.sub(r"\([^()]*\)$", "", match[2]), match[3]))
        elif line[32:33] != " ":
            break
    return found


def main(module: str, map_file: str, listed_file: str, output: str) -> None:
    data = pathlib.Path(module).read_bytes()
    mapped = functions_of(pathlib.Path(map_file).read_text())
    files = {pathlib.Path(line).resolve() for line in pathlib.Path(listed_file).read_text().split()}
    sections = dict(_sections(data))
    sizes = [len(unsigned(len(body))) + len(body) for body in _bodies(sections[CODE])]
    if sizes != [size for size, _, _ in mapped]:
        raise SystemExit(f"{map_file} is not about {module}")
    first = len(_imports(sections[IMPORT])[0])
    known = {file for file in {file for _, file, _ in mapped} if pathlib.Path(file).resolve() in files}
    listed = [index for index, (_, file, _) in enumerate(mapped, first) if file in known]
    (uncaught,) = (index for index, (_, _, name) in enumerate(mapped, first) if name == UNCAUGHT)
    lowering = Lowering(data, listed, uncaught)
    pathlib.Path(output).write_bytes(lowering.module())
    print(f"exceptions: {len(listed)} functions may be left by one, and {len(lowering.escaping)} of them can be")


if __name__ == "__main__":
    main(*sys.argv[1:])
