"""Exported images: run with no compiler, no writable directory and no home; refused if they are not what they say."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import wasmtime
from click.testing import CliRunner

from tests.support.packages import make_package
from wasm_sandbox import Image, Limits, Tool, run_code, run_tool
from wasm_sandbox.cli.app import cli
from wasm_sandbox.engine.binding.configuration import WASM_STACK_BYTES
from wasm_sandbox.engine.compiled import compiling
from wasm_sandbox.engine.engine import process_engine
from wasm_sandbox.engine.module.image_file import with_memory
from wasm_sandbox.engine.module.snapshot import Snapshot
from wasm_sandbox.errors import CacheError, ImageError
from wasm_sandbox.images import source_at
from wasm_sandbox.images.exported import CODE_NAME, FILES_NAME, MANIFEST_NAME, TARGETS, ExportedSource, this_target
from wasm_sandbox.images.exporting import export_image
from wasm_sandbox.request import ExecutionRequest
from wasm_sandbox.switches import IMAGE_VARIABLE
from wasm_sandbox.workers.pool import ProcessPool

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "serverless"

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]
posix_only = pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
as_root = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give files away and mount")


@pytest.fixture(scope="module")
def exported(images_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with a package of its own and a file, exported for this machine."""
    directory = tmp_path_factory.mktemp("exported")
    package = make_package(directory / "greeting", {"__init__.py": "def hello():\n    return 'Hello!'\n"})
    Image.build(packages=[package], files={"/data/x.txt": b"x"}, name="to-export")
    shutil.rmtree(package)  # what is kept is enough
    done = CliRunner().invoke(cli, ["image", "export", "to-export", str(directory / "image")])
    assert done.exit_code == 0, done.output
    assert f"use it with {IMAGE_VARIABLE}={directory / 'image'}" in done.stdout
    assert {path.name for path in (directory / "image").iterdir()} == {MANIFEST_NAME, CODE_NAME, FILES_NAME}
    return directory / "image"


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy to spoil."""
    yield shutil.copytree(exported, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy", ignore_errors=True)


SNAPSHOT = Snapshot(
    bytes(wasmtime.wat2wasm('(module (memory (export "memory") 1) (func (export "_start")))')), bytes(65536)
)


def _fitting_command() -> str | None:
    """The wasmtime command of the version of wasmtime's package, if it is on the path."""
    try:
        return compiling.check_compiler(None, "this machine")
    except ImageError:
        return None


def _environment(image: Path) -> dict[str, str]:
    """What a serverless host may leave of an environment."""
    path = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    return {IMAGE_VARIABLE: str(image), "HOME": "/nonexistent", **path}


def _run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


USE = """
from wasm_sandbox import Tool, run_tool
source = "def tool():\\n    import greeting\\n    return greeting.hello() + open('/data/x.txt').read()"
print(run_tool(Tool.from_source(source)).func_return)
"""


def test_it_is_the_default_image_where_there_is_no_home_and_no_cache(exported: Path) -> None:
    environment = _environment(exported)
    assert _run([sys.executable, "-c", USE], environment) == "Hello!x\n"
    if os.name == "posix":
        assert not Path("/nonexistent").exists()


