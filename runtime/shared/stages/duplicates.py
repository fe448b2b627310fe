"""Fail if a name is defined by two different objects of a link.

Usage: duplicates.py ARGUMENT...      (of the linker: objects and archives; options are passed over)

Between archives the linker takes the first definition that it meets and says nothing, and modules that are loaded one
by one elsewhere often have functions of the same name: whoever calls the other module's function computes nonsense.
"""

import collections
import hashlib
import pathlib
import subprocess
import sys

STRONG = frozenset("TDBRS")
"""What `nm` shows for definitions that are not weak."""


def definitions(file: str) -> list[tuple[str, str]]:
    """Name and object (``ARCHIVE:MEMBER`` or a file) of each definition."""
    command = ["llvm-nm-21", "--defined-only", "--extern-only", "--print-file-name", file]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = []
    for line in output.splitlines():
        place, _, rest = line.rpartition(": ")
        kind, name = rest.split()[-2:]
        if kind in STRONG:
            found.append((name, place))
    return found


def content(place: str) -> str:
    """SHA-256 of an object."""
    archive, colon, member = place.partition(":")
    if colon:
        data = subprocess.run(["llvm-ar-21", "p", archive, member], check=True, capture_output=True).stdout
    else:
        data = pathlib.Path(place).read_bytes()
    return hashlib.sha256(data).hexdigest()


def main(arguments: list[str]) -> None:
    files = [a for a in dict.fromkeys(arguments) if a.endswith((".o", ".a"))]
    places = collections.defaultdict(set)
    for file in files:
        for name, place in definitions(file):
            places[name].add(place)
    clashes = collections.defaultdict(list)
    for name, where in places.items():
        if len(where) > 1 and len({content(place) for place in where}) > 1:
            clashes[tuple(sorted(where))].append(name)
    for where, names in sorted(clashes.items()):
        print(f"{', '.join(where)}:\n    {' '.join(sorted(names))}")
    if clashes:
        raise SystemExit("the names above are defined twice: give those of one module a prefix of its own")
    print(f"{len(places)} names in {len(files)} files, none of them twice")


if __name__ == "__main__":
    main(sys.argv[1:])
