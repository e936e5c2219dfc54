"""The figures as PNG and SVG files; needs matplotlib."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

from impq_opt.documents.writing import atomic_write
from impq_opt.errors import FileError, MissingPackageError
from impq_opt.report.content import Report
from impq_opt.report.figures import Figure
from impq_opt.text import figure_text

__all__ = ["picture_bytes", "write_pictures"]

# Okabe and Ito's palette, told apart with every common colour blindness.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999933")
_MOST_TICKS = 40


def write_pictures(report: Report, folder: Path) -> list[Path]:
    """Write every figure to ``folder`` as PNG and as SVG; return the files.

    Raises
    ------
    MissingPackageError
        Without matplotlib.
    """
    written = []
    for key, figure in report.figures.items():
        for suffix in ("png", "svg"):
            data = picture_bytes(figure, suffix)
            _make(folder)
            written.append(folder / f"{key}.{suffix}")
            atomic_write(written[-1], data)
    return written


def picture_bytes(figure: Figure, suffix: str) -> bytes:
    """Return a figure as the bytes of a file: png, svg or pdf. The same figure gives the same bytes.

    Raises
    ------
    MissingPackageError
        Where matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        raise MissingPackageError("matplotlib", "pictures of the figures", "'impq-opt[report]'") from None
    data = io.BytesIO()
    dates: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
    # figure_text() counts on these two. A letter that the font lacks is shown as a box and is no news.
    plain: Any = {"svg.hashsalt": figure.key, "text.parse_math": True, "text.usetex": False}
    with mpl.rc_context(plain), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        canvas = Canvas(figsize=(7.2, 4.4), layout="constrained")
        _draw(canvas.add_subplot(), figure)
        canvas.savefig(data, format=suffix, dpi=160, metadata=dates[suffix])
    return data.getvalue()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot be made: {error.strerror}", where=str(folder)) from None


def _draw(axes: Any, figure: Figure) -> None:
    stacked = [s for s in figure.series if s.style == "stack"]
    floor = [0.0] * len(stacked[0].x) if stacked else []
    for place, series in enumerate(figure.series):
        colour, name = _COLOURS[place % len(_COLOURS)], figure_text(series.name)
        if series.style == "stack":
            shade = _shade(place, len(stacked))
            axes.bar(series.x, series.y, bottom=floor, color=shade, width=1.0, label=name)
            floor = [a + b for a, b in zip(floor, series.y, strict=True)]
        elif series.style == "bars":
            axes.bar(series.x, series.y, color=colour, label=name, width=0.8)
        elif series.style == "line":
            dashes = ("-", "--", ":")[place // len(_COLOURS) % 3]
            axes.plot(
                series.x,
                series.y,
                dashes,
                color=colour,
                marker="." if len(series.x) < 60 else "",
                label=name,
            )
        else:
            face = "none" if series.style == "ring" else colour
            axes.scatter(series.x, series.y, s=40, facecolors=face, edgecolors=colour, label=name, zorder=3)
    axes.set(title=figure_text(figure.title), xlabel=figure_text(figure.x), ylabel=figure_text(figure.y))
    if figure.x_log:
        axes.set_xscale("log")
    if figure.y_log:
        axes.set_yscale("log")
    if 0 < len(figure.ticks) <= _MOST_TICKS:
        axes.set_xticks(range(len(figure.ticks)), [figure_text(tick) for tick in figure.ticks], rotation=90, fontsize=6)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if len(figure.series) > 1:
        axes.figure.legend(loc="outside lower center", frameon=False, fontsize=7, ncols=5)


def _shade(place: int, count: int) -> tuple[float, float, float]:
    """Return a blue, the darker the more bits."""
    part = place / max(count - 1, 1)
    return (0.85 - 0.80 * part, 0.91 - 0.62 * part, 0.97 - 0.42 * part)
