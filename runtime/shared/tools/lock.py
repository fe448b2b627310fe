"""Write toolchain.lock: every package that the build root needs, with version and sha256.

Usage: lock.py TOOLCHAIN_TXT TOOLCHAIN_LOCK ROOT
Asks apt inside the root what installing the listed packages would fetch; installs nothing.
"""

import pathlib
import re
import subprocess
import sys
import urllib.parse


def main(listed: str, lock: str, root: str) -> None:
    names = [line for line in pathlib.Path(listed).read_text().split("\n") if line and not line.startswith("#")]
    command = [
        "chroot",
        root,
        "apt-get",
        "-o",
        "Acquire::ForceHash=SHA256",
        "install",
        "--print-uris",
        "-qq",
        "--reinstall",
        "--no-install-recommends",
    ]
    output = subprocess.run([*command, *names], check=True, capture_output=True, text=True).stdout
    rows = []
    for _, file, hash_ in re.findall(r"^'([^']*)' (\S+) \d+ SHA256:(\w+)$", output, re.MULTILINE):
        name, version, _ = urllib.parse.unquote(file).split("_")
        rows.append(f"{name} {version} {hash_}\n")
    if not rows:
        raise SystemExit("apt named no files: is the toolchain already installed in this root? use a fresh one")
    head = (
        "# name version sha256: the packages of the build root, as the registry serves them (runtime/build.sh --lock)\n"
    )
    pathlib.Path(lock).write_text(head + "".join(sorted(rows)))
    print(f"{len(rows)} packages")


if __name__ == "__main__":
    main(*sys.argv[1:])
