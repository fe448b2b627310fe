"""The built guest in the repository: it is what the manifest says, and small."""

from __future__ import annotations

import hashlib
import json
import lzma
import tomllib
from pathlib import Path

import pytest

from wasm_sandbox.engine.compiled.artifact import Artifact, find_artifact
from wasm_sandbox.errors import ArtifactError
from wasm_sandbox.limits import MIB

RUNTIME = Path(__file__).parents[3] / "runtime"


def test_the_artifact_has_the_recorded_hash_and_size() -> None:
    artifact = find_artifact()
    module = artifact.read()
    assert hashlib.sha256(module).hexdigest() == artifact.sha256
    assert len(module) == artifact.size_bytes
    assert artifact.compressed_bytes <= 7 * MIB


def test_the_artifact_names_the_versions_of_the_manifest() -> None:
    pins = tomllib.loads((RUNTIME / "manifest.toml").read_text())["source"]
    assert find_artifact().versions == {pin["name"]: pin["version"] for pin in pins}


def test_every_pin_has_a_hash_and_a_licence_text() -> None:
    for pin in tomllib.loads((RUNTIME / "manifest.toml").read_text())["source"]:
        assert len(pin["sha256"]) == 64
        assert list((RUNTIME / "licenses").glob(f"{pin['name']}*")), pin["name"]


def test_what_the_toolchain_adds_to_the_module_is_named_with_its_pin_and_licence() -> None:
    rows = [row.split() for row in (RUNTIME / "toolchain.lock").read_text().splitlines() if not row.startswith("#")]
    locked = {name: (version, sha256) for name, version, sha256 in rows}
    linked = tomllib.loads((RUNTIME / "manifest.toml").read_text())["linked"]
    assert all(locked[pin["package"]] == (pin["version"], pin["sha256"]) and pin["licence"] for pin in linked)
    texts = (RUNTIME / "licenses" / "rust-crates.txt").read_text()
    for pin in linked:
        assert (RUNTIME / "licenses" / f"{pin['name']}.txt").exists() or f"\n{pin['name']} " in texts, pin["name"]


def test_the_toolchain_is_pinned_by_hash() -> None:
    rows = [row.split() for row in (RUNTIME / "toolchain.lock").read_text().splitlines() if not row.startswith("#")]
    names = {row[0] for row in rows}
    assert all(len(row) == 3 and len(row[2]) == 64 for row in rows)
    wanted = [line for line in (RUNTIME / "toolchain.txt").read_text().splitlines() if line and line[0] != "#"]
    assert not [name for name in wanted if name not in names and "+" not in name]


def test_a_damaged_artifact_is_refused_with_what_to_do(tmp_path: Path) -> None:
    good = find_artifact()
    path = tmp_path / "guest.wasm.xz"
    path.write_bytes(lzma.compress(b"\0asm something else"))
    with pytest.raises(ArtifactError, match=r"expected .* reinstall"):
        Artifact(path, good.sha256, good.size_bytes, {}).read()
    path.write_bytes(good.path.read_bytes()[:1000])
    with pytest.raises(ArtifactError, match="reinstall"):
        Artifact(path, good.sha256, good.size_bytes, {}).read()
    path.unlink()
    with pytest.raises(ArtifactError, match="reinstall"):
        Artifact(path, good.sha256, good.size_bytes, {}).read()


def test_the_description_is_valid_json_beside_the_artifact() -> None:
    description = json.loads((RUNTIME / "artifact" / "guest.json").read_text())
    assert set(description) == {"sha256", "size_bytes", "versions", "inputs"}
