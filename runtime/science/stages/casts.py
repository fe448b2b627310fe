"""Fail if C or C++ code casts a function to a type that is another one in WebAssembly.

Usage: casts.py MESON_BUILD PREFIX ALLOWED
Looks at every source that meson compiles to an object below PREFIX, but not at what Cython writes. Casts to PyCFunction
are left to signatures.py, which knows how each is called. ALLOWED has lines FILE: TEXT of casts that were looked at.
"""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

CAST = re.compile(
    r"(.*?):\d+:\d+: warning: cast from '(.*?)'(?: \(aka '(.*?)'\))? to '(.*?)'(?: \(aka '(.*?)'\))? converts"
)
FUNCTION = re.compile(r"(.*?)\(\s*\*?\s*(?:const)?\s*\)\s*\((.*)\)\s*(?:__attribute__.*)?(?:noexcept)?$")
CYTHON = re.compile(r"\b__Pyx_\w+\(|\(void\(\*\)\(void\)\)meth\)")  # its calls cast back what is a PyCFunction
UNIVERSAL = ("PyCFunction", "void (*)(void)", "void (*)()")


def letter(type_: str) -> str:
    """What a C type is in WebAssembly."""
    if type_ == "void":
        return "-"
    if type_.endswith(("*", "&")) or "(*)" in type_:
        return "i"
    if re.search(r"\blong double\b", type_):
        return "q"
    if re.search(r"\bdouble\b", type_):
        return "d"
    if re.search(r"\bfloat\b", type_):
        return "f"
    return "l" if re.search(r"\blong long\b|int64", type_) else "i"


def signature(type_: str) -> str | None:
    """Result and parameters of a type of functions, a letter for each."""
    match = FUNCTION.match(type_.strip())
    if not match:
        return None
    result, rest = match.groups()
    parameters, depth, current = [], 0, ""
    for character in rest:
        depth += (character in "(<") - (character in ")>")
        if character == "," and not depth:
            parameters.append(current)
            current = ""
        else:
            current += character
    if current.strip() not in ("", "void"):
        parameters.append(current)
    return letter(result.strip()) + "".join(letter(parameter.strip()) for parameter in parameters)


def casts(entry: dict[str, Any]) -> set[tuple[str, str, str]]:
    """Wrong casts that a compilation shows: file, text of the line, what is cast to what."""
    command = [part for part in shlex.split(entry["command"]) if part not in ("-c", "-MD", "-Wno-everything")]
    for flag in ("-o", "-MQ", "-MF"):
        while flag in command:
            at = command.index(flag)
            del command[at : at + 2]
    warnings = ["-fsyntax-only", "-Wno-everything", "-Wcast-function-type-strict", "-fno-color-diagnostics"]
    done = subprocess.run([*command, *warnings], cwd=entry["directory"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{entry['file']} does not compile: {done.stderr[-2000:]}")
    lines, found = done.stderr.splitlines(), set()
    for number, line in enumerate(lines):
        match = CAST.match(line)
        if not match or match[4] in UNIVERSAL or match[5] in UNIVERSAL:
            continue
        text = lines[number + 1].split("|", 1)[-1].strip()
        if match[2] == "void (*)(void)" and CYTHON.search(text):
            continue
        before, after = signature(match[3] or match[2]), signature(match[5] or match[4])
        if before is None or before != after:
            file = os.path.relpath(os.path.join(entry["directory"], match[1]), entry["directory"])
            found.add((file.replace("../", ""), text, f"{match[3] or match[2]} to {match[5] or match[4]}"))
    return found


def main(build: str, prefix: str, allowed_path: str) -> None:
    entries = json.loads((pathlib.Path(build) / "compile_commands.json").read_text())
    objects = {line for line in (pathlib.Path(build) / "objects.txt").read_text().split() if line.startswith(prefix)}
    entries = [e for e in entries if e["output"] in objects and not re.search(r"\.pyx\.c(pp)?$", e["file"])]
    allowed = {line for line in pathlib.Path(allowed_path).read_text().splitlines() if line and line[0] != "#"}
    with ThreadPoolExecutor(int(os.environ.get("JOBS", "2"))) as pool:
        found = set().union(*pool.map(casts, entries))
    wrong = sorted(cast for cast in found if f"{cast[0]}: {cast[1]}" not in allowed)
    for file, text, types in wrong:
        print(f"{file}: {text}\n    {types}")
    if wrong:
        raise SystemExit(
            f"{len(wrong)} functions would be traps when they are called by the type that they are cast to"
        )
    print(f"{len(entries)} sources, {len(found)} casts to other types, all of them looked at")


if __name__ == "__main__":
    main(*sys.argv[1:])
