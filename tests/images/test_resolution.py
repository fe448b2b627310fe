"""Requirements to distributions, by the real installers, from wheels in a directory: no network is needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.packages import make_wheel, uv_on_path
from wasm_sandbox.engine.compiled.artifact import find_artifact
from wasm_sandbox.errors import PackageError
from wasm_sandbox.images import installer as installer_module
from wasm_sandbox.images.guest_python import GuestPython, parse_requirement, tool_requirements
from wasm_sandbox.images.installer import Index, find_installer
from wasm_sandbox.images.resolution import resolve
from wasm_sandbox.images.wheels import Distribution, read_wheel

pytestmark = pytest.mark.long

PYTHON = GuestPython(find_artifact())

with_both = pytest.mark.parametrize("resolved", ["pip", "uv"], indirect=True)

Resolve = Callable[..., dict[str, Distribution]]


@pytest.fixture
def resolved(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Resolve:
    """``resolved(requirement, ...)``, with the wheels that `made` made as the only index."""
    links = tmp_path / "wheels"
    links.mkdir()
    for name, value in {
        "PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(links),
        "UV_NO_CONFIG": "1", "UV_NO_INDEX": "1", "UV_FIND_LINKS": str(links),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    if getattr(request, "param", "pip") == "uv":
        uv_on_path(monkeypatch)

    def resolve_now(*requirements: str, local: tuple[Distribution, ...] = ()) -> dict[str, Distribution]:
        wanted = [parse_requirement(text) for text in requirements]
        with Index(getattr(request, "param", "pip"), PYTHON) as index:
            return resolve(wanted, local, PYTHON, index)

    return resolve_now


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Path]:
    """``made(name, version, requires=(), compiled=False)``: a wheel in the index."""

    def make(name: str, version: str, requires: tuple[str, ...] = (), *, compiled: bool = False) -> Path:
        return make_wheel(tmp_path / "wheels", name, version, requires=requires, compiled=compiled)

    return make


def test_the_newest_versions_that_fit_are_found_with_what_they_need(
    resolved: Resolve, made: Callable[..., Path]
) -> None:
    made("top", "1.0", ("base<2",))
    made("base", "1.5")
    made("base", "2.0")
    assert {name: one.version for name, one in resolved("top").items()} == {"top": "1.0", "base": "1.5"}


@with_both
def test_both_installers_give_the_same_files(
    made: Callable[..., Path], request: pytest.FixtureRequest, resolved: Resolve
) -> None:
    path = made("top", "1.0")
    assert resolved("top")["top"] == read_wheel(path)


def test_what_the_guest_has_built_in_counts_as_there(resolved: Resolve, made: Callable[..., Path]) -> None:
    made("top", "1.0", ("pydantic>=2", "typing-extensions"))
    assert list(resolved("top")) == ["top"]
    assert resolved("pydantic>=2", "pydantic-core") == {}


def test_another_version_of_what_is_built_in_cannot_be_had(resolved: Resolve, made: Callable[..., Path]) -> None:
    with pytest.raises(PackageError, match=r"pydantic<2 cannot be had: the guest has pydantic 2\.\S+ built in"):
        resolved("pydantic<2")
    made("top", "1.0", ("pydantic<2",))
    with pytest.raises(PackageError, match="pydantic"):
        resolved("top")


def test_requirements_that_conflict_are_named(resolved: Resolve, made: Callable[..., Path]) -> None:
    made("one", "1.0", ("base<2",))
    made("two", "1.0", ("base>=2",))
    made("base", "1.0")
    made("base", "2.0")
    with pytest.raises(PackageError, match=r"(?s)the requirements one, two conflict:.*base"):
        resolved("one", "two")


def test_a_package_that_is_not_there_is_named(resolved: Resolve) -> None:
    with pytest.raises(PackageError, match="no wheel for no-such-package"):
        resolved("no-such-package")


def test_a_package_that_is_only_compiled_is_named_and_what_is_built_in_listed(
    resolved: Resolve, made: Callable[..., Path]
) -> None:
    made("fast", "1.0", compiled=True)
    made("top", "1.0", ("fast",))
    for requirement in ("fast", "top"):
        with pytest.raises(PackageError, match=r"fast-1\.0-cp313\S*\.whl is compiled, .*Built into .*pydantic 2\."):
            resolved(requirement)


def test_an_older_version_that_is_not_compiled_is_taken(resolved: Resolve, made: Callable[..., Path]) -> None:
    made("fast", "2.0", compiled=True)
    made("fast", "1.0")
    assert resolved("fast")["fast"].version == "1.0"


def test_a_package_that_does_without_its_compiled_modules_is_taken_without_them(
    resolved: Resolve, made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installer_module, "PURE_WITHOUT_EXTENSIONS", ("markupsafe",))
    made("markupsafe", "3.0", compiled=True)
    made("top", "1.0", ("markupsafe>=2",))
    found = resolved("top")["markupsafe"]
    assert found.version == "3.0"
    assert [name for name in found.files if name.endswith(".so")] == []


@with_both
def test_markers_are_those_of_the_guest(resolved: Resolve, made: Callable[..., Path]) -> None:
    made("top", "1.0", (
        'nowhere; sys_platform == "win32"', 'host; sys_platform == "linux"', 'old; python_version < "3.13"',
        'inside; sys_platform == "wasi"', 'new; python_version >= "3.13"', 'wanted; extra == "more"',
    ))  # fmt: skip
    for name in ("host", "old", "inside", "new", "wanted"):
        made(name, "1.0")
    assert sorted(resolved("top")) == ["inside", "new", "top"]
    assert sorted(resolved("top[more]")) == ["inside", "new", "top", "wanted"]
    assert resolved('nowhere; sys_platform == "win32"') == {}


def test_what_a_local_wheel_needs_is_resolved_and_it_wins(
    resolved: Resolve, made: Callable[..., Path], tmp_path: Path
) -> None:
    made("base", "1.0")
    made("mine", "9.0")
    local = read_wheel(make_wheel(tmp_path / "local", "mine", "1.0", requires=["base"]))
    assert {name: one.version for name, one in resolved(local=(local,)).items()} == {"mine": "1.0", "base": "1.0"}


def test_no_network_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    with (
        Index("pip", PYTHON) as index,
        pytest.raises(PackageError, match=r"pip cannot reach the package index to download lark: check the network"),
    ):
        resolve([parse_requirement("lark")], [], PYTHON, index)


def test_no_installer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(PackageError, match="no pip and no uv"):
        find_installer()


def test_an_installer_of_the_current_directory_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: f"./{name}")
    with pytest.raises(PackageError, match="no pip and no uv"):
        find_installer()


@pytest.mark.parametrize("text", ["-r requirements.txt", "--index-url=http://x", "a b", "", "lark @ file:///x.whl"])
def test_what_is_no_requirement_by_name_is_refused(text: str) -> None:
    with pytest.raises(PackageError, match=r"is no requirement|names an address"):
        parse_requirement(text)


def test_the_requirements_of_a_tool_are_texts_or_have_name_and_version() -> None:
    entries = ["lark", "tabulate>=0.9", {"name": "attrs", "version": "23.1"}, {"name": "six", "version": None}]
    assert tool_requirements(entries) == ("lark", "tabulate>=0.9", "attrs==23.1", "six")
    assert tool_requirements([{"name": "attrs", "version": ">=23"}]) == ("attrs>=23",)
    for wrong in ("lark", [7], [{"version": "1"}], [{"name": "a", "version": 1}]):
        with pytest.raises(PackageError):
            tool_requirements(wrong)
