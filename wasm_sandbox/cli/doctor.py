"""Whether this host can run guests: what is installed, where things are, and checks that try it. It prints nothing."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import wasm_sandbox
from wasm_sandbox import engine, images, sandbox, workers
from wasm_sandbox.directories import CACHE_VARIABLE, cache_ceiling, cache_directory
from wasm_sandbox.errors import HostError
from wasm_sandbox.switches import ENGINE_VARIABLE, IMAGE_VARIABLE

if TYPE_CHECKING:
    from wasm_sandbox.options import Isolation

PROCESSORS = frozenset({"x86_64", "amd64", "aarch64", "arm64"})
"""Those that both wasmtime's wheels and its compiler are for."""

IMAGE_BYTES = 200 << 20
"""Free space that preparing an image asks for: the image, its temporary copy, and some room."""


@dataclass(frozen=True)
class Check:
    """One thing that was tried."""

    name: str
    ok: bool
    detail: str
    """What was found; on a failure, what to do as well."""


class NotFit(Exception):
    """A check failed; the message says what was found and what to do."""


@dataclass
class Report:
    """What `examine` found."""

    versions: dict[str, str]
    platform: dict[str, str]
    engine: dict[str, str] = field(default_factory=dict)
    """Mechanisms of the engine that have a plain twin, and the switch if it is set."""
    guest: dict[str, Any] = field(default_factory=dict)
    image: dict[str, Any] = field(default_factory=dict)
    cache: dict[str, Any] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)

    @property
    def fit(self) -> bool:
        """Whether guests can run here."""
        return all(check.ok for check in self.checks)

    def to_json(self) -> str:
        """One JSON document."""
        return json.dumps({"fit": self.fit, **asdict(self)}, indent=2) + "\n"

    def to_text(self) -> str:
        """The same for a reader."""
        lines: list[str] = []
        for title in ("versions", "platform", "engine", "guest", "image", "cache"):
            if section := getattr(self, title):
                lines += [title, *_indented(section)]
        lines.append("checks")
        lines += [f"  {'ok  ' if check.ok else 'FAIL'} {check.name}: {check.detail}" for check in self.checks]
        lines.append("this host is fit" if self.fit else "this host is not fit: see FAIL above")
        return "\n".join(lines) + "\n"


def examine(prepare: Callable[[], images.Prepared]) -> Report:
    """Look at everything and try it: one trivial guest is run, after preparing the image if need be.

    Args:
        prepare: what prepares the default image, as `images.prepare` does, in sight of the user or not.
    """
    report = Report(versions=_versions(), platform=_platform())
    found = _Examination(report, prepare)
    for name, check in found.steps():
        try:
            report.checks.append(Check(name, ok=True, detail=check()))
        except (NotFit, HostError) as error:
            report.checks.append(Check(name, ok=False, detail=str(error)))
        except Exception as error:  # whatever it is, it is what makes this host unfit
            report.checks.append(Check(name, ok=False, detail=f"{type(error).__name__}: {error}"))
    return report


