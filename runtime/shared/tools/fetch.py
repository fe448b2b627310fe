"""Bring every pinned file into the build root, verified: from given directories, else from its registry.

Usage: fetch.py PINS ROOT TARGET [DIRECTORY[:DIRECTORY...]]
PINS has manifest.toml and toolchain.lock. Below TARGET, which is in ROOT, `sources` gets what the guest is made of,
`tools` what only its build needs, and `debs` the packages of the lock.
"""

import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable

PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
"""Of wheels that run in the build root."""


def sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def has(path: pathlib.Path, expected: str) -> bool:
    return path.is_file() and sha256(path) == expected


def in_root(root: pathlib.Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["chroot", str(root), *command], capture_output=True, text=True, check=False)


def from_directories(file: str, expected: str, directories: Iterable[pathlib.Path]) -> pathlib.Path | None:
    return next((d / file for d in directories if has(d / file, expected)), None)


def debian_source(pin: dict[str, str], root: pathlib.Path) -> pathlib.Path:
    """Download the source package whose archive has the pinned hash, whatever its revision."""
    stanzas = in_root(root, "apt-cache", "showsrc", pin["package"]).stdout.split("\n\n")
    versions = [m[1] for s in stanzas if pin["sha256"] in s and (m := re.search(r"^Version: (\S+)$", s, re.MULTILINE))]
    (root / "tmp/pinned").mkdir(exist_ok=True)
    for version in dict.fromkeys(versions):
        # Parts of a source package may be gone while its archive is still there: look for the file, not the exit code.
        command = f"cd /tmp/pinned && apt-get source --only-source --download-only {pin['package']}={version}"
        in_root(root, "sh", "-c", command)
        if has(root / "tmp/pinned" / pin["file"], pin["sha256"]):
            break
    return root / "tmp/pinned" / pin["file"]


def pypi(pin: dict[str, str], target: pathlib.Path) -> pathlib.Path:
    """Download what a Python of the guest's version would get on the machine that builds."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(target)]
    command += ["--python-version", "3.13"]
    environment = dict(os.environ)
    if pin["registry"] == "pypi-sdist":
        command += ["--no-binary", ":all:", "--no-build-isolation", "--ignore-requires-python"]
        environment["PYTHONPATH"] = str(pathlib.Path(__file__).parent / "no_build")
    else:
        command += ["--only-binary", ":all:", *(f"--platform={name}" for name in PLATFORMS)]
    subprocess.run([*command, f"{pin['package']}=={pin['version']}"], env=environment, check=False)
    return target / pin["file"]


def packages(lock: pathlib.Path, root: pathlib.Path, debs: pathlib.Path, directories: list[pathlib.Path]) -> None:
    pins = [line.split() for line in lock.read_text().splitlines() if not line.startswith("#")]
    for old in debs.glob("*.deb"):
        if sha256(old) not in {pin[2] for pin in pins}:
            old.unlink()
    held = {sha256(p): p for d in (debs, *directories) for p in d.glob("*.deb")}
    wanted = [(name, version) for name, version, hash_ in pins if hash_ not in held]
    for _, _, hash_ in pins:
        if hash_ in held and held[hash_].parent != debs:
            shutil.copy(held[hash_], debs)
    if wanted:
        named = " ".join(f"{name}={version}" for name, version in wanted)
        in_root(root, "sh", "-c", f"cd /{debs.relative_to(root)} && apt-get download -q {named}")
        present = {sha256(p) for p in debs.glob("*.deb")}
        if missing := [f"{n} {v} {h}" for n, v, h in pins if h not in present]:
            raise SystemExit(
                f"{len(missing)} packages of toolchain.lock are no longer served, the first: {missing[0]}.\n"
                "Put files with these sha256 into a directory and name it in GUEST_SOURCES (Debian's archive of past "
                "snapshots has them), or renew the lock (runtime/build.sh --lock) and expect another artifact."
            )
    print(f"{len(pins)} packages")


def bring(pins: list[dict[str, str]], root: pathlib.Path, place: pathlib.Path, directories: list[pathlib.Path]) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for old in place.iterdir():  # stages take what is there by patterns
        if old.name not in {pin["file"] for pin in pins}:
            old.unlink()
    with tempfile.TemporaryDirectory() as scratch:
        for pin in pins:
            target = place / pin["file"]
            if has(target, pin["sha256"]):
                continue
            found = from_directories(pin["file"], pin["sha256"], directories)
            if found is None and pin["registry"] == "debian-source":
                found = debian_source(pin, root)
            elif found is None:
                found = pypi(pin, pathlib.Path(scratch))
            if not has(found, pin["sha256"]):
                raise SystemExit(
                    f"{pin['file']} (sha256 {pin['sha256']}) is not to be had from {pin['registry']}.\n"
                    f"Put a file with this hash into a directory and name it in GUEST_SOURCES."
                )
            shutil.copy(found, target)
            print(f"{pin['name']} {pin['version']}")


def main(pins_path: str, root_path: str, target_path: str, searched: str = "") -> None:
    pins, root, target = pathlib.Path(pins_path), pathlib.Path(root_path), pathlib.Path(target_path)
    directories = [pathlib.Path(d) for d in searched.split(":") if d]
    manifest = tomllib.loads((pins / "manifest.toml").read_text())
    bring(manifest["source"], root, target / "sources", directories)
    bring(manifest.get("tool", []), root, target / "tools", directories)
    (target / "debs").mkdir(exist_ok=True)
    packages(pins / "toolchain.lock", root, target / "debs", directories)


if __name__ == "__main__":
    main(*sys.argv[1:])
