"""Compare what is installed, and what the guest is built of, with the advisories in advisories.toml. No network.

Usage: check_advisories.py [ADVISORIES [SBOM...]]      (by default those of all flavours of the guest)
Exits with 1, naming each, if a version with a known weakness is there that was not accepted.
"""

from __future__ import annotations

import datetime
import json
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from urllib.parse import unquote

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).parents[1]
ADVISORIES = ROOT / "tools" / "advisories.toml"
SBOMS = sorted((ROOT / "runtime").glob("*/*.cdx.json"))


@dataclass(frozen=True)
class Package:
    """Something with a version, named as in advisories.toml."""

    name: str
    version: str
    place: str


@dataclass(frozen=True)
class Advisory:
    """A known weakness."""

    id: str
    package: str
    affected: tuple[SpecifierSet, ...]
    summary: str
    accepted: Mapping[str, str]
    """Version -> why it is kept although it is affected."""

    def concerns(self, package: Package) -> bool:
        """Whether this package has it.

        Raises:
            SystemExit: its version cannot be compared.
        """
        if package.name != self.package:
            return False
        try:
            version = Version(package.version)
        except InvalidVersion:
            raise SystemExit(f"{package.name} {package.version} ({package.place}) has no comparable version") from None
        return any(versions.contains(version, prereleases=True) for versions in self.affected)


def read_advisories(path: Path) -> tuple[list[Advisory], datetime.date]:
    """The advisories, and when they were last looked through."""
    document = tomllib.loads(path.read_text())
    entries = [
        Advisory(
            entry["id"],
            entry["package"],
            tuple(map(SpecifierSet, entry["affected"])),
            entry["summary"],
            entry.get("accepted", {}),
        )
        for entry in document["advisory"]
    ]
    return entries, document["reviewed"]


def installed() -> list[Package]:
    """The Python packages of this environment."""
    return [
        Package(f"pypi/{canonicalize_name(found.metadata['Name'])}", found.version, "installed")
        for found in distributions()
    ]


def guest_packages(*sboms: Path) -> list[Package]:
    """What the guests are built of, by the package URLs of their bills of materials; each once."""
    packages, waiting = [], [part for sbom in sboms for part in json.loads(sbom.read_text())["components"]]
    while waiting:
        component = waiting.pop()
        waiting += component.get("components", [])
        kind, _, name = component["purl"].partition("?")[0].removeprefix("pkg:").rpartition("@")[0].partition("/")
        if "version" in component:
            packages.append(Package(f"{kind}/{unquote(name)}", component["version"], "in the guest"))
    return list(dict.fromkeys(packages))


def findings(advisories: Iterable[Advisory], packages: Iterable[Package]) -> tuple[list[str], list[str]]:
    """One line for each weakness found, and for each that was accepted."""
    known = list(packages)
    found, accepted = [], []
    for advisory in advisories:
        for package in filter(advisory.concerns, known):
            line = f"{package.name} {package.version} ({package.place}): {advisory.id}: {advisory.summary}"
            if package.version in advisory.accepted:
                accepted.append(f"{line}. Accepted: {advisory.accepted[package.version]}")
            else:
                found.append(line)
    return found, accepted


def main(advisories_path: str = str(ADVISORIES), *sbom_paths: str) -> None:
    """Print what was found."""
    advisories, reviewed = read_advisories(Path(advisories_path))
    packages = [*installed(), *guest_packages(*map(Path, sbom_paths or SBOMS))]
    found, accepted = findings(advisories, packages)
    print(*accepted, sep="\n")
    print(
        f"{len(packages)} packages, {len(advisories)} advisories (looked through on {reviewed}): "
        f"{len(accepted)} accepted, {len(found)} found"
    )
    if found:
        raise SystemExit("\n".join(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
