"""Fail if a function in one of CPython's tables has other parameters than those by which CPython calls it.

Usage: signatures.py LINKED_MODULE      (linked with --table-base=0x40000000 and with names)

C lets a function pointer be cast, and on other machines a function with too few parameters can be called with more. In
WebAssembly such a call is a trap ("indirect call type mismatch"), often in a function that is hardly ever used. So the
tables of methods, attributes and slots, and whole types, are looked for in the module's data, and the type of each
function in them is compared with the one in Python's headers. The base of the function table makes addresses of
functions numbers that nothing else in the data is.

Between objects that are optimised as a whole the linker does not see who calls whom: there the compiler puts a function
of its own, NAME_bitcast, between a call and a function that has other parameters. Such a name is an error, too.
"""

import pathlib
import re
import struct
import sys
from collections.abc import Iterator
from typing import NamedTuple

Type = tuple[str, str]
"""Parameters and results of a function, a letter for each: i (i32), l (i64), f, d."""

# What Python.h calls them. Every pointer, Py_ssize_t, Py_hash_t and int is an i32.
UNARY, BINARY, TERNARY, QUATERNARY, QUINARY = (("i" * n, "i") for n in range(1, 6))
DESTRUCTOR, RELEASE = ("i", ""), ("ii", "")

VARARGS, KEYWORDS, NOARGS, ONE, CLASS, STATIC, COEXIST, FASTCALL, METHOD = 1, 2, 4, 8, 16, 32, 64, 128, 512
CONVENTIONS = {
    VARARGS: BINARY, VARARGS | KEYWORDS: TERNARY, NOARGS: BINARY, ONE: BINARY, FASTCALL: TERNARY,
    FASTCALL | KEYWORDS: QUATERNARY, METHOD | FASTCALL | KEYWORDS: QUINARY,
}  # fmt: skip
"""By the flags of a method, without CLASS, STATIC and COEXIST."""

TYPES = {
    **dict.fromkeys(
        ("mp_length", "nb_absolute", "nb_bool", "nb_float", "nb_index", "nb_int", "nb_invert", "nb_negative",
         "nb_positive", "sq_length", "tp_clear", "tp_hash", "tp_is_gc", "tp_iter", "tp_iternext", "tp_repr", "tp_str",
         "am_await", "am_aiter", "am_anext"), UNARY),
    **dict.fromkeys(
        ("bf_getbuffer", "mp_ass_subscript", "nb_inplace_power", "nb_power", "sq_ass_item", "tp_call", "tp_descr_get",
         "tp_descr_set", "tp_init", "tp_new", "tp_richcompare", "tp_setattr", "tp_setattro", "tp_traverse", "am_send"),
        TERNARY),
    **dict.fromkeys(("tp_dealloc", "tp_del", "tp_free", "tp_finalize"), DESTRUCTOR),
    "bf_releasebuffer": RELEASE,
    "tp_vectorcall": QUATERNARY,
}  # fmt: skip
"""Of slots; the rest are binary."""

# Include/typeslots.h; the numbers in between are of data.
_SLOT_NAMES = (
    "bf_getbuffer bf_releasebuffer mp_ass_subscript mp_length mp_subscript nb_absolute nb_add nb_and nb_bool nb_divmod "
    "nb_float nb_floor_divide nb_index nb_inplace_add nb_inplace_and nb_inplace_floor_divide nb_inplace_lshift "
    "nb_inplace_multiply nb_inplace_or nb_inplace_power nb_inplace_remainder nb_inplace_rshift nb_inplace_subtract "
    "nb_inplace_true_divide nb_inplace_xor nb_int nb_invert nb_lshift nb_multiply nb_negative nb_or nb_positive "
    "nb_power nb_remainder nb_rshift nb_subtract nb_true_divide nb_xor sq_ass_item sq_concat sq_contains "
    "sq_inplace_concat sq_inplace_repeat sq_item sq_length sq_repeat tp_alloc - - tp_call tp_clear tp_dealloc tp_del "
    "tp_descr_get tp_descr_set - tp_getattr tp_getattro tp_hash tp_init tp_is_gc tp_iter tp_iternext - tp_new tp_repr "
    "tp_richcompare tp_setattr tp_setattro tp_str tp_traverse - - tp_free nb_matrix_multiply "
    "nb_inplace_matrix_multiply am_await am_aiter am_anext tp_finalize am_send"
)
SLOTS = dict(enumerate(_SLOT_NAMES.split(), start=1))

# Include/cpython/object.h: words of a type, and of the tables that it points to; "-" is data.
_TYPE_NAMES = (
    "- - - - - - tp_dealloc - tp_getattr tp_setattr am tp_repr nb sq mp tp_hash tp_call tp_str tp_getattro tp_setattro "
    "bf - - tp_traverse tp_clear tp_richcompare - tp_iter tp_iternext - - - - - tp_descr_get tp_descr_set - tp_init "
    "tp_alloc tp_new tp_free tp_is_gc - - - - - tp_del - tp_finalize tp_vectorcall"
)
TYPE = _TYPE_NAMES.split()
GETSET_SLOT, TYPE_GETSET = 73, 31
FIRST_OF_TYPE = 47
"""Number of the first slot of a type itself (tp_alloc)."""

