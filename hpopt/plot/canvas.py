"""What all pictures share: the figure, its words, its legend, and its file. Importing this file imports matplotlib."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from hpopt.core.spec import StudySpec
from hpopt.plot.endings import BEST, COMPLETED, ENDINGS, STOPPED, UNDER_WAY, Ending
from hpopt.plot.record import StudyRecord, plural
from hpopt.plot.scale import Scale
from hpopt.results import TrialRow

DPI = 120
NARROW, WIDE = 2.2, 5
"""Decades up to which a logarithmic axis has ticks at 1, 2, 5, and up to which they are plain numbers."""
LEGEND_WIDTH = 14
"""Characters of the legend that fit on an inch."""
GREY = "#666666"


def canvas(title: str, width: float, height: float) -> Figure:
    """An empty figure of so many inches; not one of pyplot's, so nothing has to be closed."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=12)
    return figure


def heading(record: StudyRecord, what: str) -> str:
    """The title of a picture: of which study, and what it did."""
    spec = record.spec
    search = "ASHA" if spec.search_alg == "asha" else "Bayesian optimization"
    rule = " with median stopping" if spec.early_stop == "median_stop" else ""
    return f"{plain(record.name)}: {what} of {plural(len(record.rows), 'trial')}, {search}{rule}"


def best_label(record: StudyRecord) -> str:
    """What the legend says of the best trial."""
    row: TrialRow = next(row for row in record.rows if row.id == record.best)
    return f"best: trial {row.id}, {row.score:.4g}"


def score_label(record: StudyRecord) -> str:
    """The name of the axis of scores, and which way is better."""
    return f"{plain(record.spec.metric)}  ({'higher' if record.spec.sign > 0 else 'lower'} is better)"


def plain(text: str) -> str:
    """The text as it is: a dollar sign would begin a formula, and lines would break."""
    return " ".join(text.split()).replace("$", r"\$")


def show_scores(axes: Axes, scale: Scale) -> None:
    """Make the vertical axis one of scores."""
    axes.set_ylim(scale.low, scale.high)
    if scale.log:
        axes.set_yscale("log")
        plain_ticks(axes.yaxis, scale.high / scale.low)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#E6E6E6", linewidth=0.7)
    axes.set_axisbelow(True)


def plain_ticks(axis: Axis, ratio: float) -> None:
    """Numbers as people write them on a logarithmic axis whose ends have this ratio, as far as they are short."""
    low, high = sorted(axis.get_view_interval())
    if ratio < 10**WIDE and low >= 1e-4 and high < 1e6:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if ratio < 10**NARROW else (1,)))
        axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def faintness(count: int) -> float:
    """The opacity at which so many lines or dots still show where they are dense."""
    return min(0.9, max(0.22, 3.5 / math.sqrt(max(count, 1))))


def dots(axes: Axes, points: Sequence[tuple[float, float, Ending]], size: float = 26) -> None:
    """One mark for each (x, score, ending); those under way are hollow."""
    for each in ENDINGS:
        places = [(x, y) for x, y, how in points if how is each]
        hollow = each is UNDER_WAY
        scatter(axes, places, s=size, c="none" if hollow else each.colour, marker=each.mark,
                edgecolors=each.colour if hollow else "white", linewidths=1.2 if hollow else 0.4,
                alpha=max(0.3, faintness(len(places))), zorder=3)  # fmt: skip


def scatter(axes: Axes, places: Sequence[tuple[float, float]], **style: Any) -> None:
    """Marks at (x, y), which the edges of the axes do not cut; none if there are no places."""
    if places:
        xs, ys = zip(*places, strict=True)
        axes.scatter(xs, ys, clip_on=False, **style)


def star(axes: Axes, x: float, y: float) -> None:
    """The mark of the best trial."""
    scatter(axes, [(x, y)], s=190, c=BEST, marker="*", edgecolors="white", linewidths=0.9, zorder=6)


def counted(endings: Iterable[Ending], spec: StudySpec, *, lines: bool) -> list[Line2D]:
    """Entries of the legend: each way to end that occurs, and how often."""
    counts = Counter(endings)
    rule = "ASHA" if spec.search_alg == "asha" else "the median rule"
    handles = []
    for each in reversed(ENDINGS):
        label = f"stopped by {rule}" if each is STOPPED else each.label
        if counts[each]:
            handles.append(_entry(each, f"{label} ({counts[each]})", line=lines))
    return handles


def _entry(each: Ending, label: str, *, line: bool) -> Line2D:
    hollow = each is UNDER_WAY
    mark: dict[str, Any] = {"marker": each.mark, "markersize": 6, "markerfacecolor": "none" if hollow else each.colour}
    if line and each in (COMPLETED, UNDER_WAY):
        mark = {}
    return Line2D([], [], color=each.colour, linewidth=1.8 if line else 0, label=label, **mark)


def legend(figure: Figure, handles: Sequence[Line2D], notes: Iterable[str]) -> None:
    """Below the picture: what its marks mean, under what there is to note."""
    labels = [len(str(handle.get_label())) + 8 for handle in handles]
    columns = next((n for n in (6, 5, 4, 3, 2) if n * max(labels) < LEGEND_WIDTH * figure.get_figwidth()), 1)
    title = "; ".join(note for note in notes if note) or None
    figure.legend(handles=list(handles), loc="outside lower center", ncols=columns, fontsize=9,
                  frameon=False, title=title, title_fontproperties={"size": 8, "style": "italic"})  # fmt: skip


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write the figure in the format that the file's name ends in. Raises ValueError for one that there is not."""
    kind = Path(path).suffix.removeprefix(".").lower()
    known = figure.canvas.get_supported_filetypes()
    if kind not in known:
        raise ValueError(f"path={os.fspath(path)!r}: end it in one of .{', .'.join(sorted(known))}")
    if not Path(path).parent.is_dir():
        raise ValueError(f"path={os.fspath(path)!r}: the folder {str(Path(path).parent)!r} does not exist: make it")
    figure.savefig(path)
