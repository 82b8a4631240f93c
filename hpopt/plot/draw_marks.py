"""Draws where trials were stopped, and what they were compared with. Importing this file imports matplotlib."""

from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patheffects import withStroke

from hpopt.plot.canvas import faintness, scatter
from hpopt.plot.curves import CurvesPicture, Mark
from hpopt.plot.endings import BEST, ENDINGS
from hpopt.plot.scale import Scale

FEW = 40
"""So many marks at most have a line to the threshold that they missed, and the number of their trial where it fits."""
SPREAD = (0, 1, -1, 2, -2, 3, -3)
"""Marks on one rung stand beside one another in this order, so that they do not hide one another."""
APART = 0.006
"""Share of the axis between two of them."""
ROOM = (0.04, 0.035)
"""Shares of the axes, to both sides and upwards, in which a mark has no other where its trial's number is written."""

Place = tuple[float, float]


def draw_marks(axes: Axes, picture: CurvesPicture, scale: Scale) -> None:
    """All of them; the axes have their final limits."""
    xs = _side_by_side(axes, picture)
    places = [(x, scale.inside(mark.score)) for x, mark in zip(xs, picture.marks, strict=True)]
    few = len(picture.marks) <= FEW
    for each in ENDINGS:
        found = [(place, mark) for place, mark in zip(places, picture.marks, strict=True) if mark.ending is each]
        if not found:
            continue
        opacity = max(0.55, faintness(len(found)))
        bars = [(place, _bar(place, mark, scale)) for place, mark in found if mark.threshold is not None]
        if bars and few:
            axes.add_collection(LineCollection(bars, colors=each.colour, linewidths=0.9, linestyles=":", zorder=3))
        scatter(axes, [bar for _, bar in bars], s=70, c=BEST, marker="_", linewidths=1.1, alpha=opacity, zorder=5)
        scatter(axes, [place for place, _ in found], s=34, c=each.colour, marker=each.mark, edgecolors="white",
                linewidths=0.5, alpha=opacity, zorder=5)  # fmt: skip
    if few:
        _number(axes, places, picture.marks)


def _bar(place: Place, mark: Mark, scale: Scale) -> Place:
    """Where the threshold stands: above or below the mark, unless the rung lies before the mark's step."""
    return (place[0] if mark.at == mark.step else float(mark.at)), scale.inside(mark.threshold or 0.0)


def _side_by_side(axes: Axes, picture: CurvesPicture) -> list[float]:
    """The horizontal places of the marks: their steps, but on a rung one beside another."""
    (low, high), log = axes.get_xlim(), axes.get_xscale() == "log"
    places = [float(mark.step) for mark in picture.marks]
    for rung in picture.rungs:
        here = [i for i, mark in enumerate(picture.marks) if mark.step == rung.level]
        for n, i in enumerate(sorted(here, key=lambda i: picture.marks[i].score)):
            shift = APART * SPREAD[n % len(SPREAD)]
            places[i] = rung.level * (high / low) ** shift if log else rung.level + shift * (high - low)
    return places


def _number(axes: Axes, places: Sequence[Place], marks: Iterable[Mark]) -> None:
    """The trial's number beside each mark that has room for it."""
    shares = [tuple(axes.transLimits.transform(axes.transScale.transform(place))) for place in places]
    for i, mark in enumerate(marks):
        x, y = shares[i]
        near = (abs(v - y) < ROOM[1] and abs(u - x) < ROOM[0] for j, (u, v) in enumerate(shares) if j != i)
        if not any(near):
            axes.annotate(str(mark.trial), places[i], (6, 0), textcoords="offset points", fontsize=7.5, va="center",
                          zorder=6, path_effects=[withStroke(linewidth=2, foreground="white")])  # fmt: skip