@as_root
@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed")
def test_it_runs_on_a_root_that_cannot_be_written(exported: Path) -> None:
    script = (
        "mount --make-rprivate / && mount -o remount,ro,bind / && mount -t tmpfs -o ro tmpfs /tmp.ro 2>/dev/null; "
        f'! touch /written-by-a-test 2>/dev/null && exec {sys.executable} -c "$0"'
    )
    command = ["unshare", "--mount", "sh", "-c", script, USE]
    probe = subprocess.run([*command[:4], "mount -o remount,ro,bind /"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"no read-only root can be had here: {probe.stderr.strip()}")
    assert _run(command, _environment(exported)) == "Hello!x\n"


def test_worker_processes_run_it_too(exported: Path) -> None:
    quiet = "import logging\nlogging.disable()\n"  # a word on the filter that not every machine has
    code = quiet + USE.replace("(source))", '(source), isolation="process")')
    assert "process" in code
    again = code.splitlines()[-1]  # by a worker that has taken its rights from itself
    assert _run([sys.executable, "-c", code + again], _environment(exported)) == "Hello!x\nHello!x\n"
    if os.name == "posix":
        assert not Path("/nonexistent").exists()


def test_a_worker_has_the_exported_image_that_its_host_has_at_the_time(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import greeting\n[greeting.hello(), open('/data/x.txt').read()]"
    monkeypatch.setenv(IMAGE_VARIABLE, str(exported))
    limits = Limits(deterministic=True)
    thread, process = run_code(code, limits=limits), run_code(code, limits=limits, isolation="process")
    assert process.value == ["Hello!", "x"]
    assert (process.usage and process.usage.fuel) == (thread.usage and thread.usage.fuel)
    monkeypatch.delenv(IMAGE_VARIABLE)
    assert run_code(code, isolation="process").error is not None
    image = Image(ExportedSource(exported))
    assert run_code(code, image=image, isolation="process").value == ["Hello!", "x"]
    assert source_at(image.source.address, image.id) == image.source


@posix_only
def test_a_worker_checks_an_export_anew(copy: Path) -> None:
    image = Image(ExportedSource(copy))
    assert image.id  # the directory was read, and found to be good, by this process
    workers = ProcessPool()
    copy.chmod(0o777)
    try:
        future, _ = workers.start(ExecutionRequest("pass", {}, Limits()), source=image.source)
        with pytest.raises(CacheError, match="can be written by others"):
            future.result(60)
    finally:
        workers.close()


def test_no_compiler_runs(exported: Path) -> None:
    refuse = "import wasmtime\nwasmtime.Module.__init__ = None\n"
    assert _run([sys.executable, "-c", refuse + USE], _environment(exported)) == "Hello!x\n"


def test_what_is_in_it_meets_the_requirements_of_a_tool(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = json.loads((exported / MANIFEST_NAME).read_text())
    assert manifest["target"] == this_target()
    image = Image(ExportedSource(exported))
    assert run_tool(Tool.from_source("def tool():\n    import greeting\n    return 1"), image=image).func_return == 1


def test_scratch_files_are_beside_those_of_it(exported: Path) -> None:
    body = "open('/data/new', 'w').write('y')\n    return [open('/data/' + name).read() for name in ('x.txt', 'new')]"
    source = f"def tool():\n    {body}"
    result = run_tool(Tool.from_source(source), image=Image(ExportedSource(exported)))
    assert (result.error, result.files) == (None, None)
    assert result.func_return == ["x", "y"]


@posix_only
def test_the_example_handler_answers_from_a_read_only_directory(exported: Path) -> None:
    output = _run([sys.executable, str(EXAMPLE / "handler.py")], _environment(exported))
    assert json.loads(eval(output)["body"]) == {"status": "success", "value": 5, "stdout": []}


def test_the_dockerfile_uses_commands_and_files_that_there_are() -> None:
    text = (EXAMPLE / "Dockerfile").read_text()
    assert f"ENV {IMAGE_VARIABLE}=/image" in text
    (command,) = re.findall(r"wasm-sandbox image export (\S+)", text)
    assert f"COPY --from=build {command} /image" in text
    assert (EXAMPLE / "handler.py").exists()


def spoil_code(image: Path) -> None:
    with (image / CODE_NAME).open("r+b") as file:
        file.seek(1000)
        file.write(b"spoilt")


def spoil_files(image: Path) -> None:
    (image / "files.zip").write_bytes(b"spoilt")


def spoil_manifest(image: Path) -> None:
    (image / MANIFEST_NAME).write_text("{}")


def remove_manifest(image: Path) -> None:
    (image / MANIFEST_NAME).unlink()


def change(**fields: object) -> Callable[[Path], None]:
    def apply(image: Path) -> None:
        manifest = json.loads((image / MANIFEST_NAME).read_text())
        (image / MANIFEST_NAME).write_text(json.dumps({**manifest, **fields}))

    return apply


def replace_code(image: Path) -> None:
    (image / CODE_NAME).write_bytes(b"no code")
    change(code_sha256=hashlib.sha256(b"no code").hexdigest())(image)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_code, "image.cwasm is not what was exported"),
        (spoil_files, "files.zip is not what was exported"),
        (spoil_manifest, "image.json is damaged"),
        (remove_manifest, "holds no exported image"),
        (replace_code, "cannot be loaded on this machine"),
        (change(wasmtime="1.0.0"), "exported for wasmtime 1.0.0, and .* is installed"),
        (change(target="m68k-amiga"), f"exported for m68k-amiga, and this is {this_target()}"),
        (change(snapshot_format=0), "exported by another version of wasm-sandbox"),
        (shutil.rmtree, "holds no exported image .*No such file"),
    ],
)
def test_what_is_not_a_fitting_export_is_refused(copy: Path, spoil: Callable[[Path], None], reason: str) -> None:
    spoil(copy)
    with pytest.raises(ImageError, match=reason):
        run_tool(Tool.from_source("def tool(): pass"), image=_fresh(copy))


