"""Keeps the results files in `save_path` up to date, off the call path."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from redis import exceptions

from hpopt.core.plan import Plan
from hpopt.core.spec import StudySpec
from hpopt.core.trial import Trial
from hpopt.curves import FILE, CurvesFile, Tails
from hpopt.errors import HpoptError
from hpopt.results import RESULTS, TRIALS, write_files

AT_MOST_EVERY = 1.0
"""Seconds between two writings."""
SHARE_OF_TIME = 0.05
"""So much of the time at most is spent on writing, however large the study is."""

log = logging.getLogger("hpopt")


def remove_files(folder: Path) -> None:
    """Remove the files of an earlier study: should this process die before it writes its own, they would mislead."""
    for name in (RESULTS, TRIALS, FILE):
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            log.warning("hpopt: %s of an earlier study cannot be removed: %s", folder / name, error)


class Mirror:
    """A daemon thread that writes the files whenever the study has changed."""

    def __init__(
        self,
        folder: Path,
        study: Callable[[], tuple[StudySpec, Plan]],
        read: Callable[[], list[Trial]],
        tails: Tails,
        changed: Callable[[], object],
    ) -> None:
        """`changed()` is a value that differs when there is something new."""
        self.folder = folder
        self._curves = CurvesFile(folder / FILE, tails)
        self._study, self._read, self._changed = study, read, changed
        self._closing = threading.Event()
        self._seen: object = None
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="hpopt-results", daemon=True)
        self._thread.start()

    def close(self, within: float) -> None:
        """Write the last state, and end; waits for that for so many seconds at most."""
        self._closing.set()
        self._thread.join(within)

    def _run(self) -> None:
        pause = AT_MOST_EVERY
        while not self._closing.wait(pause):
            pause = max(AT_MOST_EVERY, self._write() / SHARE_OF_TIME)
        self._write()

    def _write(self) -> float:
        """Seconds of work that it took; waiting for a server that is slow, or away, is none."""
        started = time.thread_time()
        try:
            changed = self._changed()
            if changed != self._seen:
                trials = self._read()
                write_files(self.folder, trials, *self._study())
                self._curves.update(trials)
                self._seen, self._failing = changed, False
        except (HpoptError, exceptions.RedisError) as error:  # whoever needs the server says so aloud
            log.debug("hpopt: results files not written: %s", error)
        except OSError as error:
            level = logging.DEBUG if self._failing else logging.WARNING
            log.log(level, "hpopt: the results files in %s cannot be written: %s", self.folder, error)
            self._failing = True
        return time.thread_time() - started
