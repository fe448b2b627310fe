"""Fuzzing of what the host reads of a wheel: archive, metadata, requirements. Needs atheris (``pip install atheris``).

    python tests/fuzz/fuzz_wheel.py tests/fuzz/wheels -max_len=4096 -max_total_time=600
    python tests/fuzz/fuzz_wheel.py --replay     every kept input once, without atheris

Whatever the bytes are: only our own error, bounded time and size, files that lie below the packages' root, and
requirements that are names with versions.
"""

from __future__ import annotations

import atexit
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fuzz.kept import replayed

if TYPE_CHECKING:  # what is fuzzed is imported late, to be instrumented
    from tests.support.archives import Member
    from wasm_sandbox.images.guest_python import GuestPython
    from wasm_sandbox.images.wheels import Distribution

CORPUS = Path(__file__).parent / "wheels"
MOST_SECONDS = 2.0
MOST_BYTES = 1 << 20


@cache
def place() -> Path:
    """A file to write wheels to."""
    directory = tempfile.mkdtemp(prefix="wasm-sandbox-fuzz-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return Path(directory) / "a-1-py3-none-any.whl"


def check(data: bytes) -> None:
    """The invariant; raises if it does not hold."""
    from wasm_sandbox.errors import PackageError
    from wasm_sandbox.images import wheels

    most = wheels.MAX_PACKAGE_BYTES
    wheels.MAX_PACKAGE_BYTES = MOST_BYTES
    try:
        for wheel in wheels_of(data):
            began = time.monotonic()
            place().write_bytes(wheel)
            with contextlib.suppress(PackageError):
                check_wheel(wheels.read_wheel(place()))
            assert time.monotonic() - began < MOST_SECONDS
    finally:
        wheels.MAX_PACKAGE_BYTES = most  # tests of others run in this process


def check_wheel(found: Distribution) -> None:
    """A wheel that was read holds nothing that leads out of it."""
    assert sum(map(len, found.files.values())) <= 2 * MOST_BYTES  # and the record that we write
    for name in found.files:
        assert not PurePosixPath(name).is_absolute()
        assert ".." not in PurePosixPath(name).parts
    check_requirements(found.requires)


def check_requirements(texts: tuple[str, ...]) -> None:
    """Each is a name with versions, or refused; what an installer is told of it holds nothing else."""
    import re

    from packaging.utils import canonicalize_name

    from wasm_sandbox.errors import PackageError
    from wasm_sandbox.images.guest_python import parse_requirement
    from wasm_sandbox.images.installer import requirement_text

    for text in texts:
        with contextlib.suppress(PackageError):
            requirement = parse_requirement(text, by="a 1")
            told = requirement_text(canonicalize_name(requirement.name), requirement.specifier)
            assert re.fullmatch(r"[a-z0-9-]+( \([A-Za-z0-9.,!*+<>=~_-]+\))?", told), told
            guest().wants(requirement, frozenset({"", "more"}))
            requirement.specifier.contains("1.0", prereleases=True)


@cache
def guest() -> GuestPython:
    from wasm_sandbox.engine import find_artifact
    from wasm_sandbox.images.guest_python import GuestPython

    return GuestPython(find_artifact())


def wheels_of(data: bytes) -> Iterator[bytes]:
    """Wheels with the bytes in each of the places where an author can write."""
    from tests.support.archives import DEFLATED, Member, archive, wheel

    yield data
    text = data.decode("utf-8", "replace")
    yield wheel(metadata=f"Metadata-Version: 2.1\nName: a\nVersion: 1\n{text}")
    yield wheel(metadata=f"Metadata-Version: 2.1\nName: a\nVersion: 1\nRequires-Dist: {' '.join(text.split())}\n")
    yield wheel(Member("b.bin", data, DEFLATED, packed=data, size=len(data) * 100))
    if data:
        yield archive([*members_of(data), Member("a-1.dist-info/METADATA", b"Name: a\nVersion: 1\n")])


def members_of(data: bytes) -> Iterator[Member]:
    """Members of which each field is one of the bytes."""
    from tests.support.archives import Member

    for start in range(0, min(len(data), 16 * 20), 16):
        field = data[start : start + 16].ljust(16, b"\0")
        yield Member(
            name=field[:6].decode("latin-1").rstrip("\0"),
            data=field * field[6],
            method=field[7] % 16,
            size=None if field[8] < 128 else int.from_bytes(field[8:10], "big") << field[10] % 16,
            packed_size=None if field[11] < 192 else field[11],
            flags=field[12] & 0x69,
            mode=field[13] << 8,
            offset=None if field[14] < 192 else int.from_bytes(field[14:16], "big") % 700,
            is_there=field[15] < 240,
        )


def replay() -> int:
    """Check every kept input; how many there are."""
    return replayed(CORPUS, check)


def main() -> None:
    if "--replay" in sys.argv:
        print(f"{replay()} inputs held")
        return
    import atheris

    with atheris.instrument_imports(include=["wasm_sandbox.images", "zipfile", "packaging", "email"]):
        import wasm_sandbox.images.guest_python
        import wasm_sandbox.images.installer
        import wasm_sandbox.images.wheels  # noqa: F401 - imported to be instrumented
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
