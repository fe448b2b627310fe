"""Make the names that an object of WebAssembly defines its own, but for those that are named.

Usage: hide.py OBJECT NAME...

Static libraries of Rust are not made to be linked together: each has a copy of the standard library, with its global
names. `llvm-objcopy` hides names in objects of other formats only.
"""

import pathlib
import sys

LINKING, SYMBOL_TABLE = "linking", 8
FUNCTION, DATA, GLOBAL, SECTION, TAG, TABLE = range(6)
WEAK, LOCAL, UNDEFINED, EXPLICIT_NAME = 1, 2, 0x10, 0x40


class Reader:
    """Numbers and texts of a section, one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self) -> int:
        result = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            result |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return result

    def take(self, size: int) -> bytes:
        self.at += size
        return self.data[self.at - size : self.at]


def number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def symbols(table: bytes, kept: set[str]) -> tuple[bytes, int]:
    """A symbol table with the names that are defined and not kept made local, and how many they are."""
    reader, hidden = Reader(table), 0
    count = reader.number()
    out = bytearray(number(count))
    for _ in range(count):
        kind, flags = reader.take(1)[0], reader.number()
        start = reader.at
        name = ""
        if kind in (FUNCTION, GLOBAL, TAG, TABLE):
            reader.number()
            if not flags & UNDEFINED or flags & EXPLICIT_NAME:
                name = reader.take(reader.number()).decode()
        elif kind == DATA:
            name = reader.take(reader.number()).decode()
            if not flags & UNDEFINED:
                reader.number(), reader.number(), reader.number()
        elif kind == SECTION:
            reader.number()
        else:
            raise SystemExit(f"a symbol of the kind {kind}, which is unknown")
        if kind != SECTION and not flags & (UNDEFINED | LOCAL) and name not in kept:
            flags = flags & ~WEAK | LOCAL
            hidden += 1
        out += bytes([kind]) + number(flags) + table[start : reader.at]
    return bytes(out), hidden


def main(path: str, kept: list[str]) -> None:
    reader = Reader(pathlib.Path(path).read_bytes())
    out, hidden = bytearray(reader.take(8)), 0
    while reader.at < len(reader.data):
        kind = reader.take(1)[0]
        body = reader.take(reader.number())
        section = Reader(body)
        if kind == 0 and section.take(section.number()) == LINKING.encode():
            version_end = section.at + 1
            section.at = version_end
            parts = bytearray(body[:version_end])
            while section.at < len(body):
                part = section.take(1)[0]
                content = section.take(section.number())
                if part == SYMBOL_TABLE:
                    content, hidden = symbols(content, set(kept))
                parts += bytes([part]) + number(len(content)) + content
            body = bytes(parts)
        out += bytes([kind]) + number(len(body)) + body
    pathlib.Path(path).write_bytes(out)
    print(f"{hidden} names are hidden")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
