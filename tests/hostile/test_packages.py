"""A package that nobody trusts: it is executed in guests only."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from wasm_sandbox import Image, Tool, run_tool
from wasm_sandbox.directories import DATA_VARIABLE
from wasm_sandbox.errors import PackageError
from wasm_sandbox.images.guest_python import parse_requirement

HOSTILE = """
import os, sys
SEEN = []
for attempt in (lambda: open(MARK, "w"), lambda: os.system("touch " + MARK), lambda: os.listdir(os.path.dirname(MARK))):
    try:
        attempt()
        SEEN.append("done")
    except (OSError, AttributeError) as error:
        SEEN.append(type(error).__name__)
PLATFORM = sys.platform
"""


def test_a_package_is_executed_in_guests_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither while an image is made of it, nor before the first run, does a line of it run here."""
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "data"))
    mark = tmp_path / "mark"
    package = tmp_path / "hostile_package"
    package.mkdir()
    (package / "__init__.py").write_text(f"MARK = {str(mark)!r}\n{HOSTILE}")
    (package / "setup.py").write_text(f"open({str(mark)!r}, 'w')")
    (package / "__main__.py").write_text(f"open({str(mark)!r}, 'w')")
    image = Image.build(packages=[package], warm_up="import hostile_package")
    look = Tool.from_source("def f():\n    import hostile_package as h\n    return [h.PLATFORM, *h.SEEN]\n")
    result = run_tool(look, image=image)
    assert result.error is None, result.error
    assert result.func_return[0] == "wasi"
    assert "done" not in result.func_return
    assert not mark.exists()
    assert "hostile_package" not in sys.modules


@pytest.mark.parametrize(
    "text",
    [
        "--index-url=http://x", "-r /etc/passwd", "-e .", "git+https://x/y", "lark @ file:///x.whl", "./lark.whl",
        "/tmp/lark.whl", "lark --no-index", "lark; import os", "lark\n--pre", "$(id)", "",
    ],
)  # fmt: skip
def test_a_requirement_is_a_name_and_never_an_option_a_path_or_an_address(text: str) -> None:
    with pytest.raises(PackageError, match=r"is no requirement|names an address"):
        parse_requirement(text)
