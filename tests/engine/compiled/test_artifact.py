"""The built guest in the repository: it is what the manifest says, and small."""

from __future__ import annotations

import hashlib
import json
import lzma
import re
import tomllib
from pathlib import Path

import pytest

from wasm_sandbox.engine.compiled.artifact import PLAIN, Artifact, find_artifact
from wasm_sandbox.engine.compiled.built_in import FLAVOUR_IMAGES
from wasm_sandbox.errors import ArtifactError
from wasm_sandbox.limits import MIB

RUNTIME = Path(__file__).parents[3] / "runtime"
FLAVOURS = {"plain": 7 * MIB, "science": 20 * MIB}
"""Largest size of each compressed module."""

PINS = {"shared": "plain", "science": "science"}
"""Where pins stand -> the flavour that has the licences."""


def manifest(place: str) -> dict[str, list[dict[str, str]]]:
    return tomllib.loads((RUNTIME / place / "manifest.toml").read_text())


def locked(place: str) -> dict[str, tuple[str, ...]]:
    rows = [row.split() for row in (RUNTIME / place / "toolchain.lock").read_text().splitlines() if row[0] != "#"]
    assert all(len(row) == 3 and len(row[2]) == 64 for row in rows)
    return {name: (version, sha256) for name, version, sha256 in rows}


def test_the_flavours_are_those_of_the_recipe() -> None:
    assert set(FLAVOURS) == {path.parent.name for path in RUNTIME.glob("*/flavour.toml")}
    assert set(FLAVOUR_IMAGES) == set(FLAVOURS) - {PLAIN}


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_artifact_has_the_recorded_hash_and_size(flavour: str) -> None:
    artifact = find_artifact(flavour)
    module = artifact.read()
    assert hashlib.sha256(module).hexdigest() == artifact.sha256
    assert len(module) == artifact.size_bytes
    assert artifact.compressed_bytes <= FLAVOURS[flavour]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_artifact_names_the_versions_of_the_manifests(flavour: str) -> None:
    places = ["shared", flavour] if flavour in PINS else ["shared"]
    pins = [pin for place in places for pin in manifest(place)["source"]]
    assert find_artifact(flavour).versions == {pin["name"]: pin["version"] for pin in pins}


@pytest.mark.parametrize(("place", "flavour"), PINS.items())
def test_every_pin_has_a_hash_and_a_licence_text(place: str, flavour: str) -> None:
    for pin in manifest(place)["source"]:
        assert len(pin["sha256"]) == 64
        assert list((RUNTIME / flavour / "licenses").glob(f"{pin['name']}*")), pin["name"]


@pytest.mark.parametrize(("place", "flavour"), PINS.items())
def test_what_the_toolchain_adds_to_the_module_is_named_with_its_pin_and_licence(place: str, flavour: str) -> None:
    licences, lock = RUNTIME / flavour / "licenses", locked(place)
    crates = licences / "rust-crates.txt"
    texts = crates.read_text() if crates.exists() else ""
    for pin in manifest(place)["linked"]:
        assert lock[pin["package"]] == (pin["version"], pin["sha256"])
        assert pin["licence"]
        has_a_text = (licences / f"{pin['name'].removesuffix('abi')}.txt").exists()
        assert has_a_text or f"\n{pin['name']} " in texts, pin["name"]


@pytest.mark.parametrize("place", PINS)
def test_the_toolchain_is_pinned_by_hash(place: str) -> None:
    listed = (RUNTIME / place / "toolchain.txt").read_text().splitlines()
    wanted = [line for line in listed if line and line[0] != "#"]
    assert not [name for name in wanted if name not in locked(place) and not re.search(r"\w\+\w", name)]


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


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_description_is_valid_json_beside_the_artifact(flavour: str) -> None:
    description = json.loads((RUNTIME / flavour / "artifact" / "guest.json").read_text())
    assert description["flavour"] == flavour
    assert set(description) == {"flavour", "preload", "sha256", "size_bytes", "versions", "inputs"}
