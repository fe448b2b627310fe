"""matplotlib in the image "science": figures as displays, files and results, and mistakes as exceptions."""

from __future__ import annotations

import struct

import pytest

from wasm_sandbox import CodeResult, Limits, Sandbox, Tool, run_code, run_tool

HEAD = "import matplotlib.pyplot as plt, numpy as np, pandas as pd\n"
LIMITS = Limits(timeout_seconds=60)


def ran(code: str) -> CodeResult:
    return run_code(HEAD + code, image="science", limits=LIMITS)


def size_of(png: object) -> tuple[int, int]:
    assert isinstance(png, bytes)
    assert png.startswith(b"\x89PNG\r\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


PLOTS = {
    "lines": "plt.plot([1, 2, 3], [1, 4, 2], label='a'); plt.legend(); plt.grid(True)",
    "bars": "plt.bar(list('abc'), [3, 1, 2], yerr=[0.1, 0.2, 0.3]); plt.xticks(rotation=45)",
    "histogram": "plt.hist(np.random.default_rng(0).normal(size=500), bins=20)",
    "scatter": "plt.scatter(range(9), range(9), c=range(9), cmap='viridis'); plt.colorbar()",
    "contour": "a = np.linspace(-2, 2, 40); z = np.hypot(a, a[:, None]); plt.contourf(z); plt.clabel(plt.contour(z))",
    "mathtext": "plt.title(r'$\\alpha_i^2 = \\frac{\\sum x}{\\sqrt{2\\pi}}$'); plt.text(0.5, 0.5, 'é ü 日')",
    "subplots": "fig, axes = plt.subplots(2, layout='constrained'); axes[0].pie([1, 2]); axes[1].boxplot([[1, 2, 9]])",
    "image": "plt.imshow(np.arange(100).reshape(10, 10), interpolation='bilinear')",
    "triangles": "r = np.random.default_rng(0); plt.tricontourf(r.random(30), r.random(30), r.random(30))",
    "dates": "plt.plot(pd.date_range('2024-01-01', periods=9), range(9)); plt.gcf().autofmt_xdate()",
    "log and polar": "plt.subplot(121).loglog([1, 10, 100]); plt.subplot(122, projection='polar').plot([0, 1, 2])",
    "3d": "plt.figure().add_subplot(projection='3d').plot_surface(*np.meshgrid(range(5), range(5)), np.ones((5, 5)))",
    "pandas": "pd.DataFrame({'a': [1, 3, 2], 'b': [2, 1, 3]}).plot(kind='bar')",
    "style": "plt.style.use('ggplot'); plt.plot([1, 2])",
    "tight": "plt.plot([1, 2]); plt.ylabel('y'); plt.tight_layout()",
}


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_shown_as_png(name: str) -> None:
    result = ran(f"{PLOTS[name]}\nplt.show()\nplt.get_fignums()")
    assert result.error is None, result.error
    assert result.value == []
    (shown,) = result.displays
    assert min(size_of(shown["image/png"])) > 100


def test_a_figure_as_last_value_is_shown() -> None:
    result = ran("fig, ax = plt.subplots(figsize=(4, 3))\nax.plot([1, 2])\nfig")
    width, height = size_of(result.displays[0]["image/png"])
    assert abs(width - 400) < 60
    assert abs(height - 300) < 60


def test_files_of_a_run() -> None:
    code = """
plt.plot([1, 2])
for kind in ("png", "svg", "jpg"):
    plt.savefig(f"/tmp/x.{kind}", dpi=50)
from PIL import Image
[Image.open("/tmp/x.png").size, Image.open("/tmp/x.jpg").format, open("/tmp/x.svg").read(5)]
"""
    result = ran(code)
    assert result.error is None, result.error
    assert result.value == [(320, 240), "JPEG", "<?xml"]


def test_a_tool_returns_the_bytes_of_a_plot() -> None:
    source = (
        "import io\nimport matplotlib\nmatplotlib.use('Agg')\nimport matplotlib.pyplot as plt\n"
        "def f(values: list[float]) -> bytes:\n    plt.plot(values)\n    file = io.BytesIO()\n"
        "    plt.savefig(file, format='png', dpi=100)\n    return file.getvalue()\n"
    )
    result = run_tool(Tool.from_source(source), {"values": [1, 3, 2]}, image="science", limits=LIMITS)
    assert result.status == "success", result.error
    assert size_of(result.func_return) == (640, 480)


MISTAKES = {
    "plt.plot([1, 2], [1, 2, 3])": "ValueError",
    "plt.plot([1, 2], color='no colour')": "ValueError",
    "plt.contour(np.ones((3, 3)), levels=[2, 1])": "ValueError",
    "plt.contour(np.ones(3))": "TypeError",
    "plt.contour(np.ones((1, 1)))": "TypeError",
    "plt.imshow(np.ones((2, 2, 7)))": "TypeError",
    "plt.scatter([1], [2, 3])": "ValueError",
    "plt.bar([1, 2], [1, 2, 3])": "ValueError",
    "plt.style.use('no style')": "OSError",
    "plt.title(r'$\\\\no{$'); plt.savefig('/tmp/x.png')": "ValueError",
    "plt.savefig('/tmp/x.nothing')": "ValueError",
    "plt.savefig('/nowhere/x.png')": "FileNotFoundError",
    "plt.hist(['a', 1.5, None], bins='x')": "TypeError",
    "plt.get_cmap('no map')": "ValueError",
    "plt.subplot(9, 9, 99)": "ValueError",
    "matplotlib = __import__('matplotlib'); matplotlib.use('TkAgg')": "ModuleNotFoundError",
}


@pytest.mark.parametrize("code", MISTAKES)
def test_a_mistake_is_a_python_exception(code: str) -> None:
    result = ran(code)
    assert result.error is not None
    assert result.error.exception_name == MISTAKES[code], result.error


def test_a_font_that_is_not_there_is_replaced_with_a_word() -> None:
    result = ran("plt.title('x', family='No Such Font')\nplt.savefig('/tmp/x.png')")
    assert result.error is None, result.error
    assert "No Such Font" in "".join(result.stderr or ())


def test_what_cannot_be_drawn_is_an_error_of_show() -> None:
    result = ran(r"plt.title(r'$\nowhere$')" + "\nplt.show()")
    assert result.error is not None
    assert (result.error.exception_name, result.displays) == ("ValueError", [])
    assert "Unknown symbol" in str(result.error.message)


def test_a_session_shows_one_figure_after_another() -> None:
    with Sandbox(image="science", limits=LIMITS).session() as session:
        for values in ("[1, 2]", "[2, 1]"):
            result = session.run_code(f"import matplotlib.pyplot as plt\nplt.plot({values})\nplt.show()")
            assert len(result.displays) == 1, result.error
