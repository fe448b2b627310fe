"""Limits of runs with numpy and pandas: memory, deadline and fuel end them in words, and nothing else."""

from __future__ import annotations

import time

import pytest

from wasm_sandbox import CodeResult, ErrorKind, Limits, run_code
from wasm_sandbox.engine import BUILT_IN_IMAGE, FLAVOUR_IMAGES, process_engine
from wasm_sandbox.limits import ROOM_BYTES

MIB = 1 << 20
HEAD = "import numpy as np, pandas as pd\n"


def ended(code: str, **limits: object) -> CodeResult:
    return run_code(HEAD + code, image="science", limits=Limits.model_validate(limits))


@pytest.mark.parametrize(
    "code",
    [
        "np.ones((10_000, 10_000))",
        "kept = [np.ones(10**6) for _ in range(1000)]",
        "np.sort(np.ones(2 * 10**7)[::-1])",
        "np.fft.fft(np.ones(2**22))",
        "np.unique(np.arange(10**7))",
        "np.linalg.svd(np.ones((4000, 4000)))",
        "np.random.default_rng(0).permutation(10**8)",
        "np.array(['a' * 10] * 10**7, dtype='T')",
        "pd.Series(['a'] * 10**7).str.upper()",
        "pd.DataFrame(np.ones((10**7, 2))).copy()",
        "pd.merge(*[pd.DataFrame({'a': np.zeros(9000, int)})] * 2)",
        "pd.DataFrame({'a': range(10**7)}).to_json()",
    ],
)
def test_want_of_memory_is_told_as_that(code: str) -> None:
    error = ended(code, timeout_seconds=60).error
    assert error is not None
    assert error.kind is ErrorKind.OUT_OF_MEMORY, error
    assert "raise Limits.memory_bytes, or hold less at once" in error.message or "StringDType" in error.message


def test_a_memory_error_of_numpys_can_be_caught() -> None:
    code = "try:\n    np.ones((10_000, 10_000))\nexcept MemoryError:\n    found = float(np.ones(3).sum())\nfound"
    assert ended(code).value == 3.0


def test_an_abort_of_another_cause_is_a_trap() -> None:
    error = ended("import os\nkept = np.ones(10**6)\nos.abort()").error
    assert error is not None
    assert error.kind is ErrorKind.GUEST_TRAP


def test_the_least_memory_is_that_of_the_image_with_room() -> None:
    engine = process_engine()
    science, plain = (engine.image(source) for source in (FLAVOUR_IMAGES["science"], BUILT_IN_IMAGE))
    assert science.needed_bytes > plain.needed_bytes
    assert science.needed_bytes >= science.memory_bytes + ROOM_BYTES
    error = ended("1", memory_bytes=science.needed_bytes - MIB).error
    assert error is not None
    assert error.kind is ErrorKind.OUT_OF_MEMORY
    assert f"at least {science.needed_bytes >> 20} MiB" in error.message
    assert ended("pd.DataFrame({'a': np.arange(9)}).a.sum()", memory_bytes=science.needed_bytes).value == 36


LONG = {
    "cumsum": "a = np.ones(10**7)\nwhile True:\n    a = a.cumsum()",
    "sort": "a = np.random.default_rng(0).random(2 * 10**7)\nwhile True:\n    np.sort(a)",
    "matmul": "a = np.ones((3000, 3000))\na @ a",
    "svd": "np.linalg.svd(np.ones((1500, 1500)))",
    "fft": "a = np.ones(2**20)\nwhile True:\n    np.fft.fft(a)",
    "normal": "r = np.random.default_rng(0)\nwhile True:\n    r.normal(size=10**7)",
    "extract": "s = pd.Series(['a1b22c333'] * 10**6)\nwhile True:\n    s.str.extract(r'(\\d+)\\D(\\d+)')",
    "groupby": "d = pd.DataFrame({'k': np.arange(10**6) % 999, 'v': 1.0})\nwhile True:\n    d.groupby('k').v.median()",
    "csv": "import io\nt = 'a,b\\n' + '1,2.5\\n' * 10**6\nwhile True:\n    pd.read_csv(io.StringIO(t))",
}


@pytest.mark.parametrize("name", LONG)
def test_long_loops_of_compiled_code_end_at_the_deadline(name: str) -> None:
    assert ended("1").value == 1  # the image is loaded
    started = time.monotonic()
    error = ended(LONG[name], timeout_seconds=0.5, memory_bytes=512 * MIB).error
    assert error is not None
    assert error.kind is ErrorKind.TIMEOUT, error
    assert time.monotonic() - started < 4  # a machine that is busy with other things


@pytest.mark.long  # compiles the image anew
def test_long_loops_end_at_the_deadline_where_no_fuel_is_counted() -> None:
    assert ended("1", fuel=None).value == 1
    for name, code in LONG.items():
        error = ended(code, timeout_seconds=0.5, fuel=None, memory_bytes=512 * MIB).error
        assert error is not None
        assert error.kind is ErrorKind.TIMEOUT, (name, error)


@pytest.mark.parametrize("name", LONG)
def test_long_loops_of_compiled_code_use_up_fuel(name: str) -> None:
    error = ended(LONG[name], fuel=50_000_000, timeout_seconds=60, memory_bytes=512 * MIB).error
    assert error is not None
    assert error.kind is ErrorKind.OUT_OF_FUEL, error


@pytest.mark.parametrize(
    "code",
    [
        "import io, pickle\nclass Evil:\n    def __reduce__(self):\n"
        "        return eval, ('open(\"/etc/passwd\").read()',)\n"
        "pd.read_pickle(io.BytesIO(pickle.dumps(Evil())))",
        'pd.eval(\'__import__("os").listdir("/etc")\')',
        "import io, pickle\nb = io.BytesIO()\nnp.save(b, np.array([{}], dtype=object))\nb.seek(0)\nnp.load(b)",
        "pd.read_csv('/etc/passwd')",
        "pd.read_csv('http://127.0.0.1:1/a.csv')",
        "pd.read_parquet('/etc/passwd')",
    ],
)
def test_readers_that_execute_or_fetch_reach_nothing_of_the_host(code: str) -> None:
    result = ended(code)
    assert result.error is not None
    assert result.error.kind is ErrorKind.TOOL_EXCEPTION, result.error
    assert "root:" not in f"{result.value} {result.error.message}"
