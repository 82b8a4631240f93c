"""The learning curves of a study: read from the server, and kept in a file beside the other results."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from hpopt.client import Client
from hpopt.core.curve import Point, pack, unpack
from hpopt.core.keys import StudyKeys
from hpopt.core.trial import ENDED, Trial
from hpopt.results import CURVES_AT_ONCE, write_whole

FILE = "curves.csv"
HEAD = "trial,attempt,step,score"
"""One line for each report, those of a trial in the order they were made; no score: it was not a finite number."""
_REMEDY = "delete the file, and resume the study to have it written again"

_POINT_BYTES = len(pack(Point(0, 0, None)))

Curves = dict[int, list[Point]]
"""Trial id -> its points."""
Tails = Callable[[Mapping[int, int]], dict[int, bytes]]
"""The packed points of each trial from this byte of its curve on."""


def read_tails(client: Client, keys: StudyKeys, uid: str, begins: Mapping[int, int]) -> dict[int, bytes]:
    """See Tails. Raises the server's errors."""
    answers = client.call(*(("GETRANGE", keys.curve(uid, trial), begin, -1) for trial, begin in begins.items()))
    for each in answers:
        if isinstance(each, Exception):
            raise each
    return dict(zip(begins, answers, strict=True))


def read_curves(client: Client, keys: StudyKeys, uid: str, trials: Sequence[Trial]) -> Curves:
    """The whole curves of these trials. Raises the server's errors."""
    curves: Curves = {}
    for part in _parts(trials):
        tails = read_tails(client, keys, uid, {trial.id: 0 for trial in part})
        curves.update((trial, list(unpack(tail))) for trial, tail in tails.items())
    return curves


def load_curves(path: Path) -> Curves:
    """The curves in such a file. A line that is being written is left out, as is one that came twice.

    Raises ValueError that names the line which is not one of ours, OSError when the file cannot be read.
    """
    head, *lines = path.read_text(encoding="utf-8").split("\n")
    if head != HEAD:
        raise ValueError(f"{path} does not begin with {HEAD!r}: {_REMEDY}")
    curves: Curves = {}
    for number, line in enumerate(lines[:-1], start=2):
        try:
            trial, attempt, step, score = line.split(",")
            point = Point(int(attempt), int(step), float(score) if score else None)
            curve = curves.setdefault(int(trial), [])
        except ValueError:
            raise ValueError(f"{path}, line {number}: {line[:80]!r} is no {HEAD!r}: {_REMEDY}") from None
        if not curve or point[:2] > curve[-1][:2]:
            curve.append(point)
    return curves


class _Seen(NamedTuple):
    """How far a curve has been written: so many bytes, and its last point."""

    size: int = 0
    last: bytes = b""


class CurvesFile:
    """The file, which grows with the curves: what is new is appended, so that a large study costs no more than a small.

    It is written as a whole at first, when somebody else has touched it, and when a server has lost points.
    """

    def __init__(self, path: Path, tails: Tails) -> None:
        """Nothing is read or written yet."""
        self.path = path
        self._tails = tails
        self._seen: dict[int, _Seen] = {}
        self._complete: set[int] = set()
        self._left: tuple[int, int] | None = None

    def update(self, trials: Sequence[Trial]) -> None:
        """Write what is new. Raises the server's and the file system's errors; the next time goes on after that."""
        growing = [trial for trial in trials if trial.id not in self._complete]
        ours = self._left is not None and self._left == self._found()
        self._left = None  # until everything is written
        if not (ours and self._append(growing)):
            self._seen, self._complete, growing = {}, set(), list(trials)
            write_whole(self.path, lambda out: self._write(out, growing))
        self._complete.update(trial.id for trial in growing if trial.state in ENDED)
        self._left = self._found()

    def _append(self, growing: Sequence[Trial]) -> bool:
        with self.path.open("a", encoding="utf-8", newline="") as out:
            return all(self._extend(out, part) for part in _parts(growing))

    def _write(self, out: TextIO, trials: Sequence[Trial]) -> None:
        out.write(f"{HEAD}\n")
        for part in _parts(trials):
            self._extend(out, part)

    def _extend(self, out: TextIO, trials: Iterable[Trial]) -> bool:
        """Write the points that were not seen before; False if the curves are not what they were."""
        seen = {trial.id: self._seen.get(trial.id, _Seen()) for trial in trials}
        tails = self._tails({trial: each.size - len(each.last) for trial, each in seen.items()})
        if not all(tails[trial].startswith(each.last) for trial, each in seen.items()):
            return False
        for trial, (size, last) in seen.items():
            new = tails[trial][len(last) :]
            if new:
                out.writelines(_line(trial, point) for point in unpack(new))
                self._seen[trial] = _Seen(size + len(new), new[-_POINT_BYTES:])
        return True

    def _found(self) -> tuple[int, int] | None:
        """What tells the file as we left it from any other: its inode and its length."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_size


def _line(trial: int, point: Point) -> str:
    score = "" if point.score is None else repr(point.score)
    return f"{trial},{point.attempt},{point.step},{score}\n"


def _parts(trials: Sequence[Trial]) -> Iterator[Sequence[Trial]]:
    return (trials[start : start + CURVES_AT_ONCE] for start in range(0, len(trials), CURVES_AT_ONCE))
