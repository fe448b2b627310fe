"""Images: prepared once, the same everywhere, whatever state the cache is in."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from unittest.mock import Mock

import pytest
import wasmtime

from tests.support.engines import cache_with_code
from tests.support.processes import python
from wasm_sandbox.directories import CACHE_VARIABLE
from wasm_sandbox.engine.binding.configuration import ENGINE_SETTINGS
from wasm_sandbox.engine.compiled import preparation
from wasm_sandbox.engine.compiled.artifact import find_artifact
from wasm_sandbox.engine.compiled.build import Build
from wasm_sandbox.engine.compiled.built_in import BUILT_IN_IMAGE
from wasm_sandbox.engine.compiled.cache import ImageCache
from wasm_sandbox.engine.compiled.identity import image_id
from wasm_sandbox.engine.compiled.loaded import LoadedImage
from wasm_sandbox.engine.compiled.loading import Loader
from wasm_sandbox.engine.compiled.preparation import pre_initialise
from wasm_sandbox.engine.compiled.steps import Step
from wasm_sandbox.engine.engine import process_engine, usual_builds
from wasm_sandbox.engine.memory.base import LinearMemory, MemoryKind
from wasm_sandbox.engine.module.binary import MalformedModule
from wasm_sandbox.engine.module.image_file import image_parts
from wasm_sandbox.engine.module.metering import Metering
from wasm_sandbox.engine.module.snapshot import Snapshot
from wasm_sandbox.errors import ImageError

pytestmark = pytest.mark.long

PREPARE = """
import sys
from wasm_sandbox.engine.engine import process_engine
from wasm_sandbox import run_tool, Tool
steps = []
process_engine().image(progress=steps.append)
result = run_tool(Tool.from_source("def one() -> int:\\n    return 1\\n"))
print(len(steps), result.func_return)
"""


def test_two_processes_that_race_prepare_the_image_once(tmp_path: Path) -> None:
    environ = {**os.environ, CACHE_VARIABLE: str(cache_with_code(tmp_path / "cache").directory)}
    with ExitStack() as stack:
        processes = [stack.enter_context(python("-c", PREPARE, env=environ)) for _ in range(2)]
        outputs = sorted(p.communicate(timeout=110)[0].split() for p in processes)
    assert [p.returncode for p in processes] == [0, 0]
    is_kept = usual_builds(find_artifact())[0].keeps_memory_apart
    prepared = "2" if is_kept else "3"  # without compiling, or with it
    assert outputs == [["1", "1"], [prepared, "1"]]  # steps told about (one is waiting for the other), result


def memory_of(path: Path) -> bytes:
    parts = image_parts(path)
    assert parts is not None
    return parts.read_memory(path)


def code_of(path: Path) -> bytes:
    parts = image_parts(path)
    assert parts is not None
    return parts.read_code(path)


def own_memory() -> LinearMemory:
    memory = process_engine().image().memory
    if memory.kind is not MemoryKind.KEPT:
        pytest.skip("the image's memory is in its module here")
    return memory


def fresh_memory() -> LinearMemory:
    """Another engine of the kind that this system gets."""
    return type(process_engine().image().memory)()


def compile_key(build: Build | None = None) -> str:
    """Of the default image, as this process has it."""
    return (build or usual_builds(find_artifact())[0]).compile_key(image_id(find_artifact()))


Initialise = Callable[..., Snapshot]
SCRIPT = "import json, pydantic, random\nrandom.random()\nprint(id(object()), hash('x'))"


@lru_cache
def expected_snapshot() -> Snapshot:
    return pre_initialise(find_artifact().read(), ("json",), [SCRIPT])


@pytest.fixture(params=["compiled for this use", "in the compiled code of the image"])
def initialise(request: pytest.FixtureRequest) -> Initialise:
    """Both ways to start the built guest before its snapshot."""
    built = find_artifact().read()
    if request.param == "compiled for this use":
        return partial(pre_initialise, built)
    return partial(pre_initialise, built, compiled=(own_memory(), code_of(process_engine().image().path)))


def test_a_snapshot_is_the_same_every_time_and_however_the_guest_was_compiled(initialise: Initialise) -> None:
    assert initialise(("json",), [SCRIPT]) == expected_snapshot()
    assert initialise(("json", "csv"), [SCRIPT]).memory != expected_snapshot().memory


def test_the_identity_covers_the_warm_up_and_the_key_covers_the_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    artifact = find_artifact()
    identity = image_id(artifact)
    usual, without_fuel = usual_builds(artifact)
    key = compile_key()
    assert compile_key() == key
    with monkeypatch.context() as patch:
        patch.setattr("wasm_sandbox.engine.compiled.identity.PRELOAD", ("json",))
        assert image_id(artifact) != identity
        assert compile_key() != key
    with monkeypatch.context() as patch:
        patch.setitem(ENGINE_SETTINGS, "cranelift_opt_level", "none")
        assert compile_key() != key
    assert compile_key() == key
    assert compile_key(without_fuel) != key
    assert len({compile_key(replace(usual, metering=metering)) for metering in Metering}) == len(Metering)
    assert len({compile_key(replace(usual, memory=kind)) for kind in MemoryKind}) == len(MemoryKind)
    monkeypatch.setattr("wasm_sandbox.engine.compiled.build.METERING_FORMAT", 0)
    assert compile_key() != key


def test_a_damaged_compiled_image_is_prepared_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The preparation itself is replaced by the compiled image that is already there: it is slow, and tested above."""
    compiled = process_engine().image().path.read_bytes()
    prepared = []

    def prepare(*args: object) -> bytes:
        prepared.append(args)
        return compiled

    monkeypatch.setattr("wasm_sandbox.engine.compiled.preparation.prepare", prepare)
    cache = ImageCache(tmp_path / "cache")
    loader = Loader(fresh_memory(), cache=cache)
    image = BUILT_IN_IMAGE.load(loader)
    assert len(prepared) == 1
    BUILT_IN_IMAGE.load(loader)
    assert len(prepared) == 1
    image.path.write_bytes(compiled[: len(compiled) // 2])
    BUILT_IN_IMAGE.load(loader)
    assert len(prepared) == 2


def test_an_entry_that_wasmtime_refuses_is_prepared_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = process_engine().image().path.read_bytes()
    monkeypatch.setattr("wasm_sandbox.engine.compiled.preparation.prepare", lambda *args: compiled)
    cache = ImageCache(tmp_path / "cache")
    cache.add(compile_key(), b"complete and recorded, but no compiled module")
    assert BUILT_IN_IMAGE.load(Loader(fresh_memory(), cache=cache)).path.read_bytes() == compiled


@pytest.mark.parametrize(
    ("preload", "scripts", "reason"),
    [
        (("no_such_module",), [], "No module named 'no_such_module'"),
        (("json",), ["raise ValueError('in the warm-up')"], "in the warm-up"),
        (("json",), ["import os; os._exit(3)"], "cannot be initialised"),
    ],
)
def test_a_guest_that_cannot_be_initialised_says_why(
    preload: tuple[str, ...], scripts: list[str], reason: str, initialise: Initialise
) -> None:
    with pytest.raises(ImageError, match=reason):
        initialise(preload, scripts)


@pytest.mark.parametrize("script", ["while True: pass", "import time\nwhile True: time.sleep(0.01)"])
def test_a_guest_that_never_ends_to_start_is_stopped(
    script: str, initialise: Initialise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wasm_sandbox.engine.compiled.preparation.PREPARE_SECONDS", 2.0)
    with pytest.raises(ImageError, match=r"it took more than 2 s; it said: still here"):
        initialise(("json",), ["import sys; print('still here', file=sys.stderr)", script])


def test_a_guest_that_takes_all_memory_to_start_is_stopped(
    initialise: Initialise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wasm_sandbox.engine.compiled.preparation.MAX_SCRATCH_BYTES", 64 << 20)
    with pytest.raises(ImageError, match="MemoryError"):
        initialise(("json",), ["x = bytearray(1 << 30)"])


STARTED = """(module
  (memory (export "memory") 1) (table (export "__indirect_function_table") 2 funcref)
  (global $n (export "n") (mut i32) (i32.const 5))
  (elem (i32.const 0) $zero)
  (func $zero (export "_initialize") (CHANGE))
  (func (export "sandbox_alloc") (param i32) (result i32) (i32.const 64))
  (func (export "sandbox_init") (param i32) (result i32) (i32.store (i32.const 32) (i32.const -1)) (i32.const 0))
  (func (export "sandbox_run") (param i32) (result i32) (i32.const 0))
  (func (export "sandbox_seal") (result i32) (i32.const 0)))"""


@pytest.mark.parametrize("change", ["global.set $n (i32.const 6)", "table.set (i32.const 1) (ref.func $zero)"])
def test_a_guest_whose_start_changes_more_than_its_memory_is_refused(change: str) -> None:
    module = STARTED.replace("CHANGE", "nop")
    assert pre_initialise(bytes(wasmtime.wat2wasm(module)), scripts=[]).memory[32:40] == b"\xff" * 4 + bytes(4)
    module = STARTED.replace("CHANGE", change)
    with pytest.raises(ImageError, match="changed the function table or a global"):
        pre_initialise(bytes(wasmtime.wat2wasm(module)), scripts=[])


def test_an_image_takes_the_code_of_another_one_of_its_guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, default = own_memory(), process_engine().image()
    cache = cache_with_code(tmp_path / "cache")
    told: list[str] = []
    loader = Loader(memory, Metering.FUEL, told.append, cache)

    def load(identity: str) -> LoadedImage:
        told.clear()
        return loader.prepared(identity, lambda: [Step("a step", "import csv")], {})

    loaded = load("another")
    assert told == ["unpacking the guest", "starting CPython and importing its library"]  # and nothing is compiled
    assert code_of(loaded.path) == code_of(default.path)
    assert memory_of(loaded.path) != memory_of(default.path)

    with cache.path("another-image").open("r+b") as file:  # a damaged one is not taken
        file.write(b"x")
    loaded.path.unlink()
    monkeypatch.setattr(preparation, "meter", Mock(side_effect=MalformedModule("it would be compiled")))
    with pytest.raises(ImageError, match="it would be compiled"):
        load("a third one")


def test_the_variant_without_fuel_is_made_from_the_memory_of_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = own_memory()
    cache = cache_with_code(tmp_path / "cache", Metering.DEADLINE)
    cache.add(compile_key(), process_engine().image().path.read_bytes())
    steps: list[str] = []
    loaded = BUILT_IN_IMAGE.load(Loader(memory, Metering.DEADLINE, steps.append, cache))
    assert steps == []  # the guest is not started again
    assert memory_of(loaded.path) == memory_of(process_engine().image().path)
    assert code_of(loaded.path) == code_of(process_engine().image(metering=Metering.DEADLINE).path)
    assert code_of(loaded.path) != code_of(process_engine().image().path)


def test_a_module_that_is_no_guest_is_refused() -> None:
    with pytest.raises(ImageError, match="does not export"):
        pre_initialise(bytes(wasmtime.wat2wasm('(module (memory (export "memory") 1))')))
