"""A package that nobody trusts: it is executed in guests only."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from tests.support.archives import DEFLATED, Member, wheel
from tests.support.package_index import PackageIndex, configure, make_trap, serving
from tests.support.packages import make_wheel, uv_on_path
from wasm_sandbox import Image, Tool, run_tool
from wasm_sandbox.directories import DATA_VARIABLE
from wasm_sandbox.engine.compiled.artifact import find_artifact
from wasm_sandbox.errors import PackageError
from wasm_sandbox.images import commands, wheels
from wasm_sandbox.images.guest_python import GuestPython, parse_requirement
from wasm_sandbox.images.installer import Index, requirement_text
from wasm_sandbox.images.resolution import resolve
from wasm_sandbox.images.wheels import Distribution, read_wheel

pytestmark = pytest.mark.long

HOSTILE = """
import os, sys
SEEN = []
for attempt in (lambda: open(MARK, "w"), lambda: os.system("touch " + MARK), lambda: os.listdir(os.path.dirname(MARK))):
    try:
        attempt()
        SEEN.append("done")
    except (OSError, AttributeError) as error:
        SEEN.append(type(error).__name__)
PLATFORM = sys.platform
"""


def test_a_package_is_executed_in_guests_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither while an image is made of it, nor before the first run, does a line of it run here."""
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "data"))
    mark = tmp_path / "mark"
    package = tmp_path / "hostile_package"
    package.mkdir()
    (package / "__init__.py").write_text(f"MARK = {str(mark)!r}\n{HOSTILE}")
    (package / "setup.py").write_text(f"open({str(mark)!r}, 'w')")
    (package / "__main__.py").write_text(f"open({str(mark)!r}, 'w')")
    image = Image.build(packages=[package], warm_up="import hostile_package")
    look = Tool.from_source("def f():\n    import hostile_package as h\n    return [h.PLATFORM, *h.SEEN]\n")
    result = run_tool(look, image=image)
    assert result.error is None, result.error
    assert result.func_return[0] == "wasi"
    assert "done" not in result.func_return
    assert not mark.exists()
    assert "hostile_package" not in sys.modules


@pytest.mark.parametrize(
    "text",
    [
        "--index-url=http://x", "-r /etc/passwd", "-e .", "git+https://x/y", "lark @ file:///x.whl", "./lark.whl",
        "/tmp/lark.whl", "lark --no-index", "lark; import os", "lark\n--pre", "$(id)", "",
    ],
)  # fmt: skip
def test_a_requirement_is_a_name_and_never_an_option_a_path_or_an_address(text: str) -> None:
    with pytest.raises(PackageError, match=r"is no requirement|names an address"):
        parse_requirement(text)


# -- whatever a package requires, nothing is executed on the host, and no other address is asked -----------------

PYTHON = GuestPython(find_artifact())


class Trapped:
    """An index, a place that nobody may ask, and a source archive that tells when it is built."""

    def __init__(self, index: PackageIndex, elsewhere: PackageIndex, directory: Path) -> None:
        self.index = index
        self.elsewhere = elsewhere
        self.directory = directory
        self.mark = directory / "mark"
        self.trap = make_trap(directory / "outside", self.mark)
        elsewhere.add(self.trap)
        self.address = f"{elsewhere.url}/files/{self.trap.name}"

    def resolve(self, installer: str, *requirements: str, local: Sequence[Path] = ()) -> dict[str, Distribution]:
        wanted = [parse_requirement(text) for text in requirements]
        with Index(installer, PYTHON) as index:
            return resolve(wanted, [read_wheel(path) for path in local], PYTHON, index)

    def reference(self, text: str) -> str:
        """One of `REFERENCES`, to the trap."""
        return text.format(
            address=self.address, elsewhere=self.elsewhere.simple, path=self.trap, file_url=self.trap.as_uri()
        )

    def wheel_that_requires(self, text: str, name: str = "top") -> Path:
        """A wheel with a reference to the trap, which lies wherever it may be looked for."""
        here = self.directory / "here"
        (here / self.trap.name).write_bytes(self.trap.read_bytes())
        (here / "trap===..").mkdir(exist_ok=True)  # what the path as a version leads through
        return make_wheel(self.directory / "wheels", name, "1.0", requires=[self.reference(text)])

    def was_left_alone(self) -> bool:
        assert not self.mark.exists(), self.mark.read_text()
        assert self.elsewhere.requests == []
        return True


