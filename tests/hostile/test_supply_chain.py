"""What is trusted without being ours: known weaknesses are looked for, the guest's parts are named and checked."""

from __future__ import annotations

import hashlib
import json
import lzma
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from runtime import sbom
from runtime.shared.tools.inputs import GUEST_PYTHON, NOT_USED, differences, inputs
from tools import check_advisories
from tools.check_advisories import ADVISORIES, Package, findings, guest_packages, installed, read_advisories
from wasm_sandbox.engine.compiled.artifact import find_artifact
from wasm_sandbox.engine.compiled.build import Build
from wasm_sandbox.engine.compiled.preparation import prepare
from wasm_sandbox.engine.memory.wasmtimes import WasmtimeMemory
from wasm_sandbox.engine.module.metering import Metering
from wasm_sandbox.engine.start.kind import StartKind
from wasm_sandbox.errors import ArtifactError
from wasm_sandbox.limits import Limits
from wasm_sandbox.sandbox.plain_script import run_script

ROOT = Path(__file__).parents[2]
FLAVOURS = sorted(path.parent.name for path in (ROOT / "runtime").glob("*/flavour.toml"))
INPUTS = {flavour: inputs(ROOT, flavour) for flavour in FLAVOURS}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MANIFEST = tomllib.loads((ROOT / "runtime" / "shared" / "manifest.toml").read_text())
BILLS = {flavour: sbom.file_of(flavour) for flavour in FLAVOURS}
BILL: dict[str, Any] = json.loads(BILLS["plain"].read_text())


def components(part: dict[str, Any] = BILL) -> Iterator[dict[str, Any]]:
    for component in part.get("components", []):
        yield component
        yield from components(component)


# -- known weaknesses ------------------------------------------------------------------------------------------


def check(*arguments: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, check_advisories.__file__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_nothing_here_has_a_known_weakness_that_was_not_accepted() -> None:
    done = check()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(" accepted, 0 found\n")


def test_ci_looks_for_known_weaknesses_and_fails_on_one() -> None:
    assert "check advisories make advisories\n" in (ROOT / ".ci" / "run").read_text()
    assert "tools/check_advisories.py" in (ROOT / "Makefile").read_text()


def test_only_what_is_inside_the_guest_is_accepted_and_only_with_a_reason() -> None:
    advisories, _ = read_advisories(ADVISORIES)
    inside = {(package.name, package.version) for bill in BILLS.values() for package in guest_packages(bill)}
    for entry in advisories:
        for accepted, why in entry.accepted.items():
            assert why
            assert (entry.package, accepted) in inside, f"{entry.id}: {accepted} is no longer there"


def advisory(package: str, affected: str) -> str:
    return (
        f'reviewed = 2026-01-01\n[[advisory]]\nid = "TEST-1"\npackage = "{package}"\naffected = ["{affected}"]\n'
        'summary = "made up"\n'
    )


@pytest.mark.parametrize(
    ("package", "found"),
    [
        ("pypi/wasmtime", version("wasmtime")),
        ("pypi/typing-extensions", version("typing_extensions")),
        *((f"generic/{name}", find_artifact().versions[name]) for name in ("cpython", "sqlite")),
        ("generic/expat", sbom.INSIDE["cpython"]["expat"][0]),
        ("cargo/regex", next(c["version"] for c in components() if c["name"] == "regex")),
    ],
)
def test_an_affected_version_is_an_error_that_names_it(package: str, found: str, tmp_path: Path) -> None:
    path = tmp_path / "advisories.toml"
    path.write_text(advisory(package, f"=={found}"))
    done = check(path)
    assert done.returncode == 1
    assert f"{package} {found} (" in done.stderr
    assert "TEST-1: made up" in done.stderr
    path.write_text(advisory(package, f"<{found}"))
    assert check(path).returncode == 0 or package == "pypi/typing-extensions"  # the guest has one of its own


def test_the_list_is_sound() -> None:
    advisories, reviewed = read_advisories(ADVISORIES)
    assert reviewed.year >= 2026
    assert len({entry.id for entry in advisories}) == len(advisories)
    assert all(entry.affected and entry.summary for entry in advisories)
    known = {package.name for package in [*installed(), *guest_packages(*BILLS.values())]}
    assert {entry.package for entry in advisories} <= known, "an advisory for something that is nowhere"


@pytest.mark.parametrize(
    ("package", "affected", "fixed"),
    [
        ("pypi/wasmtime", "49.0.1", "49.0.2"),
        ("pypi/wasmtime", "36.0.15", "50.0.1"),
        ("generic/expat", "2.7.1", "2.7.2"),
        ("generic/liblzma", "5.6.1", "5.8.4"),
        ("generic/cpython", "3.13.3", "3.13.15"),
    ],
)
def test_the_list_knows_affected_from_fixed(package: str, affected: str, fixed: str) -> None:
    advisories, _ = read_advisories(ADVISORIES)
    assert findings(advisories, [Package(package, affected, "here")])[0]
    assert not findings(advisories, [Package(package, fixed, "here")])[0]


def test_what_is_accepted_is_said_and_holds_for_that_version_alone() -> None:
    advisories, _ = read_advisories(ADVISORIES)
    found, accepted = findings(advisories, [Package("generic/sqlite", "3.53.4", "here")])
    assert not found
    assert any("CVE-2026-119373" in line and "Accepted: " in line for line in accepted)
    found, accepted = findings(advisories, [Package("generic/sqlite", "3.53.3", "here")])
    assert found
    assert not accepted


def test_a_version_that_cannot_be_compared_is_an_error() -> None:
    advisories, _ = read_advisories(ADVISORIES)
    with pytest.raises(SystemExit, match="no comparable version"):
        findings(advisories, [Package("pypi/wasmtime", "yesterday's", "here")])


def test_wasmtime_is_pinned_to_one_major_version_that_is_tested_and_has_no_known_weakness() -> None:
    (pin,) = (r for r in map(Requirement, PROJECT["dependencies"]) if r.name == "wasmtime")
    lower = next(Version(s.version) for s in pin.specifier if s.operator == ">=")
    upper = next(Version(s.version) for s in pin.specifier if s.operator == "<")
    assert upper.release == (lower.major + 1,)
    assert version("wasmtime") in pin.specifier
    advisories, _ = read_advisories(ADVISORIES)
    assert findings(advisories, [Package("pypi/wasmtime", str(lower), "pinned")]) == ([], [])


# -- the bill of materials -------------------------------------------------------------------------------------


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_bill_is_what_the_pins_and_the_artifact_say(flavour: str) -> None:
    text = BILLS[flavour].read_text()
    assert text == sbom.generate(flavour)
    hashes = json.loads(text)["metadata"]["component"]["hashes"]
    assert hashes == [{"alg": "SHA-256", "content": find_artifact(flavour).sha256}]


def test_the_bill_is_a_cyclonedx_document(flavour: str) -> None:
    from cyclonedx.schema import SchemaVersion  # not above: a second, in every process that collects tests
    from cyclonedx.validation.json import JsonStrictValidator

    text = BILLS[flavour].read_text()
    assert (json.loads(text)["bomFormat"], json.loads(text)["specVersion"]) == ("CycloneDX", "1.6")
    assert not JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)


