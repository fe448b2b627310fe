"""Dask, Ray and joblib run our calls with no adapter: every result is that of the serial run, also when a worker dies.

Each engine is in a dependency group of its own (``pip install --group dask``), and runs in a process of its own: it
leaves threads and warnings behind.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(os.name != "posix", reason="workers are killed by a signal"),
]


def needs(module: str, group: str) -> pytest.MarkDecorator:
    """Skip a test where its engine is not installed."""
    missing = importlib.util.find_spec(module) is None
    return pytest.mark.skipif(missing, reason=f"needs {module}: pip install --group {group}")


COMMON = """
import json, os, signal, sys, time
from wasm_sandbox import Limits, Tool
from wasm_sandbox.parallel import SandboxExecutor, ToolCall, run_call

WORK = Tool.from_source('''
def work(n: int) -> dict[str, int]:
    total = 0
    for i in range(20_000):
        total = (total * 31 + i * n) % 1_000_003
    return {"n": n, "total": total}
''')
LIMITS = Limits(deterministic=True)
CALLS = [ToolCall(WORK, {"n": n}, LIMITS) for n in range(120)]

def plain(results):
    return [[result.status, result.func_return, result.usage.fuel] for result in results]

def tell(results, victims):
    serial = plain(map(run_call, CALLS))
    print(json.dumps({"same": plain(results) == serial, "count": len(serial), "killed": len(victims)}))
"""

DASK = """
def main():
    from dask.distributed import Client, LocalCluster
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "local_directory": sys.argv[1]}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        pids = client.run(os.getpid)
        futures = client.map(run_call, CALLS, pure=False)
        futures[10].result()
        victim = next(iter(pids.values()))
        os.kill(victim, signal.SIGKILL)
        results = client.gather(futures)
        tell(results, {victim})

if __name__ == "__main__":
    main()
"""

RAY_TASKS = """
def main():
    import ray
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=sys.argv[1])
    run = ray.remote(max_retries=5)(run_call)
    pid = ray.get(ray.remote(lambda: os.getpid()).remote())
    futures = [run.remote(call) for call in CALLS]
    ray.get(futures[10])
    os.kill(pid, signal.SIGKILL)
    results = ray.get(futures)
    tell(results, {pid})
    ray.shutdown()

if __name__ == "__main__":
    main()
"""

RAY_DATA = """
class Grader:
    def __call__(self, batch):
        results = [run_call(ToolCall(WORK, {"n": int(n)}, LIMITS)) for n in batch["n"]]
        return {"n": batch["n"], "total": [result.func_return["total"] for result in results]}

def main():
    import ray
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=sys.argv[1])
    rows = ray.data.from_items([{"n": n} for n in range(120)])
    found = rows.map_batches(Grader, batch_size=20, concurrency=1).take_all()
    totals = {row["n"]: row["total"] for row in found}
    serial = {call.args["n"]: run_call(call).func_return["total"] for call in CALLS}
    print(json.dumps({"same": totals == serial, "count": len(totals), "killed": 0}))
    ray.shutdown()

if __name__ == "__main__":
    main()
"""

JOBLIB = """
def main():
    from joblib import Parallel, delayed
    for backend in ("loky", "threading", "multiprocessing"):
        results = Parallel(n_jobs=2, backend=backend)(delayed(run_call)(call) for call in CALLS)
    tell(results, set())

if __name__ == "__main__":
    main()
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("program", "killed"),
    [
        pytest.param(DASK, 1, marks=needs("distributed", "dask"), id="dask"),
        pytest.param(RAY_TASKS, 1, marks=needs("ray", "ray"), id="ray"),
        pytest.param(RAY_DATA, 0, marks=needs("ray", "ray"), id="ray.data"),
        pytest.param(JOBLIB, 0, marks=needs("joblib", "joblib"), id="joblib"),
    ],
)
def test_an_engine_gives_the_results_of_the_serial_run(program: str, killed: int, tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(COMMON + program)
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    with tempfile.TemporaryDirectory() as directory:  # a short name: Ray has sockets there
        command = [sys.executable, str(file), directory]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"same": True, "count": 120, "killed": killed}
