"""The live table of a terminal. Needs rich."""

from collections.abc import Iterator
from typing import Literal, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hpopt import TrialRow
from workers.snapshot import ENDED, Snapshot, duration
from workers.table import Spec, clean, number, params_text

_MARGIN = 8
"""Lines of the terminal that are not for trials."""
_BAR = 60
_STYLES = {"running": "green", "completed": "bold", "failed": "red", "lost": "yellow", "out_of_memory": "yellow"}


class LiveScreen:
    """Draws itself anew with every snapshot; messages scroll away above it."""

    def __init__(self, spec: Spec, out: TextIO) -> None:
        """Takes the bottom of the terminal until it is closed."""
        self._spec = spec
        self._console = Console(file=out)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._live.start()

    def show(self, snapshot: Snapshot) -> None:
        """Draw the study as it is now."""
        room = max(3, self._console.size.height - _MARGIN)
        self._live.update(render(snapshot, self._spec, room), refresh=True)

    def say(self, text: str) -> None:
        """Print a message above the table."""
        self._console.print(Text(text))

    def close(self) -> None:
        """Give the terminal back."""
        self._live.stop()


def render(snapshot: Snapshot, spec: Spec, room: int) -> RenderableType:
    """The study as something that rich can draw, with at most `room` trials: those under way, then the latest."""
    table = Table(box=None, pad_edge=False, expand=True)
    wide = [5, 13, max(8, len(clean(spec.metric))), max(5, len(f"{spec.iterations}/{spec.iterations}"))]
    for name, width in zip(("trial", "state", clean(spec.metric), "steps"), wide, strict=True):
        justify: Literal["left", "right"] = "left" if name == "state" else "right"
        table.add_column(Text(name), justify=justify, no_wrap=True, width=width)
    table.add_column(Text("hyper-parameters"), overflow="ellipsis", no_wrap=True, ratio=1)  # what is left
    for row in sorted(_chosen(snapshot.rows, room), key=lambda row: row.id):
        state = Text(row.state.replace("_", " "), style=_STYLES.get(row.state, ""))
        cells = (f"{row.id}", state, number(row.score), f"{row.step}/{spec.iterations}", params_text(row.params))
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells))
    return Group(*_head(snapshot, spec), table)


def _head(snapshot: Snapshot, spec: Spec) -> Iterator[RenderableType]:
    counts = [f"{snapshot.count(*ENDED)} of {spec.trials} trials ended", f"{snapshot.count('running')} running"]
    counts += [f"{snapshot.count(state)} {state}" for state in ("stopped", "failed") if snapshot.count(state)]
    yield Text(", ".join([*counts, f"time left: {duration(snapshot.left)}"]))
    done = round(_BAR * snapshot.share)
    yield Text.assemble(("━" * done, "green"), ("━" * (_BAR - done), "dim"))
    best = snapshot.best
    if best is not None:
        score = f"{clean(spec.metric)} {number(best.score)}"
        text = f"best: {score} (trial {best.id}) with {params_text(best.params)}"
        yield Text(text, style="bold", no_wrap=True, overflow="ellipsis")


def _chosen(rows: list[TrialRow], room: int) -> list[TrialRow]:
    def urgency(row: TrialRow) -> tuple[bool, float]:
        return (row.state in ENDED, -row.ended_at)

    return sorted(rows, key=urgency)[:room]
