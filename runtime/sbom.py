"""Write the bills of materials of the guests (CycloneDX 1.6, JSON) from the manifests and the recorded artifacts.

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

RUNTIME = Path(__file__).parent
INSIDE: dict[str, dict[str, tuple[str | None, str]]] = {
    "cpython": {
        "expat": ("2.8.2", "MIT"),
        "libmpdec": ("2.5.1", "BSD-2-Clause"),
        "hacl-star": (None, "MIT"),
        "blake2": (None, "CC0-1.0"),
    },
    "numpy": {
        "highway": (None, "Apache-2.0 OR BSD-3-Clause"),
        "lapack-lite": (None, "BSD-3-Clause"),
        "libdivide": (None, "Zlib OR BSL-1.0"),
        "pocketfft": (None, "BSD-3-Clause"),
    },
    "matplotlib": {
        "anti-grain-geometry": ("2.4", "Anti-Grain Geometry 2.4"),
        "bakoma-fonts": (None, "BSD-3-Clause"),
        "dejavu-fonts": (None, "Bitstream-Vera"),
        "stix-fonts": (None, "OFL-1.1"),
    },
    "orjson": {
        "associative-cache": ("3.0.1", "MIT OR Apache-2.0"),
        "bytecount": ("0.6.9", "Apache-2.0 OR MIT"),
        "itoap": ("1.0.1", "MIT"),
        "jiff-core": ("0.1.1", "Unlicense OR MIT"),
        "once-cell": ("1.21.4", "MIT OR Apache-2.0"),
        "pyo3-ffi": ("0.29.3", "MIT OR Apache-2.0"),
        "simdutf8": ("0.1.5", "MIT OR Apache-2.0"),
        "xxhash-rust": ("0.8.19", "BSL-1.0"),
        "yyjson": ("0.12.0", "MIT"),
        "zmij": ("1.0.23", "MIT"),
    },
    "pandas": {
        "fast-float": ("8.2.10", "Apache-2.0 OR MIT OR BSL-1.0"),
        "klib": (None, "MIT"),
        "ultrajson": (None, "BSD-3-Clause"),
    },
}
"""Libraries that come in the archive of another source: version, if they have any, and licence. A test compares the
versions of CPython's with those of the running guest."""


def flavours() -> list[str]:
    """The flavours that have an artifact."""
    return sorted(path.parent.parent.name for path in RUNTIME.glob("*/artifact/guest.json"))


def file_of(flavour: str) -> Path:
    """Where the document of a flavour is; in the wheel they are beside each other."""
    return RUNTIME / flavour / f"{flavour}.cdx.json"


def manifests(flavour: str) -> list[Path]:
    """The pins of a flavour: those that all share, and its own."""
    both = (RUNTIME / "shared" / "manifest.toml", RUNTIME / flavour / "manifest.toml")
    return [path for path in both if path.exists()]


def generate(flavour: str) -> str:
    """The document of a flavour."""
    artifact = json.loads((RUNTIME / flavour / "artifact" / "guest.json").read_text())
    sources, linked = [], []
    for path in manifests(flavour):
        pins = path.read_bytes()
        if artifact["inputs"][path.relative_to(RUNTIME.parent).as_posix()] != hashlib.sha256(pins).hexdigest():
            raise SystemExit(
                f"the artifact was made with another {path.name}: run runtime/build.sh --flavour {flavour} --update"
            )
        manifest = tomllib.loads(pins.decode())
        sources += manifest["source"]
        linked += manifest["linked"]
    guest = Component(
        name="wasm-sandbox-guest",
        version=artifact["sha256"][:16],
        type=ComponentType.APPLICATION,
        bom_ref="guest",
        description=f"CPython for wasm32-wasip1 with its library and pydantic, flavour {flavour!r}",
        hashes=[_sha256(artifact["sha256"])],
    )
    bom = Bom(serial_number=uuid5(NAMESPACE_URL, f"urn:sha256:{artifact['sha256']}"))
    bom.metadata.component = guest
    parts = [_source(pin) for pin in sources] + [_linked(pin) for pin in linked]
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
    for name, (version, licence) in INSIDE.get(pin["name"], {}).items():
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
    """Write the documents, or compare them."""
    for flavour in flavours():
        file, text = file_of(flavour), generate(flavour)
        if mode == "--check":
            if not file.exists() or file.read_text() != text:
                raise SystemExit(f"{file} is not what the pins say: run python3 runtime/sbom.py")
        else:
            file.write_text(text)
            print(f"{file}: {len(json.loads(text)['components'])} components")


if __name__ == "__main__":
    main(*sys.argv[1:])
