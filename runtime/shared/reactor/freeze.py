"""Compile the guest's Python library into one blob of code objects that the module carries.

Usage: freeze.py OUTPUT STDLIB SITE GUEST
Runs under the native interpreter of the guest's own version. The blob starts with a
little-endian u32 count, then per module, sorted by name: its name and a NUL, then u32
offset, u32 size, u32 is_package; the marshalled code objects follow.
"""

import marshal
import pathlib
import struct
import sys

# What cannot work in the guest and is large: GUIs, test suites, installers, foreign functions.
EXCLUDED = {
    "test", "idlelib", "tkinter", "turtledemo", "turtle", "ensurepip", "lib2to3", "curses", "venv",
    "ctypes", "__phello__", "pty", "tty", "msilib", "_ios_support", "_android_support", "_apple_support",
    "__hello__",
}  # fmt: skip

# Of the new prompt only what `pydoc` needs: the rest is for terminals.
ALONE = {"_pyrepl": {"__init__", "pager"}}

# `zoneinfo` and `sysconfig` ask for this module; the real one is full of the build machine's paths.
SYSCONFIG_DATA = """build_time_vars = {
    'TZPATH': '', 'SOABI': 'cpython-313-wasm32-wasi', 'EXT_SUFFIX': '.cpython-313-wasm32-wasi.so',
    'Py_DEBUG': 0, 'Py_GIL_DISABLED': 0, 'WITH_DOC_STRINGS': 1, 'WITH_PYMALLOC': 1, 'prefix': '/', 'exec_prefix': '/',
}
"""


def modules_below(root: pathlib.Path, excluded: set[str]) -> dict[str, tuple[str, bool, str]]:
    """Dotted name -> (source text, is_package, file name shown in tracebacks)."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[0] in excluded or not all(p.isidentifier() for p in parts):
            continue
        if parts[-1] not in ALONE.get(parts[0], parts):
            continue
        if any(p in ("test", "tests", "idle_test") for p in parts[:-1]):
            continue
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        shown = "/".join(("/lib", *path.relative_to(root).parts))  # as `__file__`
        found[name] = (path.read_bytes(), is_package, shown)
    return found


def tzdata_module(root: pathlib.Path) -> str:
    zones = {}
    for path in sorted((root / "tzdata" / "zoneinfo").rglob("*")):
        if path.is_file() and (data := path.read_bytes())[:4] == b"TZif":
            zones[path.relative_to(root / "tzdata" / "zoneinfo").as_posix()] = data
    return f"ZONES = {zones!r}\n"


def main(output: str, stdlib: str, site: str, guest: str) -> None:
    site_root = pathlib.Path(site)
    modules = modules_below(pathlib.Path(stdlib), EXCLUDED)
    modules |= {k: v for k, v in modules_below(site_root, set()).items() if not k.startswith("tzdata.")}
    modules |= modules_below(pathlib.Path(guest), set())
    modules["_sysconfigdata__wasi_wasm32-wasi"] = (SYSCONFIG_DATA, False, "/lib/_sysconfigdata.py")
    modules["_sandbox_tzdata"] = (tzdata_module(site_root), False, "/lib/_sandbox_tzdata.py")

    blob = bytearray()
    rows = []
    for name in sorted(modules):
        source, is_package, shown = modules[name]
        try:
            code = marshal.dumps(compile(source, shown, "exec", dont_inherit=True, optimize=0))
        except SyntaxError as error:  # a template of lib2to3 and the like: not importable anywhere
            print(f"left out {name}: {error}")
            continue
        rows.append((name.encode() + b"\0", len(blob), len(code), is_package))
        blob += code
    head = 4 + sum(len(name) + 12 for name, *_ in rows)
    index = struct.pack("<I", len(rows)) + b"".join(
        name + struct.pack("<III", head + offset, size, is_package) for name, offset, size, is_package in rows
    )
    assert len(index) == head
    pathlib.Path(output).write_bytes(index + blob)
    print(f"{len(rows)} modules, {head + len(blob)} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
