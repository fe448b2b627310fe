"""The figures as a picture (extra ``plot``): a log scale, one colour for each contender."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from wasm_sandbox.bench.contenders import OURS
from wasm_sandbox.bench.measure import Series
from wasm_sandbox.bench.report import Report, shown_ms

FORMATS = {".svg", ".png", ".pdf"}

# Tableau's and Okabe & Ito's: told apart by colour-blind readers too. Ours is the strongest.
_OUR_COLOURS = {OURS: "#d1495b", f"{OURS}, async": "#e58a97", f"{OURS}, script only": "#f0b7bf"}
_COLOURS = ("#2e4057", "#0072b2", "#009e73", "#e69f00", "#7b5ea7", "#56b4e9", "#8c6d46", "#666666")
_INK, _FAINT = "#222222", "#dddddd"


class PlotUnavailable(Exception):
    """The library that draws is not installed, or cannot write this kind of file; the message says what to do."""


def check_available(path: Path) -> None:
    """Whether a picture can be written there, as far as can be told beforehand; raises as `draw`."""
    if path.suffix.lower() not in FORMATS:
        raise PlotUnavailable(f"{path}: the name of a picture ends in {', '.join(sorted(FORMATS))}")
    try:
        import matplotlib  # noqa: F401 - whether it is there  # lazy: of an extra
    except ImportError as error:
        raise PlotUnavailable("a plot needs matplotlib: pip install 'wasm-sandbox[plot]'") from error


def draw(report: Report, path: Path) -> None:
    """Write a report as a picture.

    Args:
        report: what was measured.
        path: the file; its ending says the format: ``.svg``, ``.png`` or ``.pdf``.

    Raises:
        PlotUnavailable: matplotlib is missing, or the ending is another one.
    """
    check_available(path)
    import matplotlib as mpl  # lazy: of an extra
    from matplotlib.figure import Figure  # lazy: of an extra

    jobs = list(report.jobs())
    rows = sum(len(found) + 1.1 for _, found in jobs)
    style: dict[str, Any] = {
        "font.family": "sans-serif",
        "font.size": 10,
        "svg.fonttype": "none",
        "svg.hashsalt": "wasm-sandbox",
    }
    with mpl.rc_context(cast(Any, style | {"text.color": _INK, "axes.labelcolor": _INK, "xtick.color": _INK})):
        figure = Figure(figsize=(9.6, 1.5 + 0.29 * rows), layout="constrained")
        heights = [len(found) + 0.6 for _, found in jobs]
        grid = figure.subplots(len(jobs), 1, sharex=True, height_ratios=heights, squeeze=False)
        for axes, (title, found) in zip(grid[:, 0], jobs, strict=True):
            _panel(axes, title, found, report)
        grid[-1, 0].set_xlabel("milliseconds, log scale; dot: median, line: fastest to 95th percentile")
        figure.suptitle("Time to a result", x=0.01, ha="left", fontsize=15, fontweight="bold")
        figure.text(0.01, 0.0, _footnote(report), fontsize=7.5, color="#777777", va="bottom")
        figure.get_layout_engine().set(rect=(0, 0.035, 1, 0.965))  # type: ignore[union-attr, call-arg]  # the figure's is the constrained one
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
        figure.savefig(path, dpi=150, facecolor="white", metadata=metadata)


def _panel(axes: Any, title: str, found: list[Series], report: Report) -> None:
    axes.set_xscale("log")
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold", pad=5)
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.set_yticks(range(len(found)), [series.contender for series in found])
    axes.tick_params(length=0)
    axes.tick_params(axis="x", which="both", length=0)
    axes.grid(axis="x", color=_FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    everything = [value for series in report.series for value in (series.minimum, series.p95)]
    low, high = min(everything) * 1000, max(everything) * 1000
    axes.set_xlim(low / 1.6, high * 8)  # room for the labels at the right
    axes.xaxis.set_major_formatter(lambda value, _position: f"{value:g}")
    for row, series in enumerate(found):
        colour = _colour(series.contender, report)
        axes.hlines(row, low / 1.6, series.median * 1000, color=colour, linewidth=1.2, alpha=0.25)
        axes.hlines(row, series.minimum * 1000, series.p95 * 1000, color=colour, linewidth=4.5, alpha=0.45)
        axes.plot(series.median * 1000, row, "o", color=colour, markersize=7.5)
        ratio = report.ratio(series)
        times = "" if ratio is None or series.contender == OURS else f"   {_times(ratio)}"
        note = f"   {series.note}" if series.note else ""
        axes.annotate(
            f"{shown_ms(series.median)} ms{times}{note}",
            (max(series.p95, series.median) * 1000, row),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            fontweight="bold" if series.contender == OURS else "normal",
        )
    for label, series in zip(axes.get_yticklabels(), found, strict=True):
        label.set_color(_INK)
        if series.contender == OURS:
            label.set_fontweight("bold")


def _times(ratio: float) -> str:
    return f"×{ratio:.2f}" if ratio < 10 else f"×{ratio:,.0f}"


def _colour(contender: str, report: Report) -> str:
    if contender in _OUR_COLOURS:
        return _OUR_COLOURS[contender]
    others = sorted({series.contender for series in report.series} - {*_OUR_COLOURS})
    return _COLOURS[others.index(contender) % len(_COLOURS)]


def _footnote(report: Report) -> str:
    facts = [report.machine.get("processor", ""), f"{report.machine.get('cores', '?')} cores"]
    facts += [f"{name} {report.versions[name]}" for name in ("wasm-sandbox", "wasmtime", "python")]
    return f"{', '.join(filter(None, facts))}. {report.rounds} rounds in alternating order; × is relative to {OURS}."
