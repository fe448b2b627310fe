"""Layout of a guest's two memories in the address space of the process (64-bit Linux).

Each memory is one reservation, in which only the parts named here can be accessed::

    poll memory
    |<------ WORD_DISTANCE ------>|<------------------ RESERVED_BYTES ------------------>|
    +-----------------+-----------+-----------+------------------------------+-----------+
    | pause word page |   guard   | poll page |           no access          |   guard   |
    +-----------------+-----------+-----------+------------------------------+-----------+
    |                             |
    |                             first byte of the memory: what a guest reads at every charge
    +0 pause word (u32), +MARK_OFFSET mark (8 bytes)

    linear memory
                      |<-- guard->|<------------------ RESERVED_BYTES ------------------>|
                      +-----------+-----------------+------------------------+-----------+
                      |   guard   |    in use now   | no access: to grow to  |   guard   |
                      +-----------+-----------------+------------------------+-----------+
                                  |<----------- ADDRESSABLE_BYTES ---------->|
                                  first byte of the memory

What relies on it:

- wasmtime's compiled code omits bounds checks: a 32-bit index with an offset of less than
  `GUARD_BYTES` behind it ends in "no access" or in the guard, and the fault is a trap.
- The pause handler finds the pause word by `WORD_DISTANCE` and the mark by `MARK_OFFSET`
  (``pause_handler.s``, where both stand again; a test compares them).
- No guest writes a pause word or reads a mark: it addresses nothing in front of its memories.
"""

from __future__ import annotations

from wasm_sandbox.engine.module.binary import PAGE_BYTES

ADDRESSABLE_BYTES = 4 << 30
"""What a 32-bit index reaches: the most that a memory can grow to."""

GUARD_BYTES = 32 << 20
"""Guard region before and after every memory: never accessible. As wasmtime's tunables have it."""

RESERVED_BYTES = ADDRESSABLE_BYTES + GUARD_BYTES
"""From the first byte of a memory to the end of its guard. wasmtime asks for exactly this; `capi.MemoryCreator` refuses
more."""

POLL_PAGE_BYTES = PAGE_BYTES
"""Size of the poll page: one page of WebAssembly."""

WORD_PAGE_BYTES = 64 << 10
"""Region of the pause word: a multiple of every page size that Linux has."""

WORD_DISTANCE = WORD_PAGE_BYTES + GUARD_BYTES
"""From a pause word to the first byte of its poll page."""

MARK_OFFSET = 8
"""From a pause word to the mark, by which the pause handler knows a word for one of this process."""
