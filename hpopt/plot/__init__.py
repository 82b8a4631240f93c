"""Pictures of a study, for a person. `python -m hpopt.plot FOLDER --out picture.png` is the command.

    draw(from_folder("my-study"), "curves", "picture.png")

Each picture is first a plain value (curves.py, progress.py, parameters.py); matplotlib is loaded by what draws it.
"""

import os
from typing import TYPE_CHECKING, Literal, get_args

from hpopt.errors import MissingExtra
from hpopt.plot.record import StudyRecord, from_folder, from_server

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["KINDS", "Kind", "StudyRecord", "draw", "from_folder", "from_server"]

Kind = Literal["curves", "progress", "parameters"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def draw(
    record: StudyRecord, kind: Kind = "curves", path: str | os.PathLike[str] | None = None, scale: str = "auto"
) -> "Figure":
    """The picture of a kind, as a figure of matplotlib; also written to `path` if it is given.

    `scale` of the scores: "linear", "log", or "auto", which is "log" for losses that span orders of magnitude.

    Raises ValueError when there is nothing to draw or an argument is not what it may be, MissingExtra without
    matplotlib.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: use one of {', '.join(KINDS)}")
    try:
        from hpopt.plot.canvas import save
        from hpopt.plot.draw_curves import draw_curves
        from hpopt.plot.draw_parameters import draw_parameters
        from hpopt.plot.draw_progress import draw_progress
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise MissingExtra("pictures need matplotlib: pip install 'hpopt[plot]'") from error
    painters = {"curves": draw_curves, "progress": draw_progress, "parameters": draw_parameters}
    figure = painters[kind](record, scale)
    if path is not None:
        save(figure, path)
    return figure
