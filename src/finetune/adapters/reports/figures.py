"""The figures of the evaluation report: matplotlib drawings as SVG text that follows the page's colours.

The SVG is the same, byte for byte, for the same numbers and the same matplotlib: no date, fixed
identifiers.  Every identifier carries the figure's name, so that several drawings can stand in one page.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Stand-ins that no other element uses: after drawing they become the page's own colours.
INK, MUTED, ACCENT, SECOND, WARN, GRID = "#010203", "#040506", "#070809", "#0a0b0c", "#0d0e0f", "#101112"
PAGE_COLOURS = {
    INK: "ink",
    MUTED: "muted",
    ACCENT: "accent",
    SECOND: "second",
    WARN: "warn",
    GRID: "line",
}

SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "finetune-report",
    # A label may hold a dollar sign: it is no formula.
    "text.parse_math": False,
    "font.size": 11.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def _draw(name: str, title: str, size: tuple[float, float], paint: Callable[[Any], None]) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        # The browser draws the text with its own fonts; matplotlib's need not have the glyph.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=size, layout="constrained")
        paint(figure)
        buffer = io.StringIO()
        canvas = FigureCanvasSVG(figure)
        canvas.print_svg(buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _embed(buffer.getvalue(), name, title)


def _embed(svg: str, name: str, title: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    for stand_in, colour in PAGE_COLOURS.items():
        svg = svg.replace(stand_in, f"var(--{colour})")
    # The browser's fonts, at the width that the page has.
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px var(--font)", svg)
    head, rest = svg.split(">", 1)
    head = re.sub(r'\s(?:width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-labelledby="{name}-title"><title id="{name}-title">{title}</title>{rest}'


def draw_reliability(calibration: Mapping[str, Any], unit: str) -> str:
    """Draw claimed confidence against observed accuracy, before and after the map.

    Parameters
    ----------
    calibration
        The document's ``calibration``: ``before`` and ``after``, each with ``bins`` of ``lower``, ``upper``,
        ``count``, ``confidence`` and ``accuracy`` (the last two null where a bin is empty).
    unit
        What one row is called.

    Returns
    -------
    str
        One ``<svg>`` element.  Marker area grows with the bin's count; empty bins have no marker.
    """

    def paint(figure: Any) -> None:
        top, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        top.plot((0, 1), (0, 1), color=MUTED, linewidth=1.2, linestyle="--", label="says what is true")
        for part, colour, marker, label in (
            ("before", SECOND, "s", "before calibration"),
            ("after", ACCENT, "o", "after calibration"),
        ):
            bins = [entry for entry in calibration[part]["bins"] if entry["count"]]
            largest = max((entry["count"] for entry in bins), default=1)
            x = [entry["confidence"] for entry in bins]
            y = [entry["accuracy"] for entry in bins]
            top.plot(x, y, color=colour, linewidth=1.4, label=label, marker=marker, markersize=4)
            area = [14 + 90 * entry["count"] / largest for entry in bins]
            top.scatter(x, y, s=area, color=colour, marker=marker)
        top.set(xlim=(0, 1), ylim=(0, 1.03), ylabel="share that was right")
        top.legend(loc="upper left", markerscale=1.0)
        bins = calibration["after"]["bins"]
        below.bar(
            [entry["lower"] for entry in bins],
            [entry["count"] for entry in bins],
            width=[entry["upper"] - entry["lower"] for entry in bins],
            align="edge",
            color=ACCENT,
            edgecolor="none",
        )
        below.set(ylabel=f"{unit}s", xlabel="confidence that the model claims")
        below.locator_params(axis="y", nbins=3, integer=True)

    return _draw("reliability", "Claimed confidence against observed accuracy", (5.2, 5.0), paint)


def draw_risk_coverage(curve: Mapping[str, Any], promised: float, unit: str) -> str:
    """Draw the error among what is answered against the share that is answered, with the rule's own point.

    Parameters
    ----------
    curve
        The document's ``risk_coverage``: ``points`` of ``share`` and ``error``, and ``operating`` (or null).
    promised
        The promised largest error among answered.
    unit
        What one row is called.

    Returns
    -------
    str
        One ``<svg>`` element.
    """

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        shares = [point["share"] for point in curve["points"]]
        errors = [point["error"] for point in curve["points"]]
        axes.plot(shares, errors, color=ACCENT, linewidth=1.8, label="if answered by confidence")
        axes.axhline(promised, color=WARN, linewidth=1.4, linestyle="--", label="promised at most")
        operating = curve["operating"]
        if operating is not None:
            axes.plot(
                operating["share"],
                operating["error"],
                marker="o",
                markersize=9,
                linestyle="none",
                color=INK,
                label="this decision rule",
            )
        highest = max([promised, *errors, operating["error"] if operating else 0.0])
        axes.set(
            xlim=(0, 1.02),
            ylim=(0, min(1.02, highest * 1.35)),
            xlabel=f"share of {unit}s answered",
            ylabel="share of wrong answers",
        )
        axes.legend(loc="upper left")

    return _draw("risk-coverage", "Wrong answers against the share answered", (5.2, 3.6), paint)


def draw_set_sizes(sizes: Sequence[Mapping[str, int]], unit: str) -> str:
    """Draw how many rows have a shortlist of each size.

    Parameters
    ----------
    sizes
        Entries of ``size`` and ``rows``.
    unit
        What one row is called.

    Returns
    -------
    str
        One ``<svg>`` element.
    """

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        axes.bar(
            [entry["size"] for entry in sizes], [entry["rows"] for entry in sizes], color=ACCENT, width=0.8
        )
        axes.locator_params(axis="x", integer=True)
        axes.locator_params(axis="y", integer=True)
        axes.grid(visible=False, axis="x")
        axes.set(xlabel="labels on the shortlist", ylabel=f"{unit}s")

    return _draw("set-sizes", "Sizes of the shortlists", (5.2, 2.8), paint)
