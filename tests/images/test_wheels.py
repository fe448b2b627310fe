"""Wheels and local packages: read, never executed; what is compiled, damaged or no package is refused by name."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tests.support.packages import make_package, make_wheel
from wasm_sandbox.errors import PackageError
from wasm_sandbox.images import wheels
from wasm_sandbox.images.wheels import Distribution, read_local, read_wheel, top_level_modules


def test_a_wheel_is_read_with_its_metadata(tmp_path: Path) -> None:
    one = read_wheel(make_wheel(tmp_path, "Some-Thing", "1.2", requires=["other>=1"]))
    assert (one.name, one.version, one.requires) == ("some-thing", "1.2", ("other>=1",))
    assert one.modules == ("Some_Thing",)
    assert any(name.endswith(".dist-info/RECORD") for name in one.files)


def test_a_compiled_wheel_is_refused_by_name(tmp_path: Path) -> None:
    path = make_wheel(tmp_path, "fast", "1.0", compiled=True)
    with pytest.raises(PackageError, match=r"fast-1.0-cp313.*is compiled \(it has fast/_native.*\.so\)"):
        read_wheel(path)


def test_compiled_modules_can_be_left_out(tmp_path: Path) -> None:
    one = read_wheel(make_wheel(tmp_path, "fast", "1.0", compiled=True), without_extensions=True)
    assert [name for name in one.files if name.endswith(".so")] == []
    assert "fast.py" in one.files


def test_what_installers_write_and_scripts_do_not_count(tmp_path: Path) -> None:
    extra = {
        "a-1.dist-info/INSTALLER": b"x",
        "a-1.data/scripts/run": b"#!",
        "a-1.data/purelib/more.py": b"",
        "__pycache__/a.pyc": b"",
    }
    plain = read_wheel(make_wheel(tmp_path / "1", "a", "1", files={"more.py": b""}))
    assert read_wheel(make_wheel(tmp_path / "2", "a", "1", files=extra)) == plain


@pytest.mark.parametrize("name", ["../evil.py", "/etc/evil.py", "a/../../evil.py", "a\\evil.py"])
def test_a_wheel_with_a_path_that_leads_out_of_it_is_refused(tmp_path: Path, name: str) -> None:
    path = make_wheel(tmp_path, "a", "1")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"")
    with pytest.raises(PackageError, match="damaged or means harm"):
        read_wheel(path)


def test_a_wheel_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "MAX_PACKAGE_BYTES", 1000)
    path = make_wheel(tmp_path, "a", "1", files={"zeros.bin": bytes(2000)})
    with pytest.raises(PackageError, match="takes more than"):
        read_wheel(path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path / "nothing", "there is no such package"),
        (lambda path: path, "is no package"),
        (lambda path: make_package(path / "not-a-name", {}), "cannot be imported by that name"),
        (lambda path: _written(path / "pyproject.toml").parent, "is a project, .*pip wheel"),
        (lambda path: _written(path / "native.so"), "is no package"),
        (lambda path: _written(path / "broken-1-py3-none-any.whl"), "cannot be read as a wheel"),
        (lambda path: _written(path / "unnamed.whl"), "not named as a wheel is"),
    ],
)
def test_what_is_no_local_package_is_refused(tmp_path: Path, make: object, reason: str) -> None:
    assert callable(make)
    with pytest.raises(PackageError, match=reason):
        read_local(make(tmp_path))


def test_a_local_package_with_a_compiled_module_is_refused(tmp_path: Path) -> None:
    package = make_package(tmp_path / "mine", {})
    _written(package / "_native.so")
    with pytest.raises(PackageError, match=r"_native\.so is compiled"):
        read_local(package)


def test_a_directory_and_a_module_are_read_as_files(tmp_path: Path) -> None:
    package = make_package(tmp_path / "mine", {"sub/__init__.py": "", "data.txt": "x"})
    _written(package / "__pycache__" / "x.pyc")
    found = read_local(package)
    assert not isinstance(found, Distribution)
    assert sorted(found) == ["mine/__init__.py", "mine/data.txt", "mine/sub/__init__.py"]
    assert read_local(_written(tmp_path / "single.py")) == {"single.py": b""}


def test_public_modules_at_the_top_are_found() -> None:
    files = ["a/__init__.py", "a/b.py", "_c/__init__.py", "d.py", "tests/__init__.py", "e/f.py", "x-1.dist-info/RECORD"]
    assert top_level_modules(files) == ("a", "d")


def _written(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path
