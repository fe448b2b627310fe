"""Compare the built module and what it was made from with the record; with --update, make it the artifact.

Usage: package.py REPOSITORY FLAVOUR MODULE INPUTS [--update]      (INPUTS: what inputs.py wrote before the build)
"""

import hashlib
import json
import lzma
import pathlib
import sys
import tomllib
from typing import Any

from inputs import differences, inputs


def main(repository_path: str, flavour: str, module_path: str, inputs_path: str, mode: str = "") -> None:
    repository = pathlib.Path(repository_path)
    own = repository / "runtime" / flavour
    module = pathlib.Path(module_path).read_bytes()
    used = json.loads(pathlib.Path(inputs_path).read_text())
    if changed := differences(used, inputs(repository, flavour)):
        raise SystemExit(f"changed while the guest was built, build again: {', '.join(changed)}")
    pins = [pin for directory in (repository / "runtime" / "shared", own) for pin in sources(directory)]
    made = {
        "flavour": flavour,
        "preload": tomllib.loads((own / "flavour.toml").read_text())["preload"],
        "sha256": hashlib.sha256(module).hexdigest(),
        "size_bytes": len(module),
        "versions": {pin["name"]: pin["version"] for pin in pins},
        "inputs": used,
    }
    description = own / "artifact/guest.json"
    recorded = json.loads(description.read_text()) if description.exists() else {}
    if mode == "--update":
        update(own / "artifact/guest.wasm.xz", module, is_new=recorded.get("sha256") != made["sha256"])
        description.write_text(json.dumps(made, indent=2) + "\n")
    else:
        compare(recorded, made)


def sources(directory: pathlib.Path) -> list[dict[str, str]]:
    """The pinned sources of one directory of the recipe."""
    manifest = directory / "manifest.toml"
    found: list[dict[str, str]] = tomllib.loads(manifest.read_text())["source"] if manifest.exists() else []
    return found


def update(artifact: pathlib.Path, module: bytes, *, is_new: bool) -> None:
    """Write the compressed module, if it is another one: other versions of xz give other files."""
    if is_new or not artifact.exists():
        artifact.parent.mkdir(exist_ok=True)
        artifact.write_bytes(lzma.compress(module, preset=9 | lzma.PRESET_EXTREME))
    print(f"artifact: {len(module)} bytes, {artifact.stat().st_size} compressed")


def compare(recorded: dict[str, Any], made: dict[str, Any]) -> None:
    """End with an error if not all is as recorded."""
    if made["sha256"] != recorded.get("sha256"):
        raise SystemExit(f"the module built here has sha256 {made['sha256']}, recorded is {recorded.get('sha256')}")
    if changed := differences(recorded.get("inputs", {}), made["inputs"]):
        raise SystemExit(
            f"the module is the recorded one, what it is made from is not: {', '.join(changed)}.\n"
            "Record that with runtime/build.sh --update."
        )
    print(f"the same as the recorded artifact: sha256 {made['sha256']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