@pytest.fixture
def trapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trapped]:
    with serving() as index, serving() as elsewhere:
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        configure(monkeypatch, index, tmp_path)
        yield Trapped(index, elsewhere, tmp_path)


@pytest.fixture(params=["pip", "uv"])
def installer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "uv":
        uv_on_path(monkeypatch)
    return str(request.param)


REFERENCES = {
    "an address": "trap @ {address}",
    "an address without spaces": "trap@{address}",
    "an address with its hash": "trap @ {address}#sha256=00",
    "an address for the host alone": "trap @ {address} ; sys_platform != 'wasi'",
    "an address for an extra that nobody asks for": "trap @ {address} ; extra == 'never'",
    "an address for no Python": "trap @ {address} ; python_version < '3'",
    "an address with extras": "trap[more] @ {address}",
    "a file": "trap @ {file_url}",
    "a path as an address": "trap @ {path}",
    "a version control system": "trap @ git+{address}",
    "one that is local": "trap @ git+{file_url}",
    "a path": "{path}",
    "a path of here": "./trap-1.0.tar.gz",
    "an address alone": "{address}",
    "an option": "--find-links={elsewhere}",
    "an option after a name": "trap --index-url={elsewhere}",
    "an address as a version": "trap==={address}",
    "a path as a version": "trap===../../outside/trap-1.0.tar.gz",
    "a path as a version, for an extra": "trap===../../outside/trap-1.0.tar.gz ; extra == 'never'",
    "two lines": "trap\\n --index-url={elsewhere}",
}
"""What may be written in the place of a name with versions. It is refused by name, whenever it would count."""


@pytest.mark.parametrize("text", REFERENCES.values(), ids=REFERENCES)
def test_a_local_wheel_that_requires_anything_but_a_name_is_refused(trapped: Trapped, text: str) -> None:
    wheel = trapped.wheel_that_requires(text)
    for installer in ("pip", "uv"):  # neither is come to: it need not be there
        with pytest.raises(PackageError, match=r"top 1\.0 requires .*, which (is no requirement|names an address)"):
            trapped.resolve(installer, local=[wheel])
    with pytest.raises(PackageError, match=r"is no requirement|names an address"):
        parse_requirement(trapped.reference(text))
    assert trapped.was_left_alone()


@pytest.mark.parametrize(
    "which",
    ["an address", "an address for the host alone", "one that is local", "a path as a version", "an option"],
)
def test_a_wheel_of_the_index_that_requires_anything_but_a_name_is_refused(
    trapped: Trapped, installer: str, which: str
) -> None:
    trapped.index.add(trapped.wheel_that_requires(REFERENCES[which]))
    reason = r"top 1\.0 requires .*, which (is no requirement|names an address)|top has invalid metadata: "  # of pip's
    with pytest.raises(PackageError, match=reason):
        trapped.resolve(installer, "top")
    assert trapped.was_left_alone()


def test_no_installer_follows_what_a_wheel_requires(trapped: Trapped, installer: str) -> None:
    """The second line: what would be refused is downloaded here, and still leads nowhere."""
    for number, text in enumerate(REFERENCES.values()):
        trapped.index.add(trapped.wheel_that_requires(text, f"top{number}"))
    with Index(installer, PYTHON) as index:
        found = index.newest({f"top{number}": SpecifierSet() for number in range(len(REFERENCES))})
    assert sum(offer is not None for offer in found.values()) > len(REFERENCES) // 2
    assert trapped.was_left_alone()


