"""Building images from local packages, with no network: what is in them, what they are called, what goes wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.packages import make_package, make_wheel
from wasm_sandbox import ErrorKind, Image, SandboxConfig, Tool, WasmToolSandbox, run_tool
from wasm_sandbox.engine.compiled import preparation
from wasm_sandbox.engine.engine import process_engine
from wasm_sandbox.errors import ImageError, ImageNotFound, PackageError
from wasm_sandbox.images.loading import identity
from wasm_sandbox.images.store import ImageStore

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

GREETING = {
    "__init__.py": "from greeting.words import hello\nimported = 0\n",
    "words.py": "def hello(name):\n    if not name:\n        raise ValueError('no')\n    return f'Hello, {name}!'\n",
    "later.py": "LATER = 'imported in the run'\n",
    "broken.py": "def (:\n",
    "data/words.txt": "one two",
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_package(tmp_path_factory.mktemp("packages") / "greeting", GREETING)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    namespace = {"family/one.py": b"ONE = 1\n"}
    return make_wheel(tmp_path_factory.mktemp("wheels"), "made-up", "1.2", requires=["pydantic>=2"], files=namespace)


@pytest.fixture(scope="module")
def arguments(package: Path, wheel: Path) -> dict[str, Any]:
    return {
        "packages": [package, wheel],
        "files": {"/data/rates.csv": b"a,1\n"},
        "warm_up": "import greeting\ngreeting.imported += 1\n",
    }


@pytest.fixture(scope="module")
def image(images_directory: Path, arguments: dict[str, Any]) -> Image:
    return Image.build(**arguments, name="local")


@pytest.fixture(scope="module")
def run(image: Image) -> Callable[..., Any]:
    """``run(body)``: what a tool of this body returns in the image."""

    def run_body(body: str) -> Any:
        lines = "".join(f"    {line}\n" for line in body.splitlines())
        result = run_tool(Tool.from_source(f"def tool():\n{lines}"), image=image)
        assert result.status == "success", result.func_return
        return result.func_return

    return run_body


def test_packages_are_imported_and_warmed_up_before_the_run(run: Callable[..., Any]) -> None:
    assert run("import sys\nreturn sorted({'greeting', 'made_up', 'greeting.later'} & {*sys.modules})") == [
        "greeting",
        "made_up",
    ]
    assert run("import greeting\ngreeting.imported += 1\nreturn greeting.imported") == 2
    assert run("import greeting\ngreeting.imported += 1\nreturn greeting.imported") == 2


def test_other_modules_are_imported_in_the_run(run: Callable[..., Any]) -> None:
    assert run("import greeting.later, family.one\nreturn greeting.later.LATER, family.one.ONE") == (
        "imported in the run",
        1,
    )
    assert run("import greeting\nreturn greeting.__file__, greeting.__path__") == (
        "/packages/greeting/__init__.py",
        ["/packages/greeting"],
    )


def test_the_files_of_a_package_can_be_read(run: Callable[..., Any]) -> None:
    assert run("import pkgutil\nreturn pkgutil.get_data('greeting', 'data/words.txt')") == b"one two"
    assert run(
        "from importlib.resources import files\n"
        "place = files('greeting') / 'data' / 'words.txt'\n"
        "return place.read_text(), sorted(entry.name for entry in files('greeting').iterdir())[:3]"
    ) == ("one two", ["__init__.py", "broken.py", "data"])
    assert run("import pkgutil, greeting\nreturn [m.name for m in pkgutil.iter_modules(greeting.__path__)]") == [
        "broken",
        "later",
        "words",
    ]


def test_the_metadata_of_a_distribution_can_be_read(run: Callable[..., Any]) -> None:
    assert run(
        "from importlib import metadata\n"
        "return metadata.version('Made_Up'), metadata.requires('made-up'), [str(f) for f in metadata.files('made-up')]"
    ) == (
        "1.2",
        ["pydantic>=2"],
        [
            "family/one.py",
            "made_up-1.2.dist-info/METADATA",
            "made_up-1.2.dist-info/WHEEL",
            "made_up.py",
            "made_up-1.2.dist-info/RECORD",
        ],
    )
    assert run(
        "from importlib import metadata\n"
        "metadata.entry_points()\n"
        "try:\n    metadata.version('nothing')\nexcept metadata.PackageNotFoundError:\n    return 'not there'"
    )


def test_tracebacks_show_the_lines_of_a_package(image: Image) -> None:
    result = run_tool(Tool.from_source("def tool():\n    import greeting\n    return greeting.hello('')"), image=image)
    assert result.error is not None
    assert result.error.traceback is not None
    assert 'File "/packages/greeting/words.py", line 3, in hello\n    raise ValueError' in result.error.traceback


def test_a_module_that_does_not_compile_says_so_where_it_is_imported(image: Image) -> None:
    result = run_tool(Tool.from_source("def tool():\n    import greeting.broken"), image=image)
    assert result.error is not None
    assert result.error.exception_name == "SyntaxError"


def test_the_files_of_an_image_are_there_in_every_run(run: Callable[..., Any]) -> None:
    assert run("return open('/data/rates.csv').read()") == "a,1\n"


def test_what_a_run_does_to_a_package_is_gone_in_the_next(run: Callable[..., Any]) -> None:
    assert run("import greeting\ngreeting.hello = None\nreturn True")
    assert run("import greeting\nreturn greeting.hello('Ada')") == "Hello, Ada!"


def test_the_default_image_has_none_of_it(image: Image) -> None:
    result = run_tool(Tool.from_source("def tool():\n    import greeting"))
    assert result.error is not None
    assert result.error.exception_name == "ModuleNotFoundError"


def test_the_same_inputs_give_the_same_image_at_once(image: Image, arguments: dict[str, Any]) -> None:
    steps: list[str] = []
    assert Image.build(**arguments, name="other-name", progress=steps.append).id == image.id
    assert steps == []
    assert Image.named("other-name").id == Image.named(image.id[:12]).id == image.id


def test_changed_inputs_give_another_image(
    image: Image, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, loaded = process_engine(), process_engine().image(source=image.source)
    monkeypatch.setattr(type(engine), "image", lambda *args, **more: loaded)  # only the ids count here
    changes: list[dict[str, Any]] = [
        {"packages": arguments["packages"][:1]},
        {"preload": ["greeting"]},
        {"files": {"/data/rates.csv": b"a,2\n"}},
        {"files": {"/data/other.csv": b"a,1\n"}},
        {"warm_up": ""},
    ]
    ids = [Image.build(**{**arguments, **change}).id for change in changes]
    assert len({image.id, *ids}) == len(changes) + 1


def test_an_image_is_used_by_name_everywhere(image: Image) -> None:
    tool = Tool.from_source("def tool():\n    import greeting\n    return greeting.hello('you')")
    config = SandboxConfig(image="local")
    assert run_tool(tool, image="local").func_return == "Hello, you!"
    assert run_tool(tool, sandbox_config=config).func_return == "Hello, you!"
    assert config.fingerprint() == SandboxConfig(config={"image": "local"}).fingerprint()
    assert config.fingerprint() != SandboxConfig().fingerprint()
    assert SandboxConfig(image=image).image == "local"


async def test_an_image_is_used_in_an_event_loop(image: Image) -> None:
    tool = Tool.from_source("def tool():\n    import greeting\n    return greeting.hello('you')")
    sandbox = WasmToolSandbox("tool", {}, None, None, tool_object=tool, image="local")
    assert (await sandbox.run()).func_return == "Hello, you!"


def test_an_unknown_name_is_said_with_those_that_there_are(image: Image) -> None:
    with pytest.raises(ImageNotFound, match=r"no image 'nothing' .*local.*wasm-sandbox image build nothing"):
        run_tool(Tool.from_source("def tool(): pass"), image="nothing")


def test_requirements_of_a_tool_are_met_by_an_image_or_by_what_is_built_in(image: Image) -> None:
    tool = Tool(name="tool", source_code="def tool():\n    import made_up\n    return made_up.VALUE")
    met = tool.model_copy(update={"pip_requirements": ["made-up>=1", {"name": "pydantic", "version": None}]})
    assert run_tool(met, image=image).func_return == 1
    unmet = tool.model_copy(update={"pip_requirements": [{"name": "made-up", "version": "7"}]})
    result = run_tool(unmet, image=image)
    assert result.error is not None
    assert result.error.message == "the image local lacks what the tool requires: made-up==7"
    built_in = Tool(name="tool", source_code="def tool():\n    return 1", pip_requirements=["pydantic>=2"])
    assert run_tool(built_in).func_return == 1


@pytest.mark.parametrize(
    ("requirements", "message"),
    [
        (["lark==1.2", {"name": "Some.Thing", "version": ">=2"}],
         "Make an image with it once: wasm-sandbox image build some-thing-lark 'Some.Thing>=2' lark==1.2"),
        (["--index-url=http://evil"], "is no requirement"),
        (["lark @ http://evil/lark.whl"], "names an address"),
        ([{"name": "pydantic", "version": "1.10"}], "the guest has pydantic 2"),
    ],
)  # fmt: skip
def test_requirements_that_are_not_met_are_refused_with_what_to_do(
    images_directory: Path, requirements: list[Any], message: str
) -> None:
    tool = Tool(name="tool", source_code="def tool(): pass", pip_requirements=requirements)
    result = run_tool(tool)
    assert result.error is not None
    assert (result.status, result.error.kind, result.error.exception_name) == (
        "error",
        ErrorKind.BAD_ARGUMENTS,
        "PackageError",
    )
    assert message in result.error.message


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"preload": ["no_such_module"]}, "importing no_such_module failed.*No module named"),
        ({"warm_up": "raise KeyError('in the warm-up')"}, "the warm-up code failed.*in the warm-up"),
        ({"packages": ["leaving.py"]}, "ends the interpreter"),
    ],
)
def test_an_image_that_does_not_come_up_says_why_and_is_not_kept(
    images_directory: Path, arguments: dict[str, Any], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "leaving.py").write_text("import sys\nsys.exit(0)\n")
    before = [kept.recipe for kept in ImageStore().all()]
    with pytest.raises(ImageError, match=f"(?s){reason}"):
        Image.build(**arguments)
    assert [kept.recipe for kept in ImageStore().all()] == before


def test_a_package_that_never_ends_to_import_is_stopped(
    images_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "PREPARE_SECONDS", 3.0)
    (tmp_path / "endless.py").write_text("while True: pass\n")
    with pytest.raises(ImageError, match="took more than 3 s"):
        Image.build(packages=[tmp_path / "endless.py"])


@pytest.mark.parametrize(
    ("arguments", "error", "reason"),
    [
        ({"name": "no name"}, ValueError, "cannot name an image"),
        ({"preload": ["a-b"]}, ValueError, "is no name of a module"),
        ({"files": {"relative": b""}}, ValueError, "no absolute path"),
        ({"files": {"/a/../b": b""}}, ValueError, "no absolute path"),
        ({"files": {"/a": "/no/such/file"}}, PackageError, "/no/such/file: cannot be read"),
        ({"warm_up": "\0"}, ValueError, "NUL"),
        ({"requirements": ["a b c"]}, PackageError, "is no requirement"),
        ({"packages": ["/no/such/package"]}, PackageError, "no such package"),
        ({"installer": "conda", "requirements": ["lark"]}, PackageError, "use pip or uv"),
    ],
)
def test_malformed_inputs_are_named(
    images_directory: Path, arguments: dict[str, Any], error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        Image.build(**arguments)


def test_what_is_kept_makes_the_same_image_without_its_sources(
    image: Image, arguments: dict[str, Any], tmp_path: Path
) -> None:
    copy = shutil.copytree(arguments["packages"][0], tmp_path / "greeting")
    store, kept = ImageStore(), ImageStore().kept("local", identity)
    shutil.rmtree(copy)
    contents = store.contents(kept.recipe)
    assert contents.packages["greeting/data/words.txt"] == b"one two"
    assert contents.files == {"/data/rates.csv": b"a,1\n"}
    kept.archive.write_bytes(kept.archive.read_bytes()[:-100])
    try:
        with pytest.raises(ImageError, match=r"build (the image|it) again"):
            store.contents(kept.recipe)
    finally:
        kept.archive.unlink()
        store.keep(kept.recipe, contents, kept.entry.inputs, kept.entry.memory_bytes)
