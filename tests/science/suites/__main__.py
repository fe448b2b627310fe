"""Run numpy's and pandas's own tests in the guest, and compare what they come to with `expected.toml`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from tests.cpython.expected import UNKNOWN, Expectations, Expected
from tests.cpython.running import ModuleResult
from tests.science.suites.running import image, run_file
from tests.science.suites.sources import PACKAGES, NoSources, directory_of, files, variable

PATH = Path(__file__).parent / "expected.toml"

HEAD = """\
# What numpy's and pandas's own tests come to in the guest; `python -m tests.science.suites` fails for whatever else it
# sees.
#
# `tests` are started, `skipped` of them skip themselves. `fails` are those that must fail, by reason; `varies` may do
# either; `left_out` are not started.
#
# Record anew: python -m tests.science.suites --record [FILE...]. That keeps reasons, gives a new failure the first
# reason whose pattern is found in what it said, and else "unknown", which is to be replaced by hand.
"""


def main() -> int:
    """Run what is asked for; 0 if all is as expected."""
    options = _parser().parse_args()
    expectations = Expectations.read(PATH)
    wanted: list[tuple[str, Path]] = []
    for package in PACKAGES:
        try:
            source = directory_of(package)
        except NoSources as problem:
            print(f"{package}: {problem}", file=sys.stderr)
            continue
        known = files(package, source)
        asked = [name for name in known if any(name.startswith(start) for start in options.files)]
        wanted += [(name, source) for name in (asked if options.files else known)]
    if not wanted:
        print("no such files of tests", file=sys.stderr)
        return 2
    image()  # built once, and not by each process
    begin, total, bad, wrong = time.monotonic(), 0, 0, []
    with ProcessPoolExecutor(options.jobs) as pool:
        running = []
        for name, source in wanted:
            left_out = list(expectations.modules.get(name, Expected()).left_out)
            running.append(pool.submit(run_file, name, source, left_out))
        for future in as_completed(running):
            result = future.result()
            total, bad = total + result.tests, bad + len(result.bad)
            if not _is_as_expected(result, expectations, options.record):
                wrong.append(result.module)
    print(f"{len(wanted)} files, {total} tests, {bad} bad, {time.monotonic() - begin:.0f} s")
    if wrong:
        print(f"not as expected: {', '.join(sorted(wrong))}")
    return bool(wrong)


def _is_as_expected(result: ModuleResult, expectations: Expectations, records: bool) -> bool:
    """Tell what a file came to, and record it if that is asked for."""
    if records:
        expectations.record(result)
        expectations.write(PATH, HEAD)
        recorded = expectations.modules[result.module].fails
        unknown = {name: said for name, (_, said) in result.bad.items() if recorded.get(name) == UNKNOWN}
        for name, said in unknown.items():
            print(f"  {name}: unknown\n{said.strip()}", flush=True)
    differences = expectations.differences(result)
    print(f"{result.module}: {result.tests} tests, {len(result.bad)} bad, {result.seconds:.1f} s", flush=True)
    for difference in differences:
        print(f"  {difference}", flush=True)
    return not differences


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.science.suites", description=__doc__)
    parser.add_argument("files", nargs="*", help="paths such as numpy/fft, or the start of them; all by default")
    parser.add_argument("--record", action="store_true", help="take the results for what is expected")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="files at a time")
    parser.epilog = f"The sources are those that {' and '.join(f'${variable(name)}' for name in PACKAGES)} name."
    return parser


if __name__ == "__main__":
    sys.exit(main())
