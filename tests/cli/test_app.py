"""The command: what it prints where, how it exits, and that it ends when told to."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from unittest.mock import ANY

import pytest
from click.testing import CliRunner, Result

from tests.support.processes import python
from wasm_sandbox import Limits, __version__
from wasm_sandbox.cli.app import cli
from wasm_sandbox.cli.inputs import parse_size

TOOLS = '''
import decimal, os, sys, time

def add(a: int, b: int = 2) -> int:
    """Add."""
    return a + b

def talk(text: str = "") -> str:
    print("out", text, end="")
    print("err", text, end="", file=sys.stderr)
    return "said"

def values() -> dict:
    return {"price": decimal.Decimal("1.50"), "tags": {"a"}, "nan": float("nan"), "raw": b"\\xff"}

def odd(x: str) -> object:
    return {"surrogate": "\\ud800", "long": 10**6000, "complex": 1j}[x]

def variable(name: str) -> str:
    return os.environ[name]

def fail() -> None:
    raise ValueError("first line\\nsecond line \\x1b[31m")

def spin() -> None:
    while True:
        pass

def nap() -> None:
    time.sleep(60)

def leave() -> None:
    sys.exit(0)

def hoard() -> bytes:
    return b"x" * (1 << 30)

def large(size: int) -> str:
    return "x" * size

def flood(size: int) -> None:
    print("x" * size)

def remember(agent_state, value: str) -> str:
    agent_state["memory"] = value
    return agent_state["name"]
'''

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def tools(tmp_path: Path) -> str:
    path = tmp_path / "tools.py"
    path.write_text(TOOLS)
    return str(path)


@pytest.fixture(scope="session")
def command() -> Command:
    """``command(*arguments, stdin="", **environment)``: the command in a process of its own."""
    # So that no command has to tell of the image that it prepares, or that another process does.
    subprocess.run([sys.executable, "-m", "wasm_sandbox", "warm"], check=True, capture_output=True)

    def run(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "wasm_sandbox", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            env={**os.environ, **environment},
            check=False,
            timeout=100,
        )

    return run


def invoke(*arguments: str, stdin: str = "") -> Result:
    """The command in this process."""
    return CliRunner().invoke(cli, arguments, input=stdin)


def run(tools: str, name: str, **args: object) -> Result:
    return invoke("run", tools, "--tool", name, "--args", json.dumps(args))


# --- Results ----------------------------------------------------------------------------------------------


def test_run_prints_the_result_and_exits_with_0(command: Command, tools: str) -> None:
    done = command("run", tools, "--tool", "add", "--args", '{"a": 1}')
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")


def test_without_a_name_the_last_function_is_the_tool(tmp_path: Path) -> None:
    file = tmp_path / "two.py"
    file.write_text("def one():\n    return 1\n\ndef two():\n    return 2\n")
    assert invoke("run", str(file)).stdout == "2\n"


def test_a_string_is_printed_as_it_is_after_what_the_tool_printed_itself(command: Command, tools: str) -> None:
    done = command("run", tools, "--tool", "talk", "--args", '{"text": "é"}')
    assert (done.stdout, done.stderr) == ("out é\nsaid\n", "err é\n")


def test_other_values_are_printed_as_json_with_strings_for_what_json_lacks(tools: str) -> None:
    shown = json.loads(run(tools, "values").stdout)
    assert shown == {"price": "1.50", "tags": ["a"], "nan": "NaN", "raw": "_w=="}


@pytest.mark.parametrize(
    ("key", "shown"), [("surrogate", "\\ud800\n"), ("long", f"1{'0' * 6000}\n"), ("complex", '"1j"\n')]
)
def test_values_that_no_terminal_or_json_takes_are_shown_all_the_same(tools: str, key: str, shown: str) -> None:
    result = run(tools, "odd", x=key)
    assert result.exit_code == 0
    assert result.stdout == shown or json.loads(result.stdout) in ("1j", "0+1j")


def test_json_prints_one_document_and_nothing_else(command: Command, tools: str) -> None:
    done = command("run", tools, "--tool", "talk", "--args", '{"text": "x"}', "--json")
    document = json.loads(done.stdout)
    assert done.stderr == ""
    assert (document["status"], document["func_return"]) == ("success", "said")
    assert (document["stdout"], document["stderr"]) == (["out x"], ["err x"])
    assert document["usage"]["fuel"] > 0


@pytest.mark.parametrize("key", ["surrogate", "long", "complex"])
def test_json_is_valid_for_every_value(tools: str, key: str) -> None:
    result = invoke("run", tools, "--tool", "odd", "--args", json.dumps({"x": key}), "--json")
    assert json.loads(result.stdout, parse_int=str)["status"] == "success"


def test_the_agent_state_goes_in_and_comes_back(tools: str) -> None:
    arguments = ("--tool", "remember", "--args", '{"value": "blue"}', "--agent-state", '{"name": "sam"}')
    document = json.loads(invoke("run", tools, *arguments, "--json").stdout)
    assert document["func_return"] == "sam"
    assert document["agent_state"] == {"name": "sam", "memory": "blue"}


def test_arguments_come_from_a_file_or_from_stdin(tools: str, tmp_path: Path) -> None:
    file = tmp_path / "args.json"
    file.write_text('{"a": 40}')
    assert invoke("run", tools, "--tool", "add", "--args", f"@{file}").stdout == "42\n"
    assert invoke("run", tools, "--tool", "add", "--args", "-", stdin='{"a": 5}').stdout == "7\n"


def test_the_guest_gets_the_given_variables_and_no_others(command: Command, tools: str) -> None:
    arguments = ("run", tools, "--tool", "variable", "--env", "TOKEN=a=b")
    assert command(*arguments, "--args", '{"name": "TOKEN"}').stdout == "a=b\n"
    assert command(*arguments, "--args", '{"name": "SECRET"}', SECRET="x").returncode == 1


def test_an_argument_that_the_tool_does_not_have_is_mentioned(tools: str) -> None:
    result = run(tools, "add", a=1, c=3)
    assert (result.exit_code, result.stdout) == (0, "3\n")
    assert "no parameter c" in result.stderr


# --- Failures ---------------------------------------------------------------------------------------------


def test_a_failing_tool_exits_with_1_after_its_traceback_and_one_line(tools: str) -> None:
    result = run(tools, "fail")
    assert (result.exit_code, result.stdout) == (1, "")
    traceback, _, line = result.stderr.rstrip().rpartition("\n")
    assert 'File "fail.py", line' in traceback
    assert line == f"wasm-sandbox: {tools}: fail: tool_exception: ValueError: first line"


def test_leaving_without_a_value_is_a_tool_error(tools: str) -> None:
    result = run(tools, "leave")
    assert result.exit_code == 1
    assert "no_result" in result.stderr


def test_a_source_that_does_not_parse_is_shown_by_the_guest(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("def f(x):\n    return x +\n")
    result = invoke("run", str(file), "--args", '{"x": 1}')
    assert result.exit_code == 1
    assert 'File "f.py", line 2' in result.stderr
    assert "syntax_error" in result.stderr


def test_source_of_a_newer_python_than_the_hosts_runs(tmp_path: Path) -> None:
    file = tmp_path / "generic.py"
    file.write_text("def same[T](x: T) -> T:\n    return x\n")
    assert invoke("run", str(file), "--args", '{"x": 3}').stdout == "3\n"


@pytest.mark.parametrize(
    ("tool", "options", "hint"),
    [
        ("spin", ("--fuel", "50000000"), "out_of_fuel: .*--fuel"),
        ("nap", ("--timeout", "0.2"), "timeout: .*--timeout"),
        ("hoard", ("--memory", "64M"), "out_of_memory: .*--memory"),
    ],
)
def test_a_limit_exits_with_3_and_names_its_option(tools: str, tool: str, options: tuple[str, ...], hint: str) -> None:
    result = invoke("run", tools, "--tool", tool, *options)
    assert result.exit_code == 3
    assert_matches(hint, result.stderr.splitlines()[-1])


def test_output_past_its_limit_is_dropped_with_a_word(tools: str) -> None:
    result = invoke("run", tools, "--tool", "flood", "--args", '{"size": 5000}', "--output-limit", "1K")
    assert result.exit_code == 0
    assert result.stdout == "x" * 1024 + "\nnull\n"
    assert "3977 bytes of stdout were dropped; keep more with --output-limit" in result.stderr


def test_a_result_past_its_limit_names_the_option(tools: str) -> None:
    result = invoke("run", tools, "--tool", "large", "--args", '{"size": 5000}', "--result-limit", "1K")
    assert result.exit_code == 1
    assert "--result-limit" in result.stderr.splitlines()[-1]


def test_an_error_line_carries_no_control_characters_of_the_guest(tmp_path: Path) -> None:
    file = tmp_path / "rude.py"
    file.write_text("def rude():\n    raise ValueError('\\x1b]0;title\\x07')\n")
    line = invoke("run", str(file)).stderr.splitlines()[-1]
    assert line.endswith(r"ValueError: \x1b]0;title\x07")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "missing.py"), "missing.py: there is no such file"),
        (("run", "."), ".: cannot be read"),
        (("run", "{tools}", "--args", "{{"), "--args: is not JSON"),
        (("run", "{tools}", "--args", "[1]"), "--args: must be a JSON object"),
        (("run", "{tools}", "--args", "@missing.json"), "--args @missing.json: cannot be read"),
        (("run", "{tools}", "--agent-state", "1"), "--agent-state: must be a JSON object"),
        (("run", "{tools}", "--env", "TOKEN"), "--env TOKEN: give a value"),
        (("run", "{tools}", "--env", "=x"), "--env: '' cannot be the name"),
        (("run", "{tools}", "--tool", "nope"), "no function 'nope'"),
        (("run", "{tools}", "--memory", "1M"), "--memory: must be at least 64M"),
        (("run", "{tools}", "--memory", "8X"), "'8X' is no size"),
        (("run", "{tools}", "--fuel", "0"), "--fuel: must be more than 0"),
        (("run", "{tools}", "--timeout", "inf"), "--timeout: must be a finite number"),
        (("run", "{tools}", "--tool", "add", "--args", '{{"a": "x"}}'), "bad_arguments: .*'a'"),
        (("script", "{tools}", "--tool", "add", "--args", '{{"a": "x"}}'), "add: argument 'a'"),
        (("exec", "missing.py"), "missing.py: there is no such file"),
        (("run", "{tools}", "--colour"), "No such option '?--colour"),
        (("run",), "Missing argument 'FILE'"),
        (("dance",), "No such command 'dance'"),
    ],
)
def test_bad_usage_exits_with_2_and_one_line_that_names_the_input(
    command: Command, tools: str, arguments: tuple[str, ...], message: str
) -> None:
    done = command(*(argument.format(tools=tools) for argument in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert_matches(f"wasm-sandbox: .*{message}", done.stderr.rstrip())
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("data", [b"\xff\xfe", b"x = 1\0"])
def test_a_file_that_is_no_python_text_is_bad_usage(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "binary.py"
    file.write_bytes(data)
    assert invoke("run", str(file)).exit_code == 2


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX ones")
def test_a_cache_directory_that_others_can_write_exits_with_4(command: Command, tools: str, tmp_path: Path) -> None:
    cache = tmp_path / "open"
    cache.mkdir()
    cache.chmod(0o777)
    done = command("run", tools, "--tool", "add", "--args", '{"a": 1}', WASM_SANDBOX_CACHE_DIR=str(cache))
    assert (done.returncode, done.stdout) == (4, "")
    assert_matches("wasm-sandbox: the cache directory .* can be written by others", done.stderr.rstrip())
    assert command("doctor", WASM_SANDBOX_CACHE_DIR=str(cache)).returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_output_that_cannot_be_written_is_one_line(tools: str) -> None:
    arguments = [sys.executable, "-m", "wasm_sandbox", "script", tools, "--tool", "leave"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (4, 1)


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_a_reader_that_goes_away_is_no_error(tools: str) -> None:
    arguments = [
        sys.executable,
        "-m",
        "wasm_sandbox",
        "run",
        tools,
        "--tool",
        "flood",
        "--args",
        '{"size": 900000}',
    ]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


# --- Scripts ----------------------------------------------------------------------------------------------


def test_exec_passes_output_on_byte_for_byte(tmp_path: Path) -> None:
    file = tmp_path / "bytes.py"
    file.write_text("import sys\nsys.stdout.buffer.write(b'\\xff\\x00end')\nprint('err', file=sys.stderr)\n")
    result = invoke("exec", str(file))
    assert (result.exit_code, result.stdout_bytes, result.stderr) == (0, b"\xff\x00end", "err\n")


@pytest.mark.parametrize(
    ("source", "code", "shown"),
    [
        ("import sys; sys.exit(0)", 0, ""),
        ("import sys; sys.exit(3)", 1, "the script ended with exit code 3"),
        ("1/0", 1, 'File "<stdin>", line 1.*ZeroDivisionError'),
        ("def", 1, "syntax_error"),
        ("while True: pass", 3, "timeout"),
    ],
)
def test_exec_exits_as_the_script_ended(source: str, code: int, shown: str) -> None:
    result = invoke("exec", "-", "--timeout", "1", stdin=source)
    assert (result.exit_code, result.stdout) == (code, "")
    assert_matches(f".*{shown}", result.stderr.replace("\n", " "))


@pytest.mark.parametrize(
    ("source", "options", "found"),
    [
        ("print('hi')\nx + 1", ("--input", "x=4"), ("success", 5, "5", ["hi\n"])),
        ("{'a': (1, b'x')}", (), ("success", {"a": [1, "eA=="]}, "{'a': (1, b'x')}", [])),
        ("x = 1", (), ("success", None, None, [])),
        ("object", (), ("success", None, "<class 'object'>", [])),
        ("import asyncio\nawait asyncio.sleep(0, 'later')", (), ("success", "later", "'later'", [])),
        (
            "(x, y)",
            ("--input", 'x={"a": [1, null]}', "--input", "y=1.5"),
            ("success", [{"a": [1, None]}, 1.5], ANY, []),
        ),
        ("print(5)\nimport sys\nsys.exit()", (), ("success", None, None, ["5\n"])),
        ("import sys\nsys.exit(3)", (), ("error", None, None, [])),
        ("import os\nos._exit(0)", (), ("success", None, None, [])),
        ("1 / 0", (), ("error", None, None, [])),
        ("'\\ud800'", (), ("success", "'\\ud800'", ANY, [])),
    ],
)
def test_exec_prints_the_value_of_the_last_expression_as_json(
    source: str, options: tuple[str, ...], found: tuple[object, ...]
) -> None:
    done = invoke("exec", "-", "--json", *options, stdin=source)
    shown = json.loads(done.stdout)
    assert tuple(shown[name] for name in ("status", "value", "text", "stdout")) == found
    assert done.exit_code == (0 if shown["status"] == "success" else 1)
    assert (shown["func_return"], shown["displays"]) == (None, []) or shown["error"]


def test_exec_ends_the_same_with_and_without_json() -> None:
    sources = ["sys.exit(0)", "sys.exit(7)", "sys.exit('bye')", "os._exit(4)", "1 / 0", "x =", "while True: pass"]
    for source in sources:
        text = f"import os, sys\n{source}"
        plain = invoke("exec", "-", "--timeout", "0.5", stdin=text)
        whole = invoke("exec", "-", "--timeout", "0.5", "--json", stdin=text)
        assert whole.exit_code == plain.exit_code, source
    assert json.loads(invoke("exec", "-", "--json", stdin="import sys\nsys.exit('bye')").stdout)["stderr"] == ["bye\n"]


def test_exec_has_inputs_without_json_too_and_passes_output_on() -> None:
    done = invoke("exec", "-", "--input", 'name="Ada"', stdin="print(name)\nname")
    assert (done.exit_code, done.stdout) == (0, "Ada\n")


def test_displays_and_results_of_generated_scripts_are_in_the_json_of_exec(tools: str) -> None:
    shown = json.loads(invoke("exec", "-", "--json", stdin="display(5)").stdout)
    assert shown["displays"] == [{"text/plain": "5"}]
    script = invoke("script", tools, "--tool", "add", "--args", '{"a": 40, "b": 2}').stdout
    assert json.loads(invoke("exec", "-", "--json", stdin=script).stdout)["func_return"] == 42


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("x", "--input x: give a value in JSON, as in --input x=5"),
        ("x=", "--input x: give a value in JSON"),
        ("x=[", "--input x: is not JSON"),
        ("5=1", "--input: the input '5' is no name of a variable"),
        ("class=1", "--input: the input 'class' is no name of a variable"),
    ],
)
def test_an_input_that_is_none_is_refused_by_name(given: str, words: str) -> None:
    done = invoke("exec", "-", "--input", given, stdin="1")
    assert done.exit_code == 2
    assert words in done.stderr


LOOKS = "import random, time; print(random.random(), time.time()); time.sleep(3600); print(time.time())"


def test_a_deterministic_run_prints_the_same_every_time_and_does_not_sleep() -> None:
    first = invoke("exec", "-", "--deterministic", stdin=LOOKS)
    assert first.exit_code == 0
    assert invoke("exec", "-", "--deterministic", stdin=LOOKS).stdout == first.stdout
    assert invoke("exec", "-", stdin=LOOKS.replace("3600", "0")).stdout != first.stdout


def test_a_run_in_a_process_of_its_own_shows_and_exits_as_any_other(command: Command, tools: str) -> None:
    options = ("--isolation", "process")
    done = command("run", tools, "--tool", "talk", "--args", '{"text": "é"}', *options)
    assert (done.returncode, done.stdout, done.stderr) == (0, "out é\nsaid\n", "err é\n")
    assert command("exec", "-", "--timeout", "0.3", *options, stdin="while True: pass").returncode == 3


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_what_a_worker_process_cannot_do_is_bad_usage(tools: str, verb: str) -> None:
    result = invoke(verb, tools, "--isolation", "process", "--mount", "/data=.")
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.fullmatch(r'wasm-sandbox: isolation="process" has no mounts[^\n]*\n', result.stderr)


def test_a_worker_process_runs_in_the_image_that_is_named(command: Command, tools: str) -> None:
    options = ("--isolation", "process", "--image", "science")
    done = command("exec", "-", *options, stdin="import pandas as pd; print(pd.Series([1, 2]).sum())")
    assert (done.returncode, done.stdout) == (0, "3\n")
    assert command("run", tools, "--tool", "talk", "--args", '{"text": "é"}', *options).stdout == "out é\nsaid\n"


def test_an_unknown_isolation_is_bad_usage(tools: str) -> None:
    result = invoke("run", tools, "--isolation", "container")
    assert result.exit_code == 2
    assert "container" in result.stderr


def test_a_generated_script_gives_exec_its_result(tools: str) -> None:
    script = invoke("script", tools, "--tool", "add", "--args", '{"a": 40}').stdout
    assert invoke("exec", "-", stdin=script).stdout == "42\n"


def test_without_markers_the_script_ends_in_an_expression(tools: str) -> None:
    script = invoke("script", tools, "--tool", "add", "--args", '{"a": 40}', "--no-markers").stdout
    assert script.splitlines()[-1].startswith("base64.b64encode(")


# --- The host ---------------------------------------------------------------------------------------------


def test_doctor_shows_what_there_is_and_that_this_host_is_fit(command: Command) -> None:
    done = command("doctor", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0
    assert report["fit"] is True
    assert report["versions"]["wasm-sandbox"] == __version__
    assert report["guest"]["versions"]["cpython"].startswith("3.13.")
    assert report["guest"]["compressed_bytes"] < 8_000_000
    assert Path(report["image"]["path"]).parent == Path(report["cache"]["path"])
    assert [check["name"] for check in report["checks"]][-2:] == ["trial run", "worker process"]
    text = command("doctor").stdout
    assert text.endswith("this host is fit\n")
    assert report["guest"]["sha256"] in text


def test_doctor_finds_a_compiled_image_that_was_changed(command: Command, tmp_path: Path) -> None:
    source = Path(json.loads(command("doctor", "--json").stdout)["image"]["path"])
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    changed = cache / source.name
    changed.write_bytes(source.read_bytes()[:-1] + b"?")
    changed.chmod(0o600)
    record = json.loads(source.with_suffix(".json").read_text())
    status = changed.stat()
    record["identity"] = {
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
        "inode": status.st_ino,
    }
    changed.with_suffix(".json").write_text(json.dumps(record))
    done = command("doctor", WASM_SANDBOX_CACHE_DIR=str(cache))
    assert done.returncode == 1
    assert_matches(f"FAIL compiled image: {changed} .*delete it", done.stdout)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_first_run_says_that_it_prepares_the_guest_and_the_next_is_silent(tools: str, tmp_path: Path) -> None:
    environment = {**os.environ, "WASM_SANDBOX_CACHE_DIR": str(tmp_path / "cache")}
    arguments = [sys.executable, "-m", "wasm_sandbox", "run", tools, "--tool", "add", "--args", '{"a": 1}']
    first, second = (
        subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False, timeout=280)
        for _ in range(2)
    )
    assert (first.returncode, first.stdout) == (0, "3\n")
    *steps, ready = first.stderr.splitlines()
    assert len(steps) == 3
    assert all(step.startswith("wasm-sandbox: preparing the guest image, once: ") for step in steps)
    assert_matches(r"wasm-sandbox: the guest image is ready \(\d+\.\d s\)", ready)
    assert (second.returncode, second.stdout, second.stderr) == (0, "3\n", "")


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("tool", ["spin", "nap"])
def test_ctrl_c_ends_a_run_at_once(tools: str, tool: str) -> None:
    with started("run", tools, "--tool", tool) as process:
        time.sleep(1)
        code, seconds, shown = interrupt(process)
    assert (code, shown.strip()) == (130, "")
    assert seconds < 2


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_ends_the_preparation_of_the_image_at_once(tmp_path: Path) -> None:
    with started("warm", WASM_SANDBOX_CACHE_DIR=str(tmp_path / "cache")) as process:
        assert process.stderr is not None
        process.stderr.readline()  # the first step has begun
        time.sleep(1)
        code, seconds, shown = interrupt(process)
    assert code == 130
    assert "Traceback" not in shown
    assert seconds < 2


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc here")
def test_ctrl_c_ends_the_command_and_its_worker_process(tmp_path: Path) -> None:
    file = tmp_path / "forever.py"
    file.write_text("def forever():\n    while True: pass\n")
    with started("run", str(file), "--isolation", "process") as process:
        workers: list[str] = []
        for _ in range(3000):
            threads = Path(f"/proc/{process.pid}/task").glob("*/children")
            if workers := [pid for thread in threads for pid in thread.read_text().split()]:
                break
            time.sleep(0.01)
        assert workers
        time.sleep(1)
        code, seconds, _ = interrupt(process)
    assert code == 130
    assert seconds < 2
    for _ in range(1000):
        if not any(Path(f"/proc/{pid}").exists() for pid in workers):
            return
        time.sleep(0.01)
    pytest.fail("a worker is left")


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_while_the_command_is_being_loaded_ends_it_in_silence() -> None:
    interrupted = """
        import sys
        class Interrupt:
            @staticmethod
            def find_spec(name, path=None, target=None):
                if name == "click":
                    raise KeyboardInterrupt
        sys.meta_path.insert(0, Interrupt)
        from wasm_sandbox.__main__ import main
        main()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(interrupted)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_the_package_can_be_run_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "wasm_sandbox", "--version"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, f"wasm-sandbox, version {__version__}\n")