_TABLE_NAMES = {
    "am": "am_await am_aiter am_anext am_send",
    "nb": (
        "nb_add nb_subtract nb_multiply nb_remainder nb_divmod nb_power nb_negative nb_positive nb_absolute nb_bool "
        "nb_invert nb_lshift nb_rshift nb_and nb_xor nb_or nb_int - nb_float nb_inplace_add nb_inplace_subtract "
        "nb_inplace_multiply nb_inplace_remainder nb_inplace_power nb_inplace_lshift nb_inplace_rshift nb_inplace_and "
        "nb_inplace_xor nb_inplace_or nb_floor_divide nb_true_divide nb_inplace_floor_divide nb_inplace_true_divide "
        "nb_index nb_matrix_multiply nb_inplace_matrix_multiply"
    ),
    "sq": ("sq_length sq_concat sq_repeat sq_item - sq_ass_item - sq_contains sq_inplace_concat sq_inplace_repeat"),
    "mp": "mp_length mp_subscript mp_ass_subscript",
    "bf": "bf_getbuffer bf_releasebuffer",
}
TABLES = {table: names.split() for table, names in _TABLE_NAMES.items()}
NAME = re.compile(rb"[A-Za-z_][\w.<>]{0,200}\0")

ADAPTED = re.compile(r"(?:\.L)?(.+)_bitcast(?:_invalid)?(?:\.\d+)?$")
"""Name of what LLVM puts between a call and a function with other parameters (WebAssemblyFixFunctionBitcasts)."""


class Use(NamedTuple):
    """A function in a table."""

    what: str
    function: int
    expected: Type


class Module:
    """The parts of a WebAssembly module that matter here."""

    def __init__(self, module: bytes) -> None:
        self._bytes, self._at = module, 8
        self._types: list[Type] = []
        self._functions: list[int] = []  # type of each, imported ones first
        self._table: dict[int, int] = {}
        self._names: dict[int, str] = {}
        self.base, self.memory = 0, b""
        read = {0: self._read_names, 1: self._read_types, 2: self._read_imports, 3: self._read_functions,
                9: self._read_elements, 11: self._read_data}  # fmt: skip
        while self._at < len(module):
            number, size = self._byte(), self._unsigned()
            end = self._at + size
            if number in read:
                read[number](end)
            self._at = end
        count = len(self.memory) // 4
        self.words = struct.unpack(f"<{count}I", self.memory[: count * 4])

    def is_function(self, address: int) -> bool:
        return address in self._table

    def is_data(self, address: int) -> bool:
        return self.base <= address < self.base + len(self.memory)

    def type_of(self, address: int) -> Type:
        return self._types[self._functions[self._table[address]]]

    def name_of(self, address: int) -> str:
        return self._names.get(self._table[address], "a function")

    def adapted(self) -> list[str]:
        """The functions that are somewhere called by a wrong declaration."""
        return sorted({match[1] for name in self._names.values() if (match := ADAPTED.match(name))})

    def text(self, address: int) -> str | None:
        """The C text at an address, if it can be a name in Python."""
        match = NAME.match(self.memory, address - self.base) if self.is_data(address) else None
        return match[0][:-1].decode() if match else None

    def _byte(self) -> int:
        self._at += 1
        return self._bytes[self._at - 1]

    def _unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return value
            shift += 7

    def _take(self, size: int) -> bytes:
        self._at += size
        return self._bytes[self._at - size : self._at]

    def _address(self) -> int:
        """A constant: i32.const, end."""
        if self._byte() != 0x41:
            raise SystemExit("the module is not linked to constant addresses")
        start = self._at
        value = self._unsigned()
        bits = 7 * (self._at - start)
        self._byte()
        return (value - (1 << bits) if value >> (bits - 1) else value) & 0xFFFFFFFF

    def _read_names(self, end: int) -> None:
        if self._take(self._unsigned()) != b"name":
            return
        while self._at < end:
            kind, size = self._byte(), self._unsigned()
            after = self._at + size
            if kind == 1:
                for _ in range(self._unsigned()):
                    function = self._unsigned()
                    self._names[function] = self._take(self._unsigned()).decode(errors="replace")
            self._at = after

    def _read_types(self, _end: int) -> None:
        letters = {0x7F: "i", 0x7E: "l", 0x7D: "f", 0x7C: "d"}
        for _ in range(self._unsigned()):
            self._byte()
            parts = [self._take(self._unsigned()) for _ in range(2)]
            parameters, results = ("".join(letters.get(t, "?") for t in part) for part in parts)
            self._types.append((parameters, results))

    def _read_imports(self, _end: int) -> None:
        for _ in range(self._unsigned()):
            self._take(self._unsigned())
            self._take(self._unsigned())
            if self._byte():
                raise SystemExit("the module imports something other than functions")
            self._functions.append(self._unsigned())

    def _read_functions(self, _end: int) -> None:
        self._functions += [self._unsigned() for _ in range(self._unsigned())]

    def _read_elements(self, _end: int) -> None:
        for _ in range(self._unsigned()):
            self._unsigned()
            start = self._address()
            for index in range(self._unsigned()):
                self._table[start + index] = self._unsigned()

    def _read_data(self, _end: int) -> None:
        segments = []
        for _ in range(self._unsigned()):
            self._unsigned()
            segments.append((self._address(), self._take(self._unsigned())))
        self.base = min(start for start, _ in segments) & ~3
        memory = bytearray(max(start + len(data) for start, data in segments) - self.base)
        for start, data in segments:
            memory[start - self.base : start - self.base + len(data)] = data
        self.memory = bytes(memory)


