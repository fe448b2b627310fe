"""Compare the built module with the recorded one; with --update, make it the repository's artifact.

Usage: package.py RECIPE MODULE [--update]
"""

import hashlib
import json
import lzma
import pathlib
import sys
import tomllib


def main(recipe_path: str, module_path: str, mode: str = "") -> None:
    recipe = pathlib.Path(recipe_path)
    module = pathlib.Path(module_path).read_bytes()
    found = hashlib.sha256(module).hexdigest()
    description = recipe / "artifact/guest.json"
    if mode == "--update":
        compressed = lzma.compress(module, preset=9 | lzma.PRESET_EXTREME)
        pins = tomllib.loads((recipe / "manifest.toml").read_text())["source"]
        description.parent.mkdir(exist_ok=True)
        (recipe / "artifact/guest.wasm.xz").write_bytes(compressed)
        record = {
            "sha256": found,
            "size_bytes": len(module),
            "versions": {pin["name"]: pin["version"] for pin in pins},
        }
        description.write_text(json.dumps(record, indent=2) + "\n")
        print(f"artifact: {len(module)} bytes, {len(compressed)} compressed, sha256 {found}")
        return
    recorded = json.loads(description.read_text())["sha256"] if description.is_file() else "none"
    if found != recorded:
        raise SystemExit(f"the module built here has sha256 {found}, recorded is {recorded}")
    print(f"the same as the recorded artifact: sha256 {found}")


if __name__ == "__main__":
    main(*sys.argv[1:])
