"""Writes ``docs/packages.md``: an image for each case of `real_packages`, its tool run, its result compared.

    python -m tests.images.packages_table [PACKAGE...]

Takes about half a minute for each package, and needs the package index. With packages named it only tries those, and
writes nothing. Nothing is kept.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.images.real_packages import CASES, REFUSED, Case
from wasm_sandbox import Image, Tool, run_tool
from wasm_sandbox.errors import PackageError, SandboxError
from wasm_sandbox.images.loading import identity
from wasm_sandbox.images.store import ImageStore

DOCUMENT = Path(__file__).parents[2] / "docs" / "packages.md"

HEAD = """# Packages that run in a guest

Written by `python -m tests.images.packages_table`, which builds an image for each of these, runs a tool that
uses the package for what it is there for (`tests/images/real_packages.py`), and compares its result. Any other package
of pure Python that needs neither sockets, processes, threads nor ctypes is likely to run, too.

| package | versions | memory of the image | runs | remark |
| --- | --- | --- | --- | --- |
"""

MIDDLE = """
## Packages that cannot be had

A compiled wheel is refused, by name.

| package | why |
| --- | --- |
"""


def try_case(case: Case) -> tuple[str, bool]:
    """Build the case's image and run its tool: a row of the table, and whether it ran."""
    try:
        image = Image.build(list(case.requirements))
    except SandboxError as error:
        return f"| {case.name} | | | no | {' '.join(str(error).split())[:300]} |", False
    kept = ImageStore().kept(image.id, identity)
    result = run_tool(Tool.from_source(case.source), case.args, image=image, files=case.files)
    versions = ", ".join(f"{name} {version}" for name, version in image.distributions.items())
    ran = result.status == "success" and result.func_return == case.expected
    remark = case.remark if ran else f"returned {result.func_return!r}"[:300]
    memory = f"{kept.entry.memory_bytes >> 20} MiB"
    return f"| {case.name} | {versions} | {memory} | {'yes' if ran else 'no'} | {remark} |", ran


def main() -> None:
    chosen = [case for case in CASES if not sys.argv[1:] or set(sys.argv[1:]) & set(case.requirements)]
    rows, all_ran = [], True
    with tempfile.TemporaryDirectory() as directory:
        os.environ["WASM_SANDBOX_DATA_DIR"] = directory
        for case in chosen:
            row, ran = try_case(case)
            print(row, flush=True)
            rows.append(row)
            all_ran &= ran
        for name, _ in REFUSED:
            try:
                Image.build([name])
            except PackageError as error:
                print(f"{name}: refused: {error}")
            else:
                print(f"{name}: was NOT refused")
                all_ran = False
    if not sys.argv[1:] and all_ran:
        refused = "\n".join(f"| {name} | {why} |" for name, why in REFUSED)
        DOCUMENT.write_text(HEAD + "\n".join(rows) + "\n" + MIDDLE + refused + "\n", encoding="utf-8")
    sys.exit(0 if all_ran else 1)


if __name__ == "__main__":
    main()
