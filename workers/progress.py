"""How a study goes, for whoever watches: a live table in a terminal, plain lines elsewhere."""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self, TextIO

import hpopt
from hpopt import TrialRow
from workers.table import Spec, clean, number, params_text, trials_table

_EVERY = 0.5
"""Seconds between two looks at the study."""
_SHARE_OF_TIME = 0.05
"""So much of the time at most is spent on looking, however large the study is."""
_NEWS_EVERY = 1.0
"""Seconds between two plain lines that are about running trials."""
ENDED = ("completed", "stopped", "failed")
"""States in which a trial stays."""

log = logging.getLogger("hpopt")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is to be seen of a study at one moment."""

    rows: list[TrialRow]
    best: TrialRow | None
    share: float
    """How much of the study is done, from 0 to 1."""
    left: float | None = None
    """Seconds that the rest will take, if it goes on like this; None as long as nothing is known."""

    def count(self, *states: str) -> int:
        """How many trials are in these states."""
        return sum(row.state in states for row in self.rows)


@dataclass(slots=True)
class Estimate:
    """Time left, from what was done since the first look: a resumed study has done some of it before."""

    started: float | None = None
    before: float = 0.0

    def left(self, share: float, now: float) -> float | None:
        """Seconds left when `share` of the study is done at the time `now`."""
        if self.started is None:
            self.started, self.before = now, share
        done = share - self.before
        return (1 - share) * (now - self.started) / done if done > 0 else None


class Screen(Protocol):
    """Where snapshots and messages are shown; called from several threads."""

    def show(self, snapshot: Snapshot) -> None:
        """Show how the study stands."""

    def say(self, text: str) -> None:
        """Show a message, for good."""

    def close(self) -> None:
        """Nothing more will be shown."""


@contextlib.contextmanager
def show(hpo: hpopt.HpOpt, progress: bool = True, out: TextIO | None = None) -> Iterator[Callable[[str], None]]:
    """Show how the study goes while the block runs, and the table of its trials after it.

    Yields a function that shows a message. Without `progress`, messages go to the log and nothing else is shown.
    """
    if not progress:
        yield lambda text: log.warning("hpopt: %s", text)
        return
    out = sys.stdout if out is None else out
    watch = Watch(hpo, make_screen(hpo.spec, out))
    try:
        with watch:
            yield watch.screen.say
    finally:  # also when the study is interrupted: how far it was is what one wants to know then
        if watch.snapshot is not None:
            print(trials_table(watch.snapshot.rows, hpo.spec, watch.snapshot.best), file=out, flush=True)


def make_screen(spec: Spec, out: TextIO) -> Screen:
    """A live table if `out` is a terminal and rich is installed, else plain lines."""
    if out.isatty():
        with contextlib.suppress(ImportError):
            from workers.live import LiveScreen

            return LiveScreen(spec, out)
    return PlainScreen(spec, out)


class Watch:
    """A daemon thread that looks at the study and shows what it saw, for as long as the `with` block runs."""

    def __init__(self, hpo: hpopt.HpOpt, screen: Screen) -> None:
        """Begins to look when the block is entered."""
        self.screen = screen
        self.snapshot: Snapshot | None = None
        self._hpo = hpo
        self._estimate = Estimate()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hpopt-progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join(timeout=10)
        self.screen.close()

    def _run(self) -> None:
        pause = 0.0
        while not self._ending.wait(pause):
            pause = max(_EVERY, self._look() / _SHARE_OF_TIME)
        self._look()

    def _look(self) -> float:
        """Look at the study once; returns how many seconds that took."""
        started = time.monotonic()
        try:
            self.snapshot = look(self._hpo, self._estimate, started)
            self.screen.show(self.snapshot)
        except Exception as error:  # noqa: BLE001 - a display must not end a study; the launcher sees what is serious
            log.debug("hpopt: progress not shown: %s", error)
        return time.monotonic() - started


def look(hpo: hpopt.HpOpt, estimate: Estimate, now: float) -> Snapshot:
    """The study at the time `now` of a monotonic clock."""
    rows, share, params = hpo.trials(), hpo.get_progress(), hpo.get_best_config()
    best = next((row for row in rows if row.score is not None and row.params == params), None)
    return Snapshot(rows, best, share, estimate.left(share, now))


@dataclass(slots=True)
class News:
    """What is worth a line: the end of a trial, and a new best score, though not every one of a running trial."""

    spec: Spec
    _ended: set[int] = field(default_factory=set)
    _best: tuple[int, float | None] | None = None
    _said_at: float = -_NEWS_EVERY

    def lines(self, snapshot: Snapshot, now: float) -> list[str]:
        """The lines for what has changed since the last call."""
        rows = [row for row in snapshot.rows if row.state in ENDED and row.id not in self._ended]
        self._ended.update(row.id for row in rows)
        best = snapshot.best
        new_best = best is not None and self._best != (best.id, best.score)
        if not new_best or best is None or (now - self._said_at < _NEWS_EVERY and best.state not in ENDED):
            return [self._end(row, snapshot) for row in rows]
        self._best, self._said_at = (best.id, best.score), now
        lines = [self._end(row, snapshot) for row in rows]
        return [*lines, f"best so far: {self._score(best)} (trial {best.id}) with {params_text(best.params)}"]

    def _end(self, row: TrialRow, snapshot: Snapshot) -> str:
        count = f"{snapshot.count(*ENDED)}/{self.spec.trials} ended"
        steps = f"{row.step} of {self.spec.iterations} steps"
        return f"trial {row.id} {row.state} after {steps}, {self._score(row)}: {clean(row.reason, 80)} [{count}]"

    def _score(self, row: TrialRow) -> str:
        return f"{clean(self.spec.metric)} {number(row.score)}"


class PlainScreen:
    """Lines for a log file, or a pipe."""

    def __init__(self, spec: Spec, out: TextIO) -> None:
        """Prints to `out`."""
        self._news = News(spec)
        self._out = out

    def show(self, snapshot: Snapshot) -> None:
        """Print what is new."""
        for line in self._news.lines(snapshot, time.monotonic()):
            self.say(line)

    def say(self, text: str) -> None:
        """Print a message."""
        self._out.write(f"{text}\n")
        self._out.flush()

    def close(self) -> None:
        """There is nothing to undo."""


def duration(seconds: float | None) -> str:
    """About how long: `40 s`, `12 min`, `3 h 5 min`."""
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
