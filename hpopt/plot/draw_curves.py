"""Draws the learning curves. Importing this file imports matplotlib."""

from collections.abc import Collection, Sequence

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from hpopt.plot.canvas import (
    GREY,
    best_label,
    canvas,
    counted,
    faintness,
    heading,
    legend,
    scatter,
    score_label,
    show_scores,
)
from hpopt.plot.curves import CurvesPicture, Line, Rung, curves_picture
from hpopt.plot.draw_marks import draw_marks
from hpopt.plot.endings import BEST, ENDINGS, STOPPED
from hpopt.plot.record import StudyRecord
from hpopt.plot.scale import Scale, scale_of

LOG_FROM = 16
"""From this ratio of the last rung to the first on, the axis of steps is logarithmic: the rungs stand apart there."""
MANY = 40
"""More lines than this are thin."""

Placed = list[tuple[float, float]]


def draw_curves(record: StudyRecord, scale_name: str) -> Figure:
    """The figure."""
    picture = curves_picture(record)
    scale = scale_of(picture.scores, record.spec.sign, scale_name)
    figure = canvas(heading(record, "learning curves"), 10, 6.2)
    axes = figure.subplots()
    show_scores(axes, scale)
    _steps(axes, picture)
    _lines(axes, picture, scale)
    draw_marks(axes, picture, scale)
    axes.set_ylabel(score_label(record))
    handles = counted((line.ending for line in picture.lines), record.spec, lines=True)
    legend(figure, [*handles, *_more(picture, record)], [*picture.notes, scale.note])
    return figure


def _steps(axes: Axes, picture: CurvesPicture) -> None:
    """The horizontal axis, with the rungs or the grace period."""
    levels = [rung.level for rung in picture.rungs]
    axes.set_xlabel("step")
    if levels and picture.iterations >= LOG_FROM * levels[0]:
        axes.set_xscale("log")
        axes.set_xlim(levels[0] * 0.8, picture.iterations * 1.08)
        axes.xaxis.set_major_locator(FixedLocator([*levels, picture.iterations]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter("{x:g}")
    else:
        axes.set_xlim(1 - 0.03 * picture.iterations, picture.iterations * 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for level in levels:
        axes.axvline(level, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    if levels:
        _counts(axes, picture.rungs)
    if picture.grace:
        axes.axvspan(axes.get_xlim()[0], picture.grace + 0.5, color="#EBEBEB", zorder=0)


def _counts(axes: Axes, rungs: Sequence[Rung]) -> None:
    """Above each rung: how many of those who reached it were stopped there."""
    top = axes.secondary_xaxis("top")
    top.xaxis.set_major_locator(FixedLocator([rung.level for rung in rungs]))
    top.xaxis.set_minor_locator(NullLocator())
    top.set_xticks([rung.level for rung in rungs], [f"{rung.stopped} of {rung.reached}" for rung in rungs], fontsize=9)
    top.set_xlabel("stopped at the rung, of those that reached it", fontsize=9, color=GREY)
    top.spines["top"].set_visible(False)
    top.tick_params(length=0)


def _lines(axes: Axes, picture: CurvesPicture, scale: Scale) -> None:
    marked = {(mark.trial, mark.step) for mark in picture.marks}
    width = 1.0 if len(picture.lines) > MANY else 1.4
    for each in ENDINGS:
        lines = [line for line in picture.lines if line.ending is each and line.trial != picture.best]
        runs = [run for line in lines for run in _placed(line, scale, marked)]
        _draw(axes, runs, each.colour, width, faintness(len(lines)))
    best = [run for line in picture.lines if line.trial == picture.best for run in _placed(line, scale, set())]
    axes.add_collection(LineCollection(best, colors="white", linewidths=4.5, zorder=4))
    _draw(axes, best, BEST, 2.4, 1.0)


def _draw(axes: Axes, runs: list[Placed], colour: str, width: float, opacity: float) -> None:
    """Lines; a score without neighbours makes none, so it is a dot."""
    z = 4 if colour == BEST else 2
    axes.add_collection(LineCollection(runs, colors=colour, linewidths=width, alpha=opacity, zorder=z))
    alone = [run[0] for run in runs if len(run) == 1]
    scatter(axes, alone, s=8 * width, c=colour, alpha=opacity, linewidths=0, zorder=z)


def _placed(line: Line, scale: Scale, marked: Collection[tuple[int, int]]) -> list[Placed]:
    """The runs of a line where they are drawn, but single scores that have a mark of their own."""
    shown = [run for run in line.runs if len(run) > 1 or (line.trial, run[0][0]) not in marked]
    return [[(step, scale.near(score)) for step, score in run] for run in shown]


def _more(picture: CurvesPicture, record: StudyRecord) -> list[Line2D]:
    """Entries of the legend that are not about how trials ended."""
    handles = []
    missed = "worst score kept at the rung then" if picture.rungs else "median of the others' means"
    if any(mark.ending is STOPPED and mark.threshold is not None for mark in picture.marks):
        handles.append(Line2D([], [], color=BEST, marker="_", linewidth=0, markersize=9, label=missed))
    if picture.rungs:
        handles.append(Line2D([], [], color=GREY, linewidth=1, linestyle=(0, (4, 3)), label="rung"))
    if picture.grace:
        handles.append(
            Line2D([], [], color="#DDDDDD", linewidth=8, label=f"grace: nobody is stopped up to step {picture.grace}")
        )
    if picture.best is not None:
        handles.append(Line2D([], [], color=BEST, linewidth=2.4, label=best_label(record)))
    return handles
