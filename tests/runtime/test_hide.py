"""The recipe's script that makes names of an object its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.science.stages import hide

OTHER = bytes([1, 4, 1, 0x60, 0, 0]) + bytes([0, 5, 4]) + b"more"
"""Sections that are not touched: of types, and a custom one."""


def text(name: str) -> bytes:
    return bytes([len(name)]) + name.encode()


def written(*flags: int, padding: int = 0) -> bytes:
    """An object with these flags of its symbols; `padding` makes numbers longer than they need be."""
    symbols = [
        bytes([0, flags[0], 0]) + text("PyInit_a"),
        bytes([0, flags[1], 1]) + text("dumps"),
        bytes([0, flags[2], 2]),  # of an import of this name
        bytes([0, flags[3], 3]) + text("explicit"),
        bytes([1, flags[4]]) + text("data" * 20) + bytes([0, 0x80, 1, 4]),
        bytes([1, flags[5]]) + text("data_elsewhere"),
        bytes([2, flags[6], 0]) + text("global"),
        bytes([3, flags[7], 0]),  # a section
    ]
    table = bytes([len(symbols)]) + b"".join(symbols)
    size = hide.number(len(table)) if not padding else bytes([len(table) & 0x7F | 0x80, len(table) >> 7 | 0x80, 0])
    body = text("linking") + bytes([2, 5, 1, 0]) + bytes([8]) + size + table
    return b"\0asm\1\0\0\0" + OTHER + bytes([0]) + hide.number(len(body)) + body + OTHER


@pytest.mark.parametrize("padding", [0, 1])
def test_what_an_object_defines_is_its_own_but_for_what_is_named(
    padding: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    undefined, local, weak = 0x10, 2, 1
    path = tmp_path / "object.o"
    path.write_bytes(written(0, 4, undefined, undefined | 0x40, weak, undefined, local, local, padding=padding))
    hide.main(str(path), ["PyInit_a"])
    assert path.read_bytes() == written(0, 4 | local, undefined, undefined | 0x40, local, undefined, local, local)
    assert capsys.readouterr().out == "2 names are hidden\n"


def test_a_symbol_of_an_unknown_kind_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "object.o"
    path.write_bytes(b"\0asm\1\0\0\0" + bytes([0, 14]) + text("linking") + bytes([2, 8, 3, 1, 9, 0]))
    with pytest.raises(SystemExit, match="kind 9"):
        hide.main(str(path), [])