def _fresh(directory: Path) -> Image:
    """An image that the engine has not loaded yet, whatever its id is."""

    class Fresh(ExportedSource):
        @property
        def id(self) -> str:
            return str(directory)

    return Image(Fresh(directory))


@posix_only
@pytest.mark.parametrize("name", ["", CODE_NAME, MANIFEST_NAME])
def test_an_export_that_others_can_write_is_refused(copy: Path, name: str) -> None:
    (copy / name).chmod(0o777)
    with pytest.raises(CacheError, match=r"others can write|can be written by others"):
        run_tool(Tool.from_source("def tool(): pass"), image=_fresh(copy))


@as_root
def test_an_export_of_another_user_is_refused(copy: Path) -> None:
    os.chown(copy / CODE_NAME, 12345, 12345)
    with pytest.raises(CacheError, match="belongs to user 12345"):
        run_tool(Tool.from_source("def tool(): pass"), image=_fresh(copy))


def test_a_directory_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        export_image(None, this_target(), tmp_path, lambda words: None)


def test_an_unknown_target_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'z80' is no target .*x86_64-linux, aarch64-linux"):
        export_image(None, "z80", tmp_path / "x", lambda words: None)


@pytest.mark.parametrize("target", sorted(set(TARGETS) - {this_target()}))
def test_another_machine_needs_the_wasmtime_command(tmp_path: Path, target: str) -> None:
    with pytest.raises(ImageError, match=f"to compile for {target} .*the wasmtime command of version"):
        export_image(None, target, tmp_path / "x", lambda words: None, compiler="no-such-wasmtime")
    assert not (tmp_path / "x").exists()


@posix_only
def test_a_wasmtime_command_of_another_version_is_refused(tmp_path: Path) -> None:
    command = tmp_path / "wasmtime"
    command.write_text("#!/bin/sh\necho wasmtime 1.0.0\n")
    command.chmod(0o700)
    with pytest.raises(ImageError, match=r"wasmtime 1\.0\.0.*, and version \d+ is needed"):
        compiling.check_compiler(str(command), "aarch64-linux")


@posix_only
def test_the_wasmtime_command_is_told_what_the_engine_expects(tmp_path: Path) -> None:
    command = tmp_path / "wasmtime"
    told_to = f'echo "$@" > {tmp_path}/told'
    command.write_text(f'#!/bin/sh\n{told_to}\nfor last; do :; done\necho code > "${{last%.wasm}}.cwasm"\n')
    command.chmod(0o700)
    assert compiling.compile_for(SNAPSHOT, "aarch64-apple-darwin", str(command)) == b"code\n"
    assert "memory-init-cow" not in (tmp_path / "told").read_text()
    on_linux = compiling.compile_for(SNAPSHOT, "aarch64-unknown-linux-gnu", str(command))
    assert on_linux == with_memory(bytes(32), b"code\n", SNAPSHOT.memory)  # where linear memory is ours
    told = (tmp_path / "told").read_text()
    stack = f"max-wasm-stack={WASM_STACK_BYTES},async-stack-size={WASM_STACK_BYTES}"
    flags = f"-O opt-level=2 -C collector=drc -W threads=n,branch-hinting=y,{stack} -O memory-init-cow=n"
    assert told.startswith(f"compile --target aarch64-unknown-linux-gnu {flags} -o ")


@posix_only
@pytest.mark.skipif(_fitting_command() is None, reason="no wasmtime command of the version of wasmtime's package")
def test_what_the_wasmtime_command_compiles_is_loaded() -> None:
    code = compiling.compile_for(SNAPSHOT, TARGETS[this_target()], _fitting_command())
    wasmtime.Module.deserialize(process_engine().image().memory.engine, code)
