"""The pause handler: its machine code is what its assembly says, with the constants of the rest of the package."""

from __future__ import annotations

import ctypes
import errno
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from wasm_sandbox.engine.memory import layout, pausing
from wasm_sandbox.engine.memory.address_space import PAGE_BYTES
from wasm_sandbox.engine.memory.pause_handler_x86_64 import CODE, HANDLER_PLACE, MARK_PLACE

SOURCE = Path(pausing.__file__).with_name("pause_handler.s")

needs_pausing = pytest.mark.skipif(not pausing.is_supported(), reason="the pause handler is for Linux on x86-64")
MISSING_TOOLS = [tool for tool in ("as", "objcopy") if shutil.which(tool) is None]
needs_assembler = pytest.mark.skipif(bool(MISSING_TOOLS), reason=f"GNU binutils are missing: {MISSING_TOOLS}")


class SignalInfo(ctypes.Structure):
    """The beginning of siginfo_t for SIGSEGV, see sigaction(2)."""

    _fields_ = (
        ("si_signo", ctypes.c_int),
        ("si_errno", ctypes.c_int),
        ("si_code", ctypes.c_int),
        ("si_addr", ctypes.c_void_p),
    )


def lines() -> list[str]:
    """The assembly without comments and empty lines."""
    bare = (line.partition("#")[0].strip() for line in SOURCE.read_text(encoding="ascii").splitlines())
    return [line for line in bare if line]


def constants() -> dict[str, int]:
    """What the assembly sets: name -> value."""
    found = {}
    for line in lines():
        if line.startswith(".set"):
            name, value = line.removeprefix(".set").split(",")
            assert name.strip() not in found
            found[name.strip()] = int(value, 0)
    return found


def assemble(directory: Path) -> bytes:
    """The machine code, as the comment in the assembly says to make it."""
    object_file, code = directory / "handler.o", directory / "handler.bin"
    subprocess.run(["as", SOURCE, "-o", object_file], check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", object_file, code], check=True)
    return code.read_bytes()


@needs_pausing
@needs_assembler
def test_the_machine_code_is_what_the_assembly_says(tmp_path: Path) -> None:
    assert assemble(tmp_path) == CODE


@needs_pausing
def test_the_constants_of_the_assembly_are_those_of_the_package_and_the_system() -> None:
    assert constants() == {
        "WORD_DISTANCE": layout.WORD_DISTANCE,
        "MARK_OFFSET": layout.MARK_OFFSET,
        "GO_ON": pausing.GO_ON,
        "PAUSE": pausing.PAUSE,
        "STOP": pausing.STOP,
        "PAGE_BYTES": PAGE_BYTES,
        "FAULT_ADDRESS": SignalInfo.si_addr.offset,
        "SYSTEM_CALL_FUTEX": pausing.SYSTEM_CALL_FUTEX,
        "FUTEX_WAIT_PRIVATE": pausing.FUTEX_PRIVATE_FLAG,  # FUTEX_WAIT itself is 0
        "EFAULT": errno.EFAULT,
        "MARK": int.from_bytes(MARK_PLACE, "little"),
        "HANDLER_BEFORE": int.from_bytes(HANDLER_PLACE, "little"),
    }


def test_no_instruction_of_the_assembly_has_a_constant_without_a_name() -> None:
    instructions = [line for line in lines() if not line.startswith(".set")]
    with_numbers = [line for line in instructions if re.search(r"\b\d", line)]
    assert with_numbers == ["test edi, PAGE_BYTES-1", ".quad 0, 0"]


@pytest.mark.parametrize("place", [MARK_PLACE, HANDLER_PLACE], ids=["mark", "handler before"])
def test_the_machine_code_has_each_placeholder_once(place: bytes) -> None:
    starts = [at for at in range(len(CODE)) if CODE.startswith(place, at)]  # overlapping ones, too
    assert len(starts) == 1


def test_the_machine_code_and_the_pause_word_fit_in_what_is_mapped_for_them() -> None:
    assert len(CODE) <= PAGE_BYTES
    assert ctypes.sizeof(ctypes.c_uint32) <= layout.MARK_OFFSET
    assert layout.MARK_OFFSET + len(MARK_PLACE) <= layout.WORD_PAGE_BYTES
