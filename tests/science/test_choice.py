"""Which calls run in the image "science"."""

from __future__ import annotations

import pytest

from wasm_sandbox import ErrorKind, Image, Sandbox, Tool, run_code, run_tool
from wasm_sandbox.decode.interpret import IN_IMAGES

LOADED = Tool.from_source(
    "import sys\ndef loaded() -> list:\n    return [name for name in ('numpy', 'pandas') if name in sys.modules]\n"
)


@pytest.mark.parametrize("requirements", [["pandas"], ["numpy>=2", "pandas<4"], ["python-dateutil", "pydantic"]])
def test_a_tool_that_requires_what_the_flavour_has_runs_in_it(requirements: list[str]) -> None:
    tool = LOADED.model_copy(update={"pip_requirements": requirements})
    result = run_tool(tool)
    assert result.status == "success", result.error
    assert result.func_return == ["numpy", "pandas"]


def test_a_tool_that_requires_nothing_does_not() -> None:
    assert run_tool(LOADED).func_return == []


def test_another_version_than_the_flavours_is_not_met() -> None:
    tool = LOADED.model_copy(update={"pip_requirements": ["pandas<3"]})
    for image in (None, "science"):
        error = run_tool(tool, image=image).error
        assert error is not None
        assert (error.kind, error.exception_name) == (ErrorKind.BAD_ARGUMENTS, "PackageError")
        assert "pandas<3" in error.message


def test_the_image_is_found_by_its_name_and_no_other_can_have_it() -> None:
    image = Image.named("science")
    assert image.name == "science"
    distributions = {"numpy", "pandas", "python-dateutil", "pillow", "matplotlib", "regex", "lxml", "orjson"}
    assert distributions <= set(image.distributions)
    assert not {"freetype", "libxml2"} & set(image.distributions)
    with pytest.raises(ValueError, match="science"):
        Image.build(files={"/a": b""}, name="science")


@pytest.mark.parametrize("name", IN_IMAGES)
def test_an_import_that_would_work_in_another_image_says_so(name: str) -> None:
    expected = f'No module named \'{name}\' (it is in the image "science": image="science")'
    tool = Tool.from_source(f"def f():\n    import {name}\n    return {name}.__name__")
    for error in (run_tool(tool).error, run_code(f"import {name}.sub").error):
        assert error is not None
        assert (error.exception_name, error.message) == ("ModuleNotFoundError", expected)
    with Sandbox().session() as session:
        error = session.run_code(f"import {name}").error
        assert error is not None
        assert error.message == expected
    assert run_tool(tool, image="science").func_return == name


@pytest.mark.parametrize(
    "code", ["import nowhere", "import json.pandas", "raise ValueError(\"No module named 'pandas'\")"]
)
def test_other_errors_name_no_image(code: str) -> None:
    for image in (None, "science"):
        error = run_code(code, image=image).error
        assert error is not None
        assert "image" not in error.message