def test_a_name_is_never_taken_for_a_file_that_is_here(trapped: Trapped, installer: str) -> None:
    names = ["trap-1.0.tar.gz", "trap-1.0.zip", "trap-1.0-py3-none-any.whl", "trap.tar", "trap==1.0+a.tar.gz"]
    for name in names:
        for place in (
            name,
            requirement_text(name.partition("=")[0], SpecifierSet(name[len(name.partition("=")[0]) :])),
        ):
            (trapped.directory / "here" / place).write_bytes(trapped.trap.read_bytes())
    for name in names:
        with pytest.raises(PackageError, match="cannot be had"):
            trapped.resolve(installer, name)
    assert trapped.was_left_alone()


def test_what_there_is_only_as_source_is_not_built(trapped: Trapped, installer: str) -> None:
    trapped.index.add(trapped.trap)
    trapped.index.add(make_wheel(trapped.directory / "wheels", "top", "1.0", requires=["trap"]))
    for requirement in ("trap", "trap==1.0", "top"):
        with pytest.raises(PackageError, match="there is no wheel for trap"):
            trapped.resolve(installer, requirement)
    assert trapped.was_left_alone()


SETTINGS = {
    **{"PIP_NO_BINARY": ":all:", "UV_NO_BINARY": "1", "UV_NO_BINARY_PACKAGE": "trap", "UV_NO_BUILD": "0"},
    **{"PIP_REQUIREMENT": "{listed}", "UV_REQUIREMENTS": "{listed}", "PIP_GROUP": "{tree}/pyproject.toml:evil"},
    **{"PIP_CONSTRAINT": "{listed}", "UV_CONSTRAINT": "{listed}", "UV_OVERRIDE": "{listed}"},
    **{"PIP_EDITABLE": "{tree}", "PIP_PYTHON": "{evil_python}", "UV_PYTHON": "{evil_python}"},
    **{"PIP_NO_BUILD_ISOLATION": "0", "UV_NO_BUILD_ISOLATION": "1", "PIP_NO_DEPS": "0", "PIP_DEST": "{tree}"},
}
"""Configuration that is somebody's own, and would have another thing done."""


