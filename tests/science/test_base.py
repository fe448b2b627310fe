"""Images on top of the flavour, exports of it, and the command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.packages import make_wheel
from wasm_sandbox import Image, PackageError, Tool, run_code, run_tool

pytestmark = pytest.mark.timeout(600)  # with the plain engine each of these images is compiled whole

TABLE = "import pandas as pd\ndef double(frame):\n    return frame * 2\n"


@pytest.fixture
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WASM_SANDBOX_DATA_DIR", str(tmp_path / "data"))
    return tmp_path


def test_packages_on_the_flavour_find_what_it_has(own_data: Path) -> None:
    requires = ["pandas>=2", "numpy", "python-dateutil"]
    wheel = make_wheel(own_data, "doubling", "1.0", requires=requires, files={"doubling.py": TABLE.encode()})
    image = Image.build(packages=[wheel], base="science", name="doubling")
    assert image.distributions["doubling"] == "1.0"
    assert {"numpy", "pandas"} <= set(image.distributions)
    code = "import pandas as pd, doubling\ndoubling.double(pd.DataFrame({'a': [1, 2]}))"
    for chosen in (image, "doubling", image.id):
        result = run_code(code, image=chosen)
        assert result.value == [{"a": 2}, {"a": 4}], result.error
    tool = Tool.from_source("def f():\n    import doubling, pandas\n    return doubling.pd is pandas")
    tool = tool.model_copy(update={"pip_requirements": ["pandas", "doubling"]})
    assert run_tool(tool, image=image).func_return is True


def test_the_same_files_on_another_base_are_another_image(own_data: Path) -> None:
    plain = Image.build(files={"/a": b"1"})
    science = Image.build(files={"/a": b"1"}, base="science")
    assert plain.id != science.id
    assert run_code("open('/a').read(), 'numpy' in __import__('sys').modules", image=plain).value == ("1", False)
    assert run_code("open('/a').read(), 'numpy' in __import__('sys').modules", image=science).value == ("1", True)
    assert Image.build(files={"/a": b"1"}, base="plain").id == plain.id


def test_what_cannot_be_had_on_the_flavour_says_so(own_data: Path) -> None:
    with pytest.raises(ValueError, match="there is no guest 'sciense'; use one of plain, science"):
        Image.build(files={"/a": b""}, base="sciense")
    with pytest.raises(PackageError, match=r"the guest has pandas 3\.\d+\.\d+ built in"):
        Image.build(["pandas<3"], base="science")


def test_a_tool_that_needs_more_is_told_the_base(own_data: Path) -> None:
    tool = Tool.from_source("def f():\n    return 1").model_copy(
        update={"pip_requirements": ["pandas", "no-such-thing"]}
    )
    error = run_tool(tool).error
    assert error is not None
    assert "wasm-sandbox image build no-such-thing-pandas no-such-thing pandas --base science" in error.message


def test_the_command_runs_in_it_and_builds_on_it(own_data: Path) -> None:
    def command(*words: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "wasm_sandbox", *words], capture_output=True, text=True, check=True, timeout=300
        ).stdout

    (own_data / "tool.py").write_text("import pandas as pd\ndef total(rows: pd.DataFrame):\n    return rows.a.sum()\n")
    args = ["--args", '{"rows": [{"a": 1}, {"a": 2}]}']
    assert (
        json.loads(command("run", str(own_data / "tool.py"), *args, "--image", "science", "--json"))["func_return"] == 3
    )
    (own_data / "data.csv").write_text("a,b\n1,2\n")
    command("image", "build", "rates", "--base", "science", "--file", f"/data/rates.csv={own_data / 'data.csv'}")
    assert "base: science" in command("image", "show", "rates")
    (own_data / "code.py").write_text("import pandas as pd\npd.read_csv('/data/rates.csv')\n")
    assert json.loads(command("exec", str(own_data / "code.py"), "--image", "rates", "--json"))["value"] == [
        {"a": 1, "b": 2}
    ]


@pytest.mark.long
def test_an_export_of_it_runs(own_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wasm_sandbox.images import export_image, this_target  # lazy: loads the engine

    manifest = export_image(Image.named("science"), this_target(), own_data / "export", print)
    assert manifest.distributions["pandas"]
    monkeypatch.setenv("WASM_SANDBOX_IMAGE", str(own_data / "export"))
    script = "from wasm_sandbox import run_code; print(run_code('import pandas as pd\\npd.Series([1, 2])').value)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    assert result.stdout.strip() == "[1, 2]"
