"""Steps of an image's preparation that put packages into the guest's memory."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from wasm_sandbox.engine.compiled.steps import Step
from wasm_sandbox.engine.compiled.warm_up import closing_scripts

_IN_GUEST = Path(__file__).parents[2] / "inside" / "packages.py"
_CLIENT_SCRIPT = "import _sandbox_packages\n_sandbox_packages.leave_the_client_to_runs()\n"
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)


@cache
def installer() -> str:
    """Source of the guest's finder of modules that are in its memory; part of an image's identity."""
    return _IN_GUEST.read_text(encoding="utf-8")


def package_steps(packages: Mapping[str, bytes], preload: Sequence[str], warm_up: str) -> list[Step]:
    """Steps that put packages into the scratch instance's memory and import them.

    Args:
        packages: path below the packages' root -> contents.
        preload: modules to import, in order.
        warm_up: Python source to run after that.
    """
    archive = _archive(packages)
    steps = [Step(f"compiling {len(packages)} files of packages", _install_script(len(archive)), archive, True)]
    steps += [Step(f"importing {name}", _import_script(name), progress=True) for name in preload]
    if warm_up:
        steps.append(Step("the warm-up code", warm_up, progress=True))
    if "letta_client/__init__.py" in packages:
        steps.append(Step("the client of scripts", _CLIENT_SCRIPT))
    return [*steps, *(Step("a warm-up script", script) for script in closing_scripts())]


def _archive(packages: Mapping[str, bytes]) -> bytes:
    """Zip archive of the files, the same for the same files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path, data in sorted(packages.items()):
            archive.writestr(zipfile.ZipInfo(path, _TIMESTAMP), data, compresslevel=None)
    return buffer.getvalue()


def _install_script(size: int) -> str:
    return (
        "import sys, types\n"
        "_module = types.ModuleType('_sandbox_packages')\n"
        f"exec(compile({installer()!r}, '_sandbox_packages.py', 'exec'), _module.__dict__)\n"
        "sys.modules['_sandbox_packages'] = _module\n"
        f"_module.install({size})\n"
    )


def _import_script(name: str) -> str:
    return f"import _sandbox_packages\n_sandbox_packages.preload({json.dumps(name)})\n"