def started(*arguments: str, **environment: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """The command in a process of its own."""
    return python("-m", "wasm_sandbox", *arguments, env={**os.environ, **environment})


def interrupt(process: subprocess.Popen[str]) -> tuple[int, float, str]:
    """Send SIGINT: exit code, seconds to the end, the rest of stderr."""
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=30)
    return process.returncode, time.monotonic() - sent, shown


# --- The rest ---------------------------------------------------------------------------------------------


def test_version() -> None:
    assert invoke("--version").stdout == f"wasm-sandbox, version {__version__}\n"


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("1500", 1500), ("64K", 65536), ("128M", 128 << 20), ("64MiB", 64 << 20), ("1.5 GB", 3 << 29)],
)
def test_sizes_have_units_of_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_the_defaults_that_the_help_names_are_those_of_the_limits() -> None:
    text = " ".join(invoke("run", "--help").stdout.split())
    defaults = Limits()
    assert f"each. [default: {defaults.fuel}]" in text
    assert f"Memory. [default: {defaults.memory_bytes >> 20}M]" in text
    assert f"Seconds. [default: {defaults.timeout_seconds:g}]" in text
    assert f"each. [default: {defaults.output_bytes >> 20}M]" in text
    assert f"result. [default: {defaults.result_bytes >> 20}M]" in text


def test_help_loads_nothing_heavy() -> None:
    check = (
        "import sys; from click.testing import CliRunner; from wasm_sandbox.cli.app import cli; "
        "CliRunner().invoke(cli, ['run', '--help']); print({'wasmtime', 'pydantic', 'rich'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def assert_matches(pattern: str, text: str) -> None:
    """As ``pytest.raises(match=…)`` matches: anywhere in the text."""
    assert re.search(pattern, text, re.MULTILINE), text