def test_the_bill_names_every_part_with_version_licence_hash_and_package_url(flavour: str) -> None:
    # by name and kind: there are a crate and a distribution of one name
    found = components(json.loads(BILLS[flavour].read_text()))
    parts = {(part["name"], part["purl"].startswith("pkg:cargo/")): part for part in found}
    manifests = [tomllib.loads(path.read_text()) for path in sbom.manifests(flavour)]
    pins = [pin for manifest in manifests for pin in manifest["source"] + manifest["linked"]]
    for pin in pins:
        part = parts[pin["name"], pin["package"].startswith("librust-")]
        assert part["hashes"] == [{"alg": "SHA-256", "content": pin["sha256"]}]
        assert part["purl"].startswith("pkg:")
        assert pin["version"].removeprefix("1:").startswith(part["version"].removeprefix("1:"))
    assert all(part["licenses"] for part in parts.values())
    assert len(parts) == len(pins) + sum(len(sbom.INSIDE.get(pin["name"], ())) for pin in pins)


def test_the_bill_has_the_versions_that_the_guest_reports() -> None:
    script = (
        "import _decimal, json, platform, pydantic, pydantic_core, pyexpat, sqlite3, zlib\n"
        "print(json.dumps({'cpython': platform.python_version(), 'expat': pyexpat.EXPAT_VERSION.split('_')[1],\n"
        "  'libmpdec': _decimal.__libmpdec_version__, 'sqlite': sqlite3.sqlite_version,\n"
        "  'zlib': zlib.ZLIB_RUNTIME_VERSION, 'pydantic': pydantic.VERSION,\n"
        "  'pydantic-core': pydantic_core.__version__}))"
    )
    output = run_script(script, name="versions.py", environ={}, limits=Limits())
    assert output.result.status == "success", output.stderr
    reported = json.loads(output.stdout)
    assert {part["name"]: part["version"] for part in components() if part["name"] in reported} == reported


