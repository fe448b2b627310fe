"""The verbs about images and the cache, as a new user types them; no network is needed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

from tests.support.packages import make_package
from wasm_sandbox.cli.app import cli
from wasm_sandbox.engine.compiled.cache import ImageCache

pytestmark = [pytest.mark.usefixtures("images_directory"), pytest.mark.timeout(300)]

WELCOME = "def text(name):\n    return f'Welcome, {name}!'\n"
TOOL = "def tool(name: str) -> str:\n    import welcome\n    return welcome.text(name)\n"


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


@pytest.fixture(scope="module")
def workplace(images_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with a package, a tool, a file; and the image ``welcomes`` made of them."""
    place = tmp_path_factory.mktemp("workplace")
    make_package(place / "welcome", {"__init__.py": f"MADE = '{uuid4()}'\n{WELCOME}"})  # never compiled before
    (place / "tool.py").write_text(TOOL)
    (place / "rates.csv").write_text("a,1\n")
    (place / "warm.py").write_text("import welcome\nwelcome.warm = True\n")
    done = invoke(
        "image", "build", "welcomes", "--package", str(place / "welcome"), "--preload", "welcome",
        "--file", f"/data/rates.csv={place / 'rates.csv'}", "--warm-up", str(place / "warm.py"),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert re.match(r"welcomes: image [0-9a-f]{12}\n", done.stdout)
    assert "compiling 1 files of packages" in done.stderr
    yield place
    assert invoke("image", "remove", "welcomes").exit_code == 0


def test_run_exec_and_warm_take_an_image(workplace: Path) -> None:
    done = invoke("run", str(workplace / "tool.py"), "--args", '{"name": "Ada"}', "--image", "welcomes")
    assert (done.exit_code, done.stdout) == (0, "Welcome, Ada!\n")
    (workplace / "script.py").write_text("import welcome\nprint(welcome.warm, open('/data/rates.csv').read())")
    assert invoke("exec", str(workplace / "script.py"), "--image", "welcomes").stdout == "True a,1\n\n"
    assert re.match(r"image [0-9a-f]{16} is ready", invoke("warm", "--image", "welcomes").stdout)


def test_list_and_show_say_sizes_and_the_memory_that_a_run_needs(workplace: Path) -> None:
    assert re.search(
        r"^welcomes  [0-9a-f]{12}  kept \S+ KiB, compiled \S+ MiB, memory \S+ MiB  no packages$",
        invoke("image", "list").stdout,
        re.MULTILINE,
    )
    shown = invoke("image", "show", "welcomes").stdout
    for line in (
        "names: welcomes",
        "preloaded: welcome",
        "files: /data/rates.csv",
        "a run needs: --memory 64M or more",
    ):
        assert line in shown
    described = json.loads(invoke("image", "show", "welcomes", "--json").stdout)
    assert described["needed_memory_bytes"] == 64 << 20
    assert described["compiled_bytes"] > described["kept_bytes"] > 0
    assert described in json.loads(invoke("image", "list", "--json").stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "{tool}", "--image", "nothing"], "there is no image 'nothing'"),
        (["run", "{tool}", "--requirement", "lark"], "wasm-sandbox image build lark lark"),
        (["run", "{tool}", "--image", "welcomes", "--requirement", "lark"], "the image welcomes lacks"),
        (["image", "show", "nothing"], "there is no image 'nothing'"),
        (["image", "remove", "nothing"], "there is no image 'nothing'"),
        (["image", "build", "a b"], "cannot name an image"),
        (["image", "build", "x", "pydantic<2"], "the guest has pydantic 2"),
        (["image", "build", "x", "--file", "/a"], "say where the file is"),
        (["image", "build", "x", "--package", "/no/such"], "no such package"),
        (["image", "build", "x", "--preload", "no_such_module"], "importing no_such_module failed"),
        (["image", "export", "welcomes", "--target", "z80", "out"], "'z80' is no target"),
        (["cache", "prune", "--older", "long"], "write a number of hours, days or weeks"),
        (["cache", "prune", "--max-size", "much"], "is no size"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_and_is_bad_usage(workplace: Path, arguments: list[str], message: str) -> None:
    done = invoke(*(argument.replace("{tool}", str(workplace / "tool.py")) for argument in arguments))
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback (most recent call last)" not in done.stderr.partition("failed with code")[0]


def test_a_stored_tool_keeps_its_requirements(workplace: Path) -> None:
    assert invoke("tool", "add", str(workplace / "tool.py"), "--requirement", "lark>=1").exit_code == 0
    assert json.loads(invoke("tool", "show", "tool", "--json").stdout)["pip_requirements"] == ["lark>=1"]
    done = invoke("run", "tool", "--args", '{"name": "x"}')
    assert (done.exit_code, "image build lark 'lark>=1'" in done.stderr) == (2, True)


def test_the_cache_is_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WASM_SANDBOX_CACHE_DIR", str(tmp_path / "cache"))
    cache = ImageCache()
    for age, key in enumerate(["new", "old", "oldest"]):
        cache.add(key, bytes(2 << 20))
        os.utime(cache.directory / f"{key}.json", (1e9 - age, 1e9 - age) if age else None)
    assert "3 compiled images, 6.0 MiB" in invoke("cache", "prune").stdout
    assert invoke("cache", "prune", "--max-size", "4M").stdout.startswith("removed oldest.cwasm (2.0 MiB)\n")
    assert invoke("cache", "prune", "--older", "30d").stdout.startswith("removed old.cwasm")
    assert "0 compiled images" in invoke("cache", "prune", "--all").stdout


def test_an_image_is_removed_with_all_that_is_kept_of_it(workplace: Path, images_directory: Path) -> None:
    made = invoke("image", "build", "short-lived", "--file", f"/x={workplace / 'rates.csv'}")
    assert made.exit_code == 0, made.output
    before = set((images_directory / "images").iterdir())
    assert invoke("image", "build", "second-name", "--file", f"/x={workplace / 'rates.csv'}").exit_code == 0
    assert "is still" in invoke("image", "remove", "second-name").stdout
    assert invoke("image", "remove", "short-lived").stdout == "short-lived: removed\n"
    assert len(before - set((images_directory / "images").iterdir())) == 2
    assert invoke("image", "show", "short-lived").exit_code == 2
