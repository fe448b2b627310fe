"""``wasm-sandbox doctor``: what it says of the engine, with its mechanisms and without."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

# The plain engine has an image of its own, which is compiled once.
pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

PLAIN = {
    "switch": "WASM_SANDBOX_ENGINE=plain",
    "memory": "wasmtime's own",
    "pausing": "no",
    "code_of_tools": "not kept",
}


def doctor(*arguments: str, engine: str | None = None) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with ``$WASM_SANDBOX_ENGINE`` set to a value, or unset."""
    environ = {name: value for name, value in os.environ.items() if name != "WASM_SANDBOX_ENGINE"}
    if engine is not None:
        environ["WASM_SANDBOX_ENGINE"] = engine
    command = [sys.executable, "-m", "wasm_sandbox", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environ, check=False, timeout=280)


def test_doctor_shows_the_mechanisms_of_the_engine() -> None:
    found = json.loads(doctor("--json").stdout)["engine"]
    assert list(found) == ["memory", "pausing", "code_of_tools"]
    assert found["memory"] in ("kept between runs", "wasmtime's own")
    assert found["pausing"] in ("yes", "no")
    assert found["code_of_tools"] == "kept between runs"
    section = [f"  {name.replace('_', ' ')}: {what}" for name, what in found.items()]
    assert "\n".join(["engine", *section, "guest", ""]) in doctor().stdout


def test_doctor_shows_that_the_plain_engine_does_without_them() -> None:
    done = doctor("--json", engine="plain")
    report = json.loads(done.stdout)
    assert (done.returncode, report["fit"]) == (0, True)
    assert report["engine"] == PLAIN
    shown = doctor(engine="plain").stdout
    assert "\n  switch: WASM_SANDBOX_ENGINE=plain\n  memory: wasmtime's own\n" in shown
    assert "\n  code of tools: not kept\n" in shown


def test_doctor_shows_a_switch_that_means_nothing() -> None:
    done = doctor("--json", engine="fast")
    report = json.loads(done.stdout)
    assert (done.returncode, report["engine"]) == (1, {"switch": "WASM_SANDBOX_ENGINE=fast"})
    details = {check["name"]: check["detail"] for check in report["checks"]}
    assert details["wasmtime"] == "WASM_SANDBOX_ENGINE is 'fast': set it to \"plain\", or leave it unset"
