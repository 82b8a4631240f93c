"""Draws the scores over each hyper-parameter. Importing this file imports matplotlib."""

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hpopt.plot.canvas import (
    best_label,
    canvas,
    counted,
    dots,
    heading,
    legend,
    plain,
    plain_ticks,
    score_label,
    show_scores,
    star,
)  # fmt: skip
from hpopt.plot.endings import BEST
from hpopt.plot.parameters import Panel, parameters_picture
from hpopt.plot.record import StudyRecord
from hpopt.plot.scale import Scale, scale_of

COLUMNS = 4
LABELS = 12
"""So many options at most are named on an axis."""


def draw_parameters(record: StudyRecord, scale_name: str) -> Figure:
    """The figure: a panel for each hyper-parameter, with one axis of scores for all."""
    picture = parameters_picture(record)
    scores = [value.score for value in picture.panels[0].values]
    scale = scale_of(scores, record.spec.sign, scale_name)
    columns = min(
        COLUMNS, math.ceil(math.sqrt(len(picture.panels))) if len(picture.panels) > 3 else len(picture.panels)
    )
    rows = math.ceil(len(picture.panels) / columns)
    figure = canvas(heading(record, "hyper-parameters"), max(6.5, 3.1 * columns), 1.4 + 2.7 * rows)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False).flat
    for index, axes in enumerate(grid):
        if index < len(picture.panels):
            _panel(axes, picture.panels[index], scale, picture.best)
        else:
            axes.set_axis_off()
    figure.supylabel(score_label(record), fontsize=10)
    best = Line2D([], [], color=BEST, linewidth=0, marker="*", markersize=11, label=best_label(record))
    handles = counted((value.ending for value in picture.panels[0].values), record.spec, lines=False)
    legend(figure, [*handles, best], [*picture.notes, scale.note])
    return figure


def _panel(axes: Axes, panel: Panel, scale: Scale, best: int | None) -> None:
    show_scores(axes, scale)
    axes.set_xlabel(plain(panel.name), fontweight="bold")
    if panel.log:
        axes.set_xscale("log")
        edge = (panel.high / panel.low) ** 0.04
        axes.set_xlim(panel.low / edge, panel.high * edge)
        plain_ticks(axes.xaxis, panel.high / panel.low)
    else:
        edge = 0.0 if panel.options else 0.04 * (panel.high - panel.low) or 0.5
        axes.set_xlim(panel.low - edge, panel.high + edge)
    if panel.options:
        every = math.ceil(len(panel.options) / LABELS)
        places = range(0, len(panel.options), every)
        slanted = sum(map(len, panel.options[::every])) > 28
        axes.set_xticks(list(places), [plain(panel.options[place]) for place in places], rotation=30 * slanted,
                        ha="right" if slanted else "center")  # fmt: skip
        axes.grid(visible=False, axis="x")
    dots(axes, [(value.x, scale.inside(value.score), value.ending) for value in panel.values], 22)
    for value in panel.values:
        if value.trial == best:
            star(axes, value.x, scale.inside(value.score))
