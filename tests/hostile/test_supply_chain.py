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
from runtime.stages.inputs import GUEST_PYTHON, NOT_USED, differences, inputs
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
RECIPE = ROOT / "runtime"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MANIFEST = tomllib.loads((ROOT / "runtime" / "manifest.toml").read_text())
RECORD: dict[str, Any] = json.loads((RECIPE / "artifact" / "guest.json").read_text())
BILL: dict[str, Any] = json.loads(sbom.FILE.read_text())


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
    inside = {(package.name, package.version) for package in guest_packages(sbom.FILE)}
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
        ("generic/expat", sbom.INSIDE_CPYTHON["expat"][0]),
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
    known = {package.name for package in [*installed(), *guest_packages(sbom.FILE)]}
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


def test_the_bill_is_what_the_pins_and_the_artifact_say() -> None:
    assert sbom.FILE.read_text() == sbom.generate()
    assert BILL["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": find_artifact().sha256}]


def test_the_bill_is_a_cyclonedx_document() -> None:
    from cyclonedx.schema import SchemaVersion  # not above: a second, in every process that collects tests
    from cyclonedx.validation.json import JsonStrictValidator

    assert (BILL["bomFormat"], BILL["specVersion"]) == ("CycloneDX", "1.6")
    assert not JsonStrictValidator(SchemaVersion.V1_6).validate_str(sbom.FILE.read_text())


def test_the_bill_names_every_part_with_version_licence_hash_and_package_url() -> None:
    parts = {component["name"]: component for component in components()}
    for pin in MANIFEST["source"] + MANIFEST["linked"]:
        part = parts[pin["name"]]
        assert part["hashes"] == [{"alg": "SHA-256", "content": pin["sha256"]}]
        assert part["purl"].startswith("pkg:")
        assert pin["version"].removeprefix("1:").startswith(part["version"].removeprefix("1:"))
    assert all(part["licenses"] for part in parts.values())
    assert len(parts) == len(MANIFEST["source"]) + len(MANIFEST["linked"]) + len(sbom.INSIDE_CPYTHON)


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


def test_a_bill_of_another_artifact_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "artifact").mkdir()
    (tmp_path / "artifact" / "guest.json").write_text((ROOT / "runtime" / "artifact" / "guest.json").read_text())
    (tmp_path / "manifest.toml").write_text((ROOT / "runtime" / "manifest.toml").read_text() + "\n")
    monkeypatch.setattr(sbom, "RECIPE", tmp_path)
    with pytest.raises(SystemExit, match=r"another manifest\.toml"):
        sbom.generate()


def test_the_wheel_carries_the_bill() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert [ROOT / path for path in wheel["sbom-files"]] == [sbom.FILE]


# -- the artifact ----------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a build uses, in a repository of its own."""
    for name in inputs(RECIPE):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    return tmp_path


def test_the_artifact_was_made_from_the_sources_that_are_here() -> None:
    how = "make the artifact anew: runtime/build.sh --update (runtime/README.md)"
    assert differences(RECORD["inputs"], inputs(RECIPE)) == [], how


def test_the_guests_own_python_is_in_the_artifact_as_it_is_here() -> None:
    """Asks the guest, not the record."""
    files = (ROOT / "wasm_sandbox" / "inside").glob(GUEST_PYTHON)
    sources = {path.stem: path.read_text(encoding="utf-8") for path in files}
    script = (
        f"import _imp\nfor name, text in {sources!r}.items():\n"
        "    made = compile(text, f'lib/{name}.py', 'exec', dont_inherit=True)\n"
        "    print(name, made == _imp.get_frozen_object(name))\n"
    )
    output = run_script(script, name="frozen.py", environ={}, limits=Limits())
    assert output.result.status == "success", output.stderr
    assert output.stdout.decode().splitlines() == [f"{name} True" for name in sources]


@pytest.mark.parametrize("name", inputs(RECIPE))
def test_a_source_that_changes_or_goes_without_its_artifact_is_named(name: str, checkout: Path) -> None:
    recorded = inputs(checkout / "runtime")
    with (checkout / name).open("ab") as file:
        file.write(b"\n")
    assert differences(recorded, inputs(checkout / "runtime")) == [f"{name} has changed"]
    (checkout / name).unlink()
    assert differences(recorded, inputs(checkout / "runtime")) == [f"{name} is gone"]


@pytest.mark.parametrize(
    "directory", sorted({str(PurePosixPath(name).parent) for name in inputs(RECIPE)} | {"runtime/new"})
)
def test_a_new_source_without_its_artifact_is_named(directory: str, checkout: Path) -> None:
    recorded = inputs(checkout / "runtime")
    new = f"{directory}/_sandbox_new.py"
    (checkout / directory).mkdir(exist_ok=True)
    (checkout / new).write_text("")
    assert differences(recorded, inputs(checkout / "runtime")) == [f"{new} is new"]


def test_what_counts_for_no_source_is_read_by_nothing_that_builds() -> None:
    names = {name for name in inputs(RECIPE) if name.startswith("runtime/") and name != "runtime/stages/inputs.py"}
    for unused in NOT_USED - {"artifact", "build"}:
        readers = {name for name in names if unused in (ROOT / name).read_text(encoding="utf-8")}
        is_for_renewing_the_lock = unused in ("toolchain.txt", "stages/lock.py")
        assert readers == ({"runtime/build.sh"} if is_for_renewing_the_lock else set()), unused


def test_a_record_is_not_made_of_sources_that_changed_during_the_build(checkout: Path) -> None:
    done = package(checkout, before={**inputs(checkout / "runtime"), "runtime/build.sh": "0" * 64})
    assert done.returncode
    assert "runtime/build.sh has changed" in done.stderr
    assert not (checkout / "runtime" / "artifact").exists()


def test_a_build_that_gives_the_recorded_module_from_other_sources_is_an_error_until_it_is_recorded(
    checkout: Path,
) -> None:
    assert package(checkout, "--update").returncode == 0
    assert package(checkout).returncode == 0
    (checkout / "runtime" / "stages" / "new.sh").write_text("")
    done = package(checkout)
    assert done.returncode
    assert "runtime/stages/new.sh is new" in done.stderr
    assert package(checkout, "--update").returncode == 0
    assert package(checkout).returncode == 0
    (checkout / "guest.wasm").write_bytes(b"another module")
    assert "recorded is" in package(checkout).stderr


def package(checkout: Path, *mode: str, before: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The last stage of a build, with a small module."""
    recipe, module, listed = checkout / "runtime", checkout / "guest.wasm", checkout / "inputs.json"
    if not module.exists():
        module.write_bytes(b"\0asm")
    listed.write_text(json.dumps(before or inputs(recipe)))
    script = recipe / "stages" / "package.py"
    command = [sys.executable, "-B", *map(str, (script, recipe, module, listed)), *mode]
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
