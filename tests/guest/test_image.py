"""Images: prepared once, the same everywhere, whatever state the cache is in."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import wasmtime

from wasm_sandbox.errors import ImageError
from wasm_sandbox.guest.artifact import find_artifact
from wasm_sandbox.guest.cache import DIRECTORY_VARIABLE, ImageCache
from wasm_sandbox.guest.engine import process_engine
from wasm_sandbox.guest.image import compile_key, image_id, load_image
from wasm_sandbox.guest.image_file import memory_part
from wasm_sandbox.guest.own_memory import OwnMemoryEngine
from wasm_sandbox.guest.preparation import pre_initialise
from wasm_sandbox.guest.settings import ENGINE_SETTINGS

PREPARE = """
import sys
from wasm_sandbox.guest.engine import process_engine
from wasm_sandbox import run_tool, Tool
steps = []
process_engine().image(steps.append)
result = run_tool(Tool.from_source("def one() -> int:\\n    return 1\\n"))
print(len(steps), result.func_return)
"""


def test_two_processes_that_race_prepare_the_image_once(tmp_path: Path) -> None:
    environ = {**os.environ, DIRECTORY_VARIABLE: str(tmp_path / "cache")}
    processes = [
        subprocess.Popen([sys.executable, "-c", PREPARE], env=environ, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = sorted(p.communicate(timeout=110)[0].split() for p in processes)
    assert [p.returncode for p in processes] == [0, 0]
    assert outputs == [["1", "1"], ["3", "1"]]  # steps told about (one is waiting for the other), result


def test_a_snapshot_is_the_same_every_time() -> None:
    module = find_artifact().read()
    scripts = ["import json, pydantic, random\nrandom.random()\nprint(id(object()), hash('x'))"]
    first, second = (hashlib.sha256(pre_initialise(module, ("json",), scripts).module()).hexdigest() for _ in range(2))
    assert first == second
    other = hashlib.sha256(pre_initialise(module, ("json", "csv"), scripts).module()).hexdigest()
    assert other != first


def test_the_identity_covers_the_warm_up_and_the_key_covers_the_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    artifact = find_artifact()
    identity = image_id(artifact)
    assert compile_key(identity) == compile_key(identity)
    monkeypatch.setattr("wasm_sandbox.guest.image.PRELOAD", ("json",))
    assert image_id(artifact) != identity
    key = compile_key(identity)
    with monkeypatch.context() as patch:
        patch.setitem(ENGINE_SETTINGS, "cranelift_opt_level", "none")
        assert compile_key(identity) != key
    assert compile_key(identity) == key
    assert compile_key(identity, counts_fuel=False) != key
    assert compile_key(identity, own_memory=True) != compile_key(identity, own_memory=False)
    monkeypatch.setattr("wasm_sandbox.guest.image.METERING_FORMAT", 0)
    assert compile_key(identity) != key


def test_a_damaged_compiled_image_is_prepared_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The preparation itself is replaced by the compiled image that is already there: it is slow, and tested above."""
    compiled = process_engine().image().path.read_bytes()
    prepared = []

    def prepare(*args: object) -> bytes:
        prepared.append(args)
        return compiled

    monkeypatch.setattr("wasm_sandbox.guest.preparation.prepare", prepare)
    cache = ImageCache(tmp_path / "cache")
    engine = type(process_engine().image().engine)()
    image = load_image(engine, cache=cache)
    assert len(prepared) == 1
    load_image(engine, cache=cache)
    assert len(prepared) == 1
    image.path.write_bytes(compiled[: len(compiled) // 2])
    load_image(engine, cache=cache)
    assert len(prepared) == 2


def test_an_entry_that_wasmtime_refuses_is_prepared_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = process_engine().image().path.read_bytes()
    monkeypatch.setattr("wasm_sandbox.guest.preparation.prepare", lambda *args: compiled)
    cache = ImageCache(tmp_path / "cache")
    engine = type(process_engine().image().engine)()
    key = compile_key(image_id(find_artifact()))
    cache.add(key, b"complete and recorded, but no compiled module")
    assert load_image(engine, cache=cache).path.read_bytes() == compiled


@pytest.mark.parametrize(
    ("preload", "scripts", "reason"),
    [
        (("no_such_module",), [], "No module named 'no_such_module'"),
        (("json",), ["raise ValueError('in the warm-up')"], "in the warm-up"),
        (("json",), ["import os; os._exit(3)"], "cannot be initialised"),
    ],
)
def test_a_guest_that_cannot_be_initialised_says_why(preload: tuple[str, ...], scripts: list[str], reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        pre_initialise(find_artifact().read(), preload, scripts)


def test_the_variant_without_fuel_is_made_from_the_memory_of_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = process_engine().image().engine
    if not isinstance(engine, OwnMemoryEngine):
        pytest.skip("the image's memory is in its module here")
    cache = ImageCache(tmp_path / "cache")
    cache.add(compile_key(image_id(find_artifact())), process_engine().image().path.read_bytes())
    steps: list[str] = []
    loaded = load_image(engine, steps.append, cache, counts_fuel=False)
    assert steps == ["unpacking the guest", "compiling for this machine"]  # and the guest is not started again
    ours, other = memory_part(loaded.path), memory_part(process_engine().image().path)
    assert ours is not None
    assert other is not None
    assert (ours.globals, ours.read(loaded.path)) == (other.globals, other.read(process_engine().image().path))


def test_a_module_that_is_no_guest_is_refused() -> None:
    with pytest.raises(ImageError, match="does not export"):
        pre_initialise(bytes(wasmtime.wat2wasm('(module (memory (export "memory") 1))')))
