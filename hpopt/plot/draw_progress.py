"""Draws a study's progress. Importing this file imports matplotlib."""

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hpopt.plot.canvas import best_label, canvas, counted, dots, heading, legend, score_label, show_scores, star
from hpopt.plot.endings import BEST
from hpopt.plot.progress import progress_picture
from hpopt.plot.record import StudyRecord
from hpopt.plot.scale import scale_of


def draw_progress(record: StudyRecord, scale_name: str) -> Figure:
    """The figure: over time on the left, over trials on the right."""
    picture = progress_picture(record)
    scale = scale_of([dot.score for dot in picture.dots], record.spec.sign, scale_name)
    figure = canvas(heading(record, "progress"), 11, 5.2)
    seconds, unit = picture.unit
    for axes, over_time in zip(figure.subplots(1, 2, sharey=True), (True, False), strict=True):
        show_scores(axes, scale)
        where = {dot.trial: dot.seconds / seconds if over_time else dot.order for dot in picture.dots}
        dots(axes, [(where[dot.trial], scale.inside(dot.score), dot.ending) for dot in picture.dots])
        xs = [time / seconds if over_time else order for time, order, _ in picture.stairs]
        ys = [scale.inside(score) for _, _, score in picture.stairs]
        axes.step([*xs, max(xs)], [*ys, ys[-1]], where="post", color=BEST, linewidth=1.8, zorder=4)
        for dot in picture.dots:
            if dot.trial == picture.best:
                star(axes, where[dot.trial], scale.inside(dot.score))
        axes.set_xlabel(
            f"{unit} since the first trial was handed out" if over_time else "trials, in the order they ended"
        )
        axes.set_xlim(left=0)
    figure.axes[0].set_ylabel(score_label(record))
    best = Line2D([], [], color=BEST, linewidth=1.8, marker="*", markersize=11, label=best_label(record))
    handles = counted((dot.ending for dot in picture.dots), record.spec, lines=False)
    legend(figure, [*handles, best], [*picture.notes, scale.note])
    return figure
