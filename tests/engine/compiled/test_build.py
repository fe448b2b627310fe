"""What a guest is, in one value; keys and preparation ask it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wasm_sandbox.engine.compiled.artifact import find_artifact
from wasm_sandbox.engine.compiled.build import Build
from wasm_sandbox.engine.engine import usual_builds
from wasm_sandbox.engine.memory.base import MemoryKind
from wasm_sandbox.engine.module.metering import Metering
from wasm_sandbox.engine.start.kind import StartKind
from wasm_sandbox.errors import HostError
from wasm_sandbox.switches import ENGINE_VARIABLE

IMAGE = "0123456789abcdef" * 4


def build(**changes: object) -> Build:
    usual = Build(find_artifact(), StartKind.REACTOR, Metering.FUEL, MemoryKind.KEPT)
    return replace(usual, **changes)  # type: ignore[arg-type]  # any field


def test_the_key_begins_with_the_image_and_differs_by_metering_memory_and_image() -> None:
    assert build().compile_key(IMAGE).startswith(f"{IMAGE[:16]}-")
    keys = {build(metering=m, memory=k).compile_key(IMAGE) for m in Metering for k in MemoryKind}
    assert len(keys) == len(Metering) * len(MemoryKind)
    assert build().compile_key(IMAGE) != build().compile_key(IMAGE[::-1])


def test_the_key_of_the_code_is_the_artifacts_and_no_images() -> None:
    other = replace(find_artifact(), sha256="f" * 64)
    assert len(build().code_key) == 32
    assert build().code_key == build().code_key
    assert build(artifact=other).code_key != build().code_key
    assert build(artifact=other).compile_key(IMAGE) == build().compile_key(IMAGE)  # an image's id covers it


@pytest.mark.parametrize(
    ("start", "memory", "apart"),
    [
        (StartKind.REACTOR, MemoryKind.KEPT, True),
        (StartKind.REACTOR, MemoryKind.WASMTIME, False),
        (StartKind.COMMAND, MemoryKind.KEPT, False),
    ],
)
def test_memory_is_beside_the_code_where_it_is_kept_and_there_is_a_snapshot(
    start: StartKind, memory: MemoryKind, apart: bool
) -> None:
    assert build(start=start, memory=memory).keeps_memory_apart is apart


def test_the_plain_engine_has_wasmtimes_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENGINE_VARIABLE, "plain")
    builds = usual_builds(find_artifact())
    assert {one.memory for one in builds} == {MemoryKind.WASMTIME}
    assert [one.metering for one in builds] == [Metering.FUEL, Metering.DEADLINE]


def test_a_switch_that_means_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENGINE_VARIABLE, "fancy")
    with pytest.raises(HostError, match="WASM_SANDBOX_ENGINE is 'fancy': set it to \"plain\", or leave it unset"):
        usual_builds(find_artifact())
