"""How a study goes, for whoever watches: a live table in a terminal, plain lines elsewhere."""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self, TextIO

import hpopt
from hpopt import TrialRow
from workers.snapshot import ENDED, Estimate, Snapshot, look
from workers.table import Spec, clean, number, params_text, trials_table

_EVERY = 0.5
"""Seconds between two looks at the study, ..."""
_EVERY_LIVE, _EVERY_PLAIN = 2.0, 10.0
"""... and of a worker that is one of many: in a terminal, and where lines are printed."""
_SHARE_OF_TIME = 0.05
"""So much of the time at most is spent on looking, however large the study is."""
_NEWS_EVERY = 1.0
"""Seconds between two plain lines that are about running trials."""
_REASON = 240
"""Characters of a reason in a line."""
_LAST_LOOK, _INTERRUPTED_LOOK = 10.0, 3.0
"""Seconds to show the last state, and after an interruption: in an outage it is not there to be seen."""

log = logging.getLogger("hpopt")


class Screen(Protocol):
    """Where snapshots and messages are shown; called from several threads."""

    def show(self, snapshot: Snapshot) -> None:
        """Show how the study stands."""

    def say(self, text: str) -> None:
        """Show a message, for good."""

    def close(self) -> None:
        """Nothing more will be shown."""


class Voice:
    """Speaks to whoever watches; called with a text it says that, for good."""

    def __init__(self, say: Callable[[str], None], mention: Callable[[str], None] | None = None) -> None:
        """`mention` is for what is only of passing interest; without it, nobody hears of that."""
        self._say = say
        self._mention = mention
        self.trained: Collection[int] = ()
        """The trials that this process has begun; a crew puts its own set here."""

    def __call__(self, text: str) -> None:
        """Say it, for good."""
        self._say(text)

    def mention(self, text: str) -> None:
        """Say what a log may hold, but what a live table shows anyway."""
        if self._mention is not None:
            self._mention(text)


@contextlib.contextmanager
def show(
    hpo: hpopt.HpOpt, progress: bool = True, out: TextIO | None = None, *, joined: bool = False
) -> Iterator[Voice]:
    """Show how the study goes while the block runs, and the table of its trials after it.

    Yields what shows a message. Without `progress`, messages go to the log and nothing else is shown. A worker that has
    `joined` a study is one of many: it looks less often, and its lines and its table are about its own trials.
    """
    if not progress:
        yield Voice(lambda text: log.warning("hpopt: %s", text))
        return
    out = sys.stdout if out is None else out
    screen = make_screen(hpo.spec, out)
    plain = isinstance(screen, PlainScreen)
    voice = Voice(screen.say, screen.say if joined and plain else None)
    if joined and isinstance(screen, PlainScreen):
        screen.only(lambda trial: trial in voice.trained)
    watch = Watch(hpo, screen, (_EVERY_PLAIN if plain else _EVERY_LIVE) if joined else _EVERY)
    try:
        with watch:
            yield voice
    except Exception:
        if joined and not voice.trained:
            watch.snapshot = None  # it did not get to begin: what went wrong is all that is of interest
        raise
    finally:  # also when the study is interrupted: how far it was is what one wants to know then
        if watch.snapshot is not None:
            lines = _farewell(watch.snapshot, hpo.spec, voice.trained if joined else None)
            print(lines, file=out, flush=True)


def _farewell(snapshot: Snapshot, spec: Spec, trained: Collection[int] | None) -> str:
    """The table of all trials; of a worker's own if it is one of many, and how the study stands."""
    if trained is None:
        return trials_table(snapshot.rows, spec, snapshot.best)
    own = [row for row in snapshot.rows if row.id in trained]
    ended = f"{snapshot.count(*ENDED)} of {spec.trials} trials of the study have ended; trained here: {len(own)}"
    best = snapshot.best
    leader = "" if best is None else f"; best: {clean(spec.metric)} {number(best.score)} (trial {best.id})"
    return "\n".join([*([trials_table(own, spec, best)] if own else []), f"{ended}{leader}"])


def make_screen(spec: Spec, out: TextIO) -> Screen:
    """A live table if `out` is a terminal and rich is installed, else plain lines."""
    if out.isatty():
        with contextlib.suppress(ImportError):
            from workers.live import LiveScreen

            return LiveScreen(spec, out)
    return PlainScreen(spec, out)


class Watch:
    """A daemon thread that looks at the study and shows what it saw, for as long as the `with` block runs."""

    def __init__(self, hpo: hpopt.HpOpt, screen: Screen, every: float = _EVERY) -> None:
        """Begins to look when the block is entered, and again at least `every` so many seconds."""
        self.screen = screen
        self.snapshot: Snapshot | None = None
        self._hpo = hpo
        self._every = every
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
        self._thread.join(timeout=_LAST_LOOK if kind is None else _INTERRUPTED_LOOK)
        self.screen.close()

    def _run(self) -> None:
        pause = 0.0
        while not self._ending.wait(pause):
            pause = max(self._every, self._look() / _SHARE_OF_TIME)
        self._look()

    def _look(self) -> float:
        """Look at the study once; returns how many seconds of work that was. Waiting for the server is none."""
        started = time.thread_time()
        try:
            self.snapshot = look(self._hpo, self._estimate, time.monotonic())
            self.screen.show(self.snapshot)
        except Exception as error:  # noqa: BLE001 - a display must not end a study; the launcher sees what is serious
            log.debug("hpopt: progress not shown: %s", error)
        return time.thread_time() - started


@dataclass(slots=True)
class News:
    """What is worth a line: the end of a trial, and a new best score, though not every one of a running trial."""

    spec: Spec
    mine: Callable[[int], bool] = lambda _trial: True
    """Whose ends are news."""
    _ended: set[int] = field(default_factory=set)
    _best: tuple[int, float | None] | None = None
    _said_at: float = -_NEWS_EVERY

    def lines(self, snapshot: Snapshot, now: float) -> list[str]:
        """The lines for what has changed since the last call."""
        rows = [row for row in snapshot.rows if row.state in ENDED and row.id not in self._ended and self.mine(row.id)]
        self._ended.update(row.id for row in rows)
        best = snapshot.best
        new_best = best is not None and self._best != (best.id, best.score)
        if not new_best or best is None or (now - self._said_at < _NEWS_EVERY and best.state not in ENDED):
            return self._ends(rows, snapshot)
        self._best, self._said_at = (best.id, best.score), now
        leader = f"best so far: {self._score(best)} (trial {best.id}) with {params_text(best.params)}"
        return [*self._ends(rows, snapshot), leader]

    def _ends(self, rows: list[TrialRow], snapshot: Snapshot) -> list[str]:
        before = snapshot.count(*ENDED) - len(rows)
        return [self._end(row, before + k) for k, row in enumerate(rows, start=1)]

    def _end(self, row: TrialRow, ended: int) -> str:
        how = f"{row.state} after {row.step} of {self.spec.iterations} steps, {self._score(row)}"
        return f"trial {row.id} {how}: {clean(row.reason, _REASON)} [{ended}/{self.spec.trials} ended]"

    def _score(self, row: TrialRow) -> str:
        return f"{clean(self.spec.metric)} {number(row.score)}"


class PlainScreen:
    """Lines for a log file, or a pipe."""

    def __init__(self, spec: Spec, out: TextIO) -> None:
        """Prints to `out`."""
        self._news = News(spec)
        self._out = out

    def only(self, mine: Callable[[int], bool]) -> None:
        """Say only the ends of those trials for which `mine` is true."""
        self._news.mine = mine

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
