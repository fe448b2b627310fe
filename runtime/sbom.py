"""Write the bill of materials of the guest (CycloneDX 1.6, JSON) from the manifest and the recorded artifact.

Usage: sbom.py [--check]      (needs the dev tools; with --check nothing is written, and a difference is an error)
The same pins give the same bytes. It is checked against CycloneDX's schema before it is written.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

RECIPE = Path(__file__).parent
FILE = RECIPE / "sbom.cdx.json"

INSIDE_CPYTHON: dict[str, tuple[str | None, str]] = {
    "expat": ("2.8.2", "MIT"),
    "libmpdec": ("2.5.1", "BSD-2-Clause"),
    "hacl-star": (None, "MIT"),
    "blake2": (None, "CC0-1.0"),
}
"""Libraries that come in CPython's own archive: version, if they have any, and licence. A test compares the versions
with those of the running guest."""


def generate() -> str:
    """The document."""
    pins = (RECIPE / "manifest.toml").read_bytes()
    manifest = tomllib.loads(pins.decode())
    artifact = json.loads((RECIPE / "artifact" / "guest.json").read_text())
    if artifact["inputs"]["runtime/manifest.toml"] != hashlib.sha256(pins).hexdigest():
        raise SystemExit("the artifact was made with another manifest.toml: run runtime/build.sh --update")
    guest = Component(
        name="wasm-sandbox-guest",
        version=artifact["sha256"][:16],
        type=ComponentType.APPLICATION,
        bom_ref="guest",
        description="CPython for wasm32-wasip1 with its library and pydantic, as artifact/guest.wasm.xz holds it",
        hashes=[_sha256(artifact["sha256"])],
    )
    bom = Bom(serial_number=uuid5(NAMESPACE_URL, f"urn:sha256:{artifact['sha256']}"))
    bom.metadata.component = guest
    parts = [_source(pin) for pin in manifest["source"]] + [_linked(pin) for pin in manifest["linked"]]
    for part in parts:
        bom.components.add(part)
    bom.register_dependency(guest, parts)
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    del document["metadata"]["timestamp"]  # the artifact's hash says more about its age, and stays the same
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    if errors := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise SystemExit(f"not a CycloneDX document: {errors}")
    return text


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


def _component(name: str, version: str | None, licence: str, url: PackageURL, pin: Mapping[str, str]) -> Component:
    return Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=str(url),
        purl=url,
        licenses=[LicenseFactory().make_from_string(licence)],
        hashes=[_sha256(pin["sha256"])] if "sha256" in pin else [],
        properties=[
            Property(name=f"wasm-sandbox:{key}", value=pin[key])
            for key in ("file", "registry", "package")
            if key in pin
        ],
    )


def _source(pin: Mapping[str, str]) -> Component:
    """What the build starts from: a pinned archive; its hash is the archive's."""
    kind = "pypi" if pin["registry"].startswith("pypi") else "generic"
    url = PackageURL(kind, name=pin["name"], version=pin["version"])
    part = _component(pin["name"], pin["version"], pin["licence"], url, pin)
    if pin["name"] == "cpython":
        for name, (version, licence) in INSIDE_CPYTHON.items():
            url = PackageURL("generic", name=name, version=version)
            part.components.add(_component(name, version, licence, url, {}))
    return part


def _linked(pin: Mapping[str, str]) -> Component:
    """What comes from a package of the build root, a crate or a library of the toolchain; the hash is the package's."""
    is_crate = pin["package"].startswith("librust-")
    version = re.sub(r"^\d+:|\+(dfsg|ds).*$|-[^-]*$", "", pin["version"]) if is_crate else pin["version"]
    url = (
        PackageURL("cargo", name=pin["name"], version=version)
        if is_crate
        else PackageURL("deb", "debian", pin["package"], pin["version"])
    )
    return _component(pin["name"], version, pin["licence"], url, pin)


def main(mode: str = "") -> None:
    """Write the document, or compare it."""
    text = generate()
    if mode == "--check":
        if not FILE.exists() or FILE.read_text() != text:
            raise SystemExit(f"{FILE} is not what the pins say: run python3 runtime/sbom.py")
        return
    FILE.write_text(text)
    print(f"{FILE}: {len(json.loads(text)['components'])} components")


if __name__ == "__main__":
    main(*sys.argv[1:])