@pytest.mark.parametrize("in_file", [False, True], ids=["variables", "file"])
def test_configuration_says_where_the_index_is_and_nothing_else(
    trapped: Trapped, installer: str, in_file: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = trapped.directory / "tree"
    with tarfile.open(trapped.trap) as archive:
        archive.extractall(trapped.directory, filter="data")
    (trapped.directory / "trap-1.0").rename(tree)
    listed = trapped.directory / "listed.txt"
    listed.write_text(f"trap @ {trapped.address}\n")
    evil_python = trapped.directory / "python"
    evil_python.write_text(f"#!/bin/sh\ntouch {trapped.mark}\n")
    evil_python.chmod(0o700)
    trapped.index.add(trapped.trap)
    trapped.index.add(make_wheel(trapped.directory / "wheels", "top", "1.0"))
    trapped.index.add(make_wheel(trapped.directory / "wheels", "trap", "0.5"))
    lines = []
    for name, value in SETTINGS.items():
        text = value.format(listed=listed, tree=tree, evil_python=evil_python)
        if not in_file:
            monkeypatch.setenv(name, text)
        elif name.startswith("PIP_"):
            lines.append(f"{name.removeprefix('PIP_').lower().replace('_', '-')} = {text}\n")
    with (trapped.directory / "pip.conf").open("a") as config:
        config.write("".join([*lines, "[download]\n", *lines]))
    found = trapped.resolve(installer, "top", "trap")
    assert {name: one.version for name, one in found.items()} == {"top": "1.0", "trap": "0.5"}
    assert trapped.was_left_alone()


def test_modules_of_the_current_directory_are_not_taken_for_the_installers(trapped: Trapped, installer: str) -> None:
    for name in ("pip", "json", "encodings", "packaging", "site", "sitecustomize"):
        package = trapped.directory / "here" / name
        package.mkdir()
        for file in ("__init__.py", "__main__.py"):
            (package / file).write_text(f"open({str(trapped.mark)!r}, 'a').write(__name__)")
    trapped.index.add(make_wheel(trapped.directory / "wheels", "top", "1.0"))
    assert list(trapped.resolve(installer, "top")) == ["top"]
    assert trapped.was_left_alone()


def test_the_installer_is_asked_for_names_and_never_for_what_they_require(trapped: Trapped, installer: str) -> None:
    """Also with a requirement that it would follow, nothing is asked for that was not resolved here."""
    for name, requires in {"top": ["middle", "gone ; sys_platform == 'linux'"], "middle": ["top"]}.items():
        trapped.index.add(make_wheel(trapped.directory / "wheels", name, "1.0", requires=requires))
    assert sorted(trapped.resolve(installer, "top")) == ["middle", "top"]
    asked = {path.strip("/").partition("/")[2].strip("/") for path in trapped.index.requests}
    assert not [path for path in asked if "gone" in path]


def test_the_trap_is_one(trapped: Trapped) -> None:
    """The same archive, given to pip as it is: its backend is executed."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", f"trap @ {trapped.address}"]
    subprocess.run(command, capture_output=True, check=False, cwd=trapped.directory)
    assert trapped.elsewhere.requests
    assert trapped.mark.exists()


# -- what an installer may take of this host -----------------------------------------------------------------------

MIB = 1 << 20


def test_a_wheel_that_unpacks_to_much_is_refused_by_way_of_an_installer(
    trapped: Trapped, installer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uv unpacks it before it can be looked at."""
    monkeypatch.setattr(commands, "MAX_DISK_BYTES", 32 * MIB)
    monkeypatch.setattr(wheels, "MAX_PACKAGE_BYTES", 8 * MIB)
    zeros = bytes(80 * MIB)
    path = trapped.directory / "a-1-py3-none-any.whl"
    path.write_bytes(wheel(Member("zeros.bin", zeros, DEFLATED)))
    trapped.index.add(path)
    with pytest.raises(PackageError, match=r"takes more than 8 MiB|more than 32 MiB|damaged"):
        trapped.resolve(installer, "a")


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of another process is bounded on Linux only")
def test_metadata_that_unpack_to_much_take_no_more_memory_than_an_installer_may_have(
    trapped: Trapped, installer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip reads them whole."""
    monkeypatch.setattr(commands, "MAX_PROCESS_BYTES", 160 * MIB)
    path = trapped.directory / "a-1-py3-none-any.whl"
    path.write_bytes(wheel(metadata="Metadata-Version: 2.1\nName: a\nVersion: 1\n\n" + "x" * (200 * MIB)))
    trapped.index.add(path)
    with pytest.raises(PackageError, match=r"MemoryError|memory allocation|more than 4 MiB of metadata"):
        trapped.resolve(installer, "a")


PROGRAMS = {
    "disk": ("open(sys.argv[1] + '/x', 'wb').write(bytes(4 << 20)); time.sleep(60)", "more than 1 MiB"),
    "disk, deeply": (
        "place = sys.argv[1] + '/a/b/c'; os.makedirs(place); open(place + '/x', 'wb').write(bytes(4 << 20));"
        "time.sleep(60)",
        "more than 1 MiB",
    ),
    "time": ("time.sleep(60)", "did not end in time"),
}


@pytest.mark.parametrize(("program", "reason"), PROGRAMS.values(), ids=PROGRAMS)
def test_an_installer_that_takes_too_much_is_ended(
    tmp_path: Path, program: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "MAX_DISK_BYTES", MIB)
    command = [sys.executable, "-c", f"import os, sys, time; {program}", str(tmp_path)]
    began = time.monotonic()
    with pytest.raises(PackageError, match=reason):
        commands.run(command, "it", os.environ, tmp_path, began + (3 if "time" in reason else 50))
    assert time.monotonic() - began < 40
