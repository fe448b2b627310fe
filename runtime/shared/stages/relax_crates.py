"""Rewrite a Cargo.toml for a static library built from whatever crate versions a directory registry holds.

Usage: relax_crates.py CARGO_TOML REGISTRY_DIRECTORY
Versions that the registry does not satisfy are replaced by the newest one it has; the
sections for tests, benches and lints, whose crates are not needed, are dropped.
"""

import pathlib
import re
import sys

DROPPED = ("[dev-dependencies]", "[[bench]]", "[lints")
RELAXED = {"pyo3", "pyo3-build-config", "hashbrown", "base64", "lru", "strum", "strum_macros"}


def newest(registry: pathlib.Path, crate: str) -> str:
    """The newest MAJOR.MINOR of a crate in the registry."""
    pattern = re.compile(re.escape(crate) + r"-(\d+)\.(\d+)\.\d+$")
    found = [m.groups() for p in registry.iterdir() if (m := pattern.match(p.name))]
    if not found:
        raise SystemExit(f"crate {crate} is not in {registry}: install its librust-*-dev package")
    return ".".join(max(found, key=lambda v: tuple(map(int, v))))


def relax(text: str, registry: pathlib.Path) -> str:
    out, dropping = [], False
    for line in text.splitlines():
        if line.startswith("["):
            dropping = line.strip().startswith(DROPPED)
        if dropping:
            continue
        name = line.split(" ", 1)[0]
        if name in RELAXED and "=" in line:
            version = newest(registry, name)
            out.append(re.sub(r'"\d[^"]*"', f'"{version}"', line, count=1))
        elif line.startswith("crate-type"):
            out.append('crate-type = ["staticlib"]')
        else:
            out.append(line)
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    manifest, registry = map(pathlib.Path, sys.argv[1:])
    manifest.write_text(relax(manifest.read_text(), registry))
