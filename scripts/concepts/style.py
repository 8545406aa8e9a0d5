"""One look for all plots: readable in black and white, the same bytes for the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLACK, BLUE, ORANGE, GREEN, GREY = "#000000", "#0072B2", "#D55E00", "#009E73", "#8C8C8C"
# Colour, dash and marker change together, so that none of them is needed alone.
SERIES: tuple[dict[str, Any], ...] = (
    {"color": BLUE, "linestyle": "-", "marker": "o"},
    {"color": ORANGE, "linestyle": "--", "marker": "s"},
    {"color": GREEN, "linestyle": "-.", "marker": "^"},
    {"color": BLACK, "linestyle": ":", "marker": "D"},
    {"color": GREY, "linestyle": (0, (5, 1)), "marker": "v"},
)
TARGET: dict[str, Any] = {"color": BLACK, "linewidth": 0.8, "linestyle": (0, (4, 3)), "zorder": 0}

_RC = {
    # Text stays text: small files, and the fonts named here have the same widths.
    "svg.fonttype": "none",
    "svg.hashsalt": "finetune",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "savefig.facecolor": "white",
}


class Plot(NamedTuple):
    """A figure, and what it shows in numbers: the lines that its page quotes."""

    figure: Figure
    findings: list[str]


def panels(n: int = 2, *, height: float = 2.9, width: float = 7.2) -> tuple[Figure, list[Axes]]:
    """Make a figure with n panels side by side."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, n, squeeze=False)[0]
    return figure, list(axes)


def percent_axis(axis: Any) -> None:
    """Write shares as percentages on an axis (ax.xaxis or ax.yaxis)."""
    axis.set_major_formatter(lambda value, _: f"{100 * value:g} %")


def make(draw: Callable[[], Plot], path: Path) -> list[str]:
    """Draw a plot into a file, and return what it shows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_RC):
        figure, findings = draw()
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, metadata=metadata, dpi=120)
    return findings