class _Examination:
    """The checks in order; a later one needs what an earlier one found, and fails shortly without it."""

    def __init__(self, report: Report, prepare: Callable[[], images.Prepared]) -> None:
        self.report = report
        self._prepare = prepare
        self.artifact: engine.Artifact | None = None
        self.cache: engine.ImageCache | None = None

    def steps(self) -> list[tuple[str, Callable[[], str]]]:
        image = [("cache directory", self.cache_directory), ("compiled image", self.compiled_image)]
        if os.environ.get(IMAGE_VARIABLE):
            image = [("exported image", self.exported_image)]
        return [
            ("python", self.python),
            ("processor", self.processor),
            ("wasmtime", self.wasmtime),
            ("guest module", self.guest_module),
            ("guests of other images", self.other_guests),
            *image,
            ("trial run", self.trial_run),
            ("worker process", self.worker_process),
        ]

    def python(self) -> str:
        if sys.maxsize < 1 << 32:
            raise NotFit("this Python is a 32-bit one; a guest needs 4 GiB of addresses: use a 64-bit Python")
        return f"{platform.python_version()}, 64-bit"

    def processor(self) -> str:
        machine = platform.machine()
        if machine.lower() not in PROCESSORS:
            raise NotFit(f"{machine} is not supported; use one of {', '.join(sorted(PROCESSORS))}")
        return machine

    def wasmtime(self) -> str:
        if switch := os.environ.get(ENGINE_VARIABLE):
            self.report.engine["switch"] = f"{ENGINE_VARIABLE}={switch}"
        try:
            process_engine = engine.process_engine  # loads it
        except Exception as error:
            raise NotFit(f"wasmtime does not load: {error}; reinstall it, or install its version 50") from error
        for name, what in process_engine().mechanisms.items():
            self.report.engine[name.replace(" ", "_")] = what
        return self.report.versions["wasmtime"]

    def guest_module(self) -> str:
        artifact = engine.find_artifact()
        self.report.guest.update(
            path=str(artifact.path),
            sha256=artifact.sha256,
            compressed_bytes=artifact.compressed_bytes,
            module_bytes=artifact.size_bytes,
            versions=artifact.versions,
        )
        artifact.read()
        self.artifact = artifact
        return "sha256 verified"

    def other_guests(self) -> str:
        """Read the modules of the images that are built in beside the default one."""
        found = []
        for name, image in engine.FLAVOUR_IMAGES.items():
            artifact = engine.find_artifact(name)
            artifact.read()
            self.report.guest[name] = {"sha256": artifact.sha256, "compressed_bytes": artifact.compressed_bytes}
            parts = ", ".join(f"{part} {version}" for part, version in image.distributions.items())
            found.append(f"{name} ({parts}): sha256 verified")
        return "; ".join(found)

    def cache_directory(self) -> str:
        self.report.cache.update(path=str(cache_directory()), variable=CACHE_VARIABLE)
        cache = engine.ImageCache()
        try:
            with tempfile.TemporaryFile(dir=cache.directory) as file:
                file.write(b"x")
        except OSError as error:
            raise NotFit(
                f"{cache.directory} cannot be written ({error.strerror}): make it writable, "
                f"or name another one in {CACHE_VARIABLE}"
            ) from error
        free = shutil.disk_usage(cache.directory).free
        entries = cache.entries()
        self.report.cache.update(
            path=str(cache.directory),
            images=len(entries),
            used_bytes=sum(entry.size_bytes for entry in entries),
            ceiling_bytes=cache_ceiling(),
            free_bytes=free,
        )
        self.cache = cache
        return "private and writable"

    def compiled_image(self) -> str:
        if self.artifact is None or self.cache is None:
            raise NotFit("not looked at: it needs the guest module and the cache directory")
        found = images.compiled_default()
        self.report.image.update(id=found.id, path=str(found.path))
        if found.is_there and not found.is_whole:
            raise NotFit(f"{found.path} is not what was written there: delete it, and the next run prepares it again")
        free = self.report.cache["free_bytes"]
        if not found.is_there and free < IMAGE_BYTES:
            raise NotFit(f"{self.cache.directory} has {free >> 20} MiB free, {IMAGE_BYTES >> 20} are needed")
        started = time.monotonic()
        self._prepare_image()
        seconds = time.monotonic() - started
        return "sha256 verified" if found.is_there else f"prepared now, in {seconds:.1f} s"

    def exported_image(self) -> str:
        source = images.exported_source()
        assert source is not None  # asked for by the variable that it reads
        self.report.image.update(id=source.id, path=str(source.directory), packages=dict(source.distributions))
        self._prepare_image()
        return f"sha256 verified, for {source.manifest.target}"

    def _prepare_image(self) -> None:
        image = self._prepare()
        self.report.image.update(compiled_bytes=image.path.stat().st_size, memory_bytes=image.memory_bytes)

    def trial_run(self) -> str:
        return self._trial("thread")

    def worker_process(self) -> str:
        """Say what there is: a host without worker processes is fit for everything else."""
        try:
            ran = self._trial("process")
        except HostError as error:
            return f'isolation="process" cannot be used: {error}'
        worker = workers.process_pool().workers[0]
        lacking = [f"without {what}" for what in worker.lacking]
        return "; ".join([ran, "with " + ", ".join(worker.restrictions), *lacking])

    def _trial(self, isolation: Isolation) -> str:
        if "compiled_bytes" not in self.report.image:
            raise NotFit("not tried: it needs the compiled image")
        limits = wasm_sandbox.Limits(timeout_seconds=30)
        output = sandbox.run_script("print(6 * 7)", name="trial.py", environ={}, limits=limits, isolation=isolation)
        if output.stdout != b"42\n" or output.result.usage is None:
            reason = output.result.error.message if output.result.error else f"it printed {output.stdout!r}"
            raise NotFit(f"a guest that prints 42 did not: {reason}")
        return f"a guest ran in {output.result.usage.wall_seconds * 1000:.1f} ms"


def _versions() -> dict[str, str]:
    found = {"wasm-sandbox": wasm_sandbox.__version__, "python": platform.python_version()}
    for package in ("wasmtime", "pydantic"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _platform() -> dict[str, str]:
    return {
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        "python": f"{platform.python_implementation()} at {sys.executable}",
    }


def _indented(values: dict[str, Any]) -> list[str]:
    lines = []
    for name, value in values.items():
        if isinstance(value, dict):
            lines.append(f"  {name}: " + ", ".join(f"{key} {item}" for key, item in value.items()))
        elif name.endswith("_bytes"):
            shown = f"{value / (1 << 30):.1f} GiB" if value >= 10 << 30 else f"{value / (1 << 20):.1f} MiB"
            lines.append(f"  {name.removesuffix('_bytes').replace('_', ' ')}: {shown}")
        else:
            lines.append(f"  {name.replace('_', ' ')}: {value}")
    return lines
