"""Packages of pure Python on top of the flavour: plots of seaborn, PDF and PostScript, tables in Excel and Markdown."""

from __future__ import annotations

import pytest

from wasm_sandbox import Image, Limits, PackageError, run_code

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]  # installed from the index, and compiled

LIMITS = Limits(memory_bytes=512 << 20)

PLOTS = """
import io, matplotlib.pyplot as plt, pandas as pd, seaborn as sns
rows = pd.DataFrame({'x': [1, 2, 3, 4, 5, 6], 'y': [2, 4, 1, 5, 6, 7], 'k': list('aabbaa')})
plots = {
    'scatterplot': dict(x='x', y='y', hue='k'), 'lineplot': dict(x='x', y='y'), 'regplot': dict(x='x', y='y'),
    'barplot': dict(x='k', y='y'), 'boxplot': dict(x='k', y='y'), 'violinplot': dict(x='k', y='y'),
    'histplot': dict(x='y', kde=True), 'kdeplot': dict(x='y'), 'relplot': dict(x='x', y='y', col='k'),
    'pairplot': dict(), 'jointplot': dict(x='x', y='y'), 'clustermap': dict(),
}
found = {}
for name, given in plots.items():
    plt.close('all')
    try:
        getattr(sns, name)(rows[['x', 'y']] if name == 'clustermap' else rows, **given)
        file = io.BytesIO()
        plt.savefig(file)
        found[name] = file.getvalue()[:4]
    except RuntimeError as error:
        found[name] = str(error)
found
"""

FIGURES = r"""
import io, matplotlib.pyplot as plt
from matplotlib.backends.backend_pdf import PdfPages
plt.plot([1, 2, 3])
plt.title('Größe $x^2$')
found = {}
for kind in ('pdf', 'ps', 'eps', 'svg'):
    file = io.BytesIO()
    plt.savefig(file, format=kind)
    found[kind] = file.getvalue()
file = io.BytesIO()
with PdfPages(file) as pages:
    pages.savefig()
    pages.savefig()
found['pages'] = file.getvalue().count(b'/Type /Page ')
found
"""

TABLES = """
import io, pandas as pd
table = pd.DataFrame({'x': [1, 2], 't': pd.to_datetime(['2024-01-01', '2024-01-02'])})
file = io.BytesIO()
table.to_excel(file, index=False)
pd.read_excel(io.BytesIO(file.getvalue())).equals(table), table[['x']].to_markdown(index=False)
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WASM_SANDBOX_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        return Image.build(["seaborn", "fonttools", "tabulate", "openpyxl"], base="science")


def test_seaborn_plots(image: Image) -> None:
    found = run_code(PLOTS, image=image, limits=LIMITS).value
    assert found.pop("clustermap") == "clustermap requires scipy to be available"
    assert set(found.values()) == {b"\x89PNG"}


def test_a_figure_is_saved_as_pdf_and_postscript_with_fonttools(image: Image) -> None:
    found = run_code(FIGURES, image=image, limits=LIMITS).value
    assert found["pdf"].startswith(b"%PDF-1.4\n")
    assert found["pdf"].rstrip().endswith(b"%%EOF")
    assert b"+DejaVuSans" in found["pdf"]  # its font is inside
    assert found["ps"].startswith(b"%!PS-Adobe-3.0\n")
    assert found["eps"].startswith(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    assert b"</svg>" in found["svg"]
    assert found["pages"] == 2


def test_tables_are_written_as_excel_and_markdown(image: Image) -> None:
    value = run_code(TABLES, image=image, limits=LIMITS).value
    assert value == (True, "|   x |\n|----:|\n|   1 |\n|   2 |")


@pytest.mark.parametrize("package", ["scikit-learn", "statsmodels"])
def test_what_is_compiled_is_refused_by_name(package: str) -> None:
    with pytest.raises(PackageError, match=rf"{package} cannot be had: .* is compiled, and a guest runs pure Python"):
        Image.build([package], base="science")