def uses(module: Module) -> Iterator[Use]:
    """Every function in a table of CPython's."""
    low, high = module.base, module.base + len(module.memory)
    words = module.words
    for at in range(len(words) - len(TYPE)):
        if low <= words[at] < high:
            yield from method(module, words[at : at + 4])
        elif words[at] in SLOTS and words[at - 2] not in SLOTS:
            yield from slots(module, at)
        if low <= words[at + 3] < high:
            yield from whole_type(module, words[at : at + len(TYPE)])


def method(module: Module, words: tuple[int, ...]) -> Iterator[Use]:
    """A PyMethodDef."""
    name, function, flags, text = words
    convention = CONVENTIONS.get(flags & ~(CLASS | STATIC | COEXIST))
    if convention and module.is_function(function) and (text == 0 or module.is_data(text)):
        named = module.text(name)
        if named is not None:
            yield Use(f"method {named}", function, convention)


def attributes(module: Module, address: int) -> Iterator[Use]:
    """An array of PyGetSetDef."""
    at = (address - module.base) // 4 if module.is_data(address) else len(module.words)
    while at + 5 <= len(module.words) and module.words[at]:
        name, getter, setter, _, _ = module.words[at : at + 5]
        if getter:
            yield Use(f"getter of {module.text(name)}", getter, BINARY)
        if setter:
            yield Use(f"setter of {module.text(name)}", setter, TERNARY)
        at += 5


def slots(module: Module, at: int) -> Iterator[Use]:
    """An array of PyType_Slot, with one of the type itself, and a pair of zeros: those of modules, and others that
    modules have made of the same structure, have other numbers."""
    found = []
    while (number := module.words[at]) in SLOTS:
        address = module.words[at + 1]
        is_of_kind = module.is_data if SLOTS[number] == "-" else module.is_function
        if not is_of_kind(address):
            return
        found.append((number, address))
        at += 2
    if number or module.words[at + 1] or all(slot < FIRST_OF_TYPE for slot, _ in found):
        return
    for number, address in found:
        if number == GETSET_SLOT:
            yield from attributes(module, address)
        elif SLOTS[number] != "-":
            yield Use(f"slot {SLOTS[number]}", address, TYPES.get(SLOTS[number], BINARY))


def whole_type(module: Module, words: tuple[int, ...]) -> Iterator[Use]:
    """A PyTypeObject."""
    named = module.text(words[3])
    basic_size, item_size, flags = words[4], words[5], words[21]
    functions = [(slot, word) for slot, word in zip(TYPE, words, strict=True) if slot[2:3] == "_"]
    if named is None or not 8 <= basic_size < 1 << 16 or item_size >= 1 << 12 or module.is_data(flags):
        return
    if not all(not word or module.is_function(word) for _, word in functions) or not any(word for _, word in functions):
        return
    for name, word in functions:
        if word:
            yield Use(f"{name} of {named}", word, TYPES.get(name, BINARY))
    yield from attributes(module, words[TYPE_GETSET])
    for table, names in TABLES.items():
        address = words[TYPE.index(table)]
        if module.is_data(address):
            start = (address - module.base) // 4
            for name, word in zip(names, module.words[start : start + len(names)], strict=False):
                if name != "-" and module.is_function(word):
                    yield Use(f"{name} of {named}", word, TYPES.get(name, BINARY))


def shown(type_: Type) -> str:
    return f"({', '.join(type_[0])}) -> {type_[1] or 'nothing'}"


def main(path: str) -> None:
    module = Module(pathlib.Path(path).read_bytes())
    found = dict.fromkeys(uses(module))
    mistakes = [use for use in found if module.type_of(use.function) != use.expected]
    for use in mistakes:
        is_, called = shown(module.type_of(use.function)), shown(use.expected)
        print(f"{use.what}: {module.name_of(use.function)} is {is_}, and is called as {called}")
    adapted = module.adapted()
    for name in adapted:
        print(f"{name} is declared with other parameters than it has")
    if mistakes or adapted:
        count = len(mistakes) + len(adapted)
        raise SystemExit(f"{count} functions are traps when they are called: give each its parameters")
    print(f"{len(found)} functions in tables of CPython's, all with the parameters by which they are called")


if __name__ == "__main__":
    main(sys.argv[1])
