"""Compare the built module with the recorded one; with --update, make it the repository's artifact.

Usage: package.py RECIPE MODULE [--update]
"""

import hashlib
import json
import lzma
import pathlib
import re
import sys
import tomllib


def main(recipe_path: str, module_path: str, mode: str = "") -> None:
    recipe = pathlib.Path(recipe_path)
    module = pathlib.Path(module_path).read_bytes()
    found = hashlib.sha256(module).hexdigest()
    manifest = recipe / "manifest.toml"
    description = recipe / "artifact/guest.json"
    if mode == "--update":
        compressed = lzma.compress(module, preset=9 | lzma.PRESET_EXTREME)
        pins = tomllib.loads(manifest.read_text())["source"]
        description.parent.mkdir(exist_ok=True)
        (recipe / "artifact/guest.wasm.xz").write_bytes(compressed)
        record = {
            "sha256": found,
            "size_bytes": len(module),
            "versions": {pin["name"]: pin["version"] for pin in pins},
        }
        description.write_text(json.dumps(record, indent=2) + "\n")
        manifest.write_text(re.sub(r'(\[artifact\]\nsha256 = )".*"', rf'\1"{found}"', manifest.read_text()))
        print(f"artifact: {len(module)} bytes, {len(compressed)} compressed, sha256 {found}")
        return
    recorded = tomllib.loads(manifest.read_text())["artifact"]["sha256"]
    if found != recorded:
        raise SystemExit(f"the module built here has sha256 {found}, recorded is {recorded}")
    print(f"the same as the recorded artifact: sha256 {found}")


if __name__ == "__main__":
    main(*sys.argv[1:])
