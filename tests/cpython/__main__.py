"""Run CPython's own tests in the guest, and compare what they come to with `expected.toml`.

A result is kept in ``build/cpython`` and taken again as long as neither the guest nor the library has changed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path

from tests.cpython.expected import Expectations, Expected
from tests.cpython.running import ModuleResult, run_module
from tests.cpython.sources import KEPT, ROOT, VARIABLE, NoSources, directory_of_tests, modules
from tests.cpython.wanted import all_of


def main() -> int:
    """Run what is asked for; 0 if all is as expected."""
    options = _parser().parse_args()
    try:
        tests = directory_of_tests(KEPT)
    except NoSources as problem:
        print(problem, file=sys.stderr)
        return 2
    known = all_of(modules(tests))
    if strange := sorted(set(options.modules) - set(known)):
        print(f"no such test modules: {', '.join(strange)}", file=sys.stderr)
        return 2
    expectations = Expectations.read()
    wanted = options.modules or known
    begin, total, fuel, wrong = time.monotonic(), 0, 0, []
    for result, is_kept in _results(tests, wanted, expectations, options.jobs, options.again):
        total += result.tests
        fuel += result.fuel
        if options.record:
            expectations.record(result)
        differences = expectations.differences(result)
        mark = "kept" if is_kept else f"{result.seconds:.1f} s"
        print(f"{result.module}: {result.tests} tests, {len(result.bad)} bad, {mark}", flush=True)
        for difference in differences:
            print(f"  {difference}", flush=True)
        if differences:
            wrong.append(result.module)
    if options.record:
        if not options.modules:
            expectations.modules = {name: expectations.modules[name] for name in known}
        expectations.write()
    elif not options.modules and (gone := sorted(set(expectations.modules) - set(known))):
        print(f"in the list, and not among the tests: {', '.join(gone)}")
        wrong += gone
    print(f"{len(wanted)} modules, {total} tests, {fuel / 1e9:.0f}e9 fuel, {time.monotonic() - begin:.0f} s")
    if wrong:
        print(f"not as expected: {', '.join(sorted(wrong))}")
    return bool(wrong)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.cpython", description=__doc__)
    parser.add_argument("modules", nargs="*", help="names without 'test.', such as test_json; all by default")
    parser.add_argument("--record", action="store_true", help="take the results for what is expected")
    parser.add_argument("--again", action="store_true", help="run also what has a kept result")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="modules at a time")
    parser.epilog = f"The tests are those of the source archive or directory that ${VARIABLE} names."
    return parser


def _results(
    tests: Path, wanted: list[str], expectations: Expectations, jobs: int, again: bool
) -> Iterator[tuple[ModuleResult, bool]]:
    """The result of each module as it comes, and whether it is a kept one."""
    with ProcessPoolExecutor(jobs) as pool:
        running = []
        for module in reversed(wanted):  # those on mounts take the longest
            expected = expectations.modules.get(module, Expected())
            kept = _place(module, expected)
            if kept.is_file() and not again:
                yield ModuleResult.read(kept), True
            else:
                running.append(pool.submit(_run, module, tests, expected))
        for future in as_completed(running):
            yield future.result(), False


def _run(module: str, tests: Path, expected: Expected) -> ModuleResult:
    result = run_module(module, tests, leave_out=list(expected.left_out), has=expected.has)
    result.write(_place(module, expected))
    return result


def _place(module: str, expected: Expected) -> Path:
    """Where the result of a module is kept: as it is run, in the library and guest that there are."""
    asked = repr((expected.has, sorted(expected.left_out)))
    return KEPT / _identity() / f"{module}-{hashlib.sha256(asked.encode()).hexdigest()[:8]}.json"


@cache
def _identity() -> str:
    """What the results come from: the guest, the library, and what runs the tests."""
    digest = hashlib.sha256((ROOT / "runtime" / "plain" / "artifact" / "guest.json").read_bytes())
    here = Path(__file__).parent
    for path in [*sorted((ROOT / "wasm_sandbox").rglob("*.py")), here / "inside.py", here / "running.py"]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