def test_a_bill_of_another_artifact_is_not_written(
    flavour: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [*sbom.manifests(flavour), ROOT / "runtime" / flavour / "artifact" / "guest.json"]
    for file in files:
        copy = tmp_path / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(file.read_text() + "\n")
    monkeypatch.setattr(sbom, "RUNTIME", tmp_path / "runtime")
    with pytest.raises(SystemExit, match=r"another manifest\.toml"):
        sbom.generate(flavour)


def test_the_wheel_carries_the_bill() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert sorted(ROOT / path for path in wheel["sbom-files"]) == sorted(BILLS.values())


# -- the artifact ----------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path, flavour: str) -> Path:
    """What a build uses, in a repository of its own."""
    for name in INPUTS[flavour]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    return tmp_path


def test_an_artifact_was_made_from_the_sources_that_are_here(flavour: str) -> None:
    record = json.loads((ROOT / "runtime" / flavour / "artifact" / "guest.json").read_text())
    how = f"make the artifact anew: runtime/build.sh --flavour {flavour} --update (runtime/README.md)"
    assert differences(record["inputs"], INPUTS[flavour]) == [], how


def test_the_guests_own_python_is_in_the_artifact_as_it_is_here() -> None:
    """Asks the guest, not the record."""
    files = (ROOT / "wasm_sandbox" / "inside").glob(GUEST_PYTHON)
    sources = {path.stem: path.read_text(encoding="utf-8") for path in files}
    script = (
        f"import _imp\nfor name, text in {sources!r}.items():\n"
        "    made = compile(text, f'/lib/{name}.py', 'exec', dont_inherit=True)\n"
        "    print(name, made == _imp.get_frozen_object(name))\n"
    )
    output = run_script(script, name="frozen.py", environ={}, limits=Limits())
    assert output.result.status == "success", output.stderr
    assert output.stdout.decode().splitlines() == [f"{name} True" for name in sources]


def test_a_source_that_changes_or_goes_without_its_artifact_is_named(flavour: str, checkout: Path) -> None:
    recorded = INPUTS[flavour]
    assert inputs(checkout, flavour) == recorded
    for name in recorded:
        content = (checkout / name).read_bytes()
        (checkout / name).write_bytes(content + b"\n")
        assert differences(recorded, inputs(checkout, flavour)) == [f"{name} has changed"]
        (checkout / name).unlink()
        assert differences(recorded, inputs(checkout, flavour)) == [f"{name} is gone"]
        (checkout / name).write_bytes(content)


def test_a_new_source_without_its_artifact_is_named(flavour: str, checkout: Path) -> None:
    own = {str(PurePosixPath(name).parent) for name in INPUTS[flavour]} - {"runtime"}
    for directory in sorted(own | {"runtime/shared/new", f"runtime/{flavour}/new"}):
        new = f"{directory}/_sandbox_new.py"
        (checkout / directory).mkdir(exist_ok=True)
        (checkout / new).write_text("")
        assert differences(INPUTS[flavour], inputs(checkout, flavour)) == [f"{new} is new"]
        (checkout / new).unlink()


def test_what_counts_for_no_source_is_read_by_nothing_that_builds(flavour: str) -> None:
    names = {name for name in INPUTS[flavour] if name.startswith("runtime/") and not name.endswith("/inputs.py")}
    for unused in NOT_USED - {"artifact"}:
        file = unused.removeprefix("tools/")
        readers = {name for name in names if file.encode() in (ROOT / name).read_bytes()}
        is_for_renewing = file in ("toolchain.txt", "lock.py", "profile/make.sh", "profile/requirements.txt")
        assert readers == ({"runtime/build.sh"} if is_for_renewing else set()), unused


def test_a_record_is_not_made_of_sources_that_changed_during_the_build(flavour: str, checkout: Path) -> None:
    done = package(checkout, flavour, before={**INPUTS[flavour], "runtime/build.sh": "0" * 64})
    assert done.returncode
    assert "runtime/build.sh has changed" in done.stderr
    assert not (checkout / "runtime" / flavour / "artifact").exists()


def test_a_build_that_gives_the_recorded_module_from_other_sources_is_an_error_until_it_is_recorded(
    flavour: str, checkout: Path
) -> None:
    assert package(checkout, flavour, "--update").returncode == 0
    assert package(checkout, flavour).returncode == 0
    (checkout / "runtime" / "shared" / "stages" / "new.sh").write_text("")
    done = package(checkout, flavour)
    assert done.returncode
    assert "runtime/shared/stages/new.sh is new" in done.stderr
    assert package(checkout, flavour, "--update").returncode == 0
    assert package(checkout, flavour).returncode == 0
    (checkout / "guest.wasm").write_bytes(b"another module")
    assert "recorded is" in package(checkout, flavour).stderr


def package(
    checkout: Path, flavour: str, *mode: str, before: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The last stage of a build, with a small module."""
    module, listed = checkout / "guest.wasm", checkout / "inputs.json"
    if not module.exists():
        module.write_bytes(b"\0asm")
    listed.write_text(json.dumps(before or inputs(checkout, flavour)))
    script = checkout / "runtime" / "shared" / "tools" / "package.py"
    command = [sys.executable, "-B", str(script), str(checkout), flavour, str(module), str(listed), *mode]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_artifact_with_one_bit_changed_is_refused_before_it_is_compiled(tmp_path: Path) -> None:
    good = find_artifact()
    module = bytearray(good.read())
    module[len(module) // 2] ^= 1
    path = tmp_path / "guest.wasm.xz"
    path.write_bytes(lzma.compress(module, preset=0))
    steps: list[str] = []
    memory = WasmtimeMemory()
    build = Build(replace(good, path=path), StartKind.REACTOR, Metering.FUEL, memory.kind)
    with pytest.raises(ArtifactError, match=hashlib.sha256(module).hexdigest()):
        prepare(memory, build, steps.append)
    assert steps == ["unpacking the guest"]
