"""What a picture is made from: a study with its trials and their curves, wherever it was read."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hpopt.client import Client
from hpopt.core.curve import Point
from hpopt.core.keys import StudyKeys
from hpopt.core.spec import StudySpec
from hpopt.core.trial import Trial, TrialState
from hpopt.curves import FILE, load_curves, read_curves
from hpopt.errors import UnknownStudy
from hpopt.outage import Patience
from hpopt.results import RESULTS, StoppedBy, TrialRow, best, read_created, read_trials, row
from hpopt.server import URL


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """One study at one moment. `best` is the id of the best trial."""

    name: str
    spec: StudySpec
    rows: Sequence[TrialRow]
    curves: Mapping[int, Sequence[Point]] | None
    """By trial id; None if they are not known."""
    best: int | None

    @property
    def scored(self) -> list[TrialRow]:
        """The trials with a score; raises ValueError that says what there is instead, if there is none."""
        found = [row for row in self.rows if row.score is not None]
        if not found:
            raise ValueError(
                f"study {self.name!r} has nothing to draw yet: {plural(len(self.rows), 'trial')}, no score"
            )
        return found

    @property
    def without_score(self) -> str:
        """A note on the trials that cannot be drawn; "" if there are none."""
        count = sum(row.score is None for row in self.rows)
        return f"not drawn: {plural(count, 'trial')} without a score" if count else ""


def plural(count: int, noun: str) -> str:
    """So many of them: "1 trial", "2 trials"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def from_folder(folder: str | os.PathLike[str]) -> StudyRecord:
    """The study whose results files lie in a folder, its `save_path`.

    Raises ValueError when it is no such folder, or when its files are not what hpopt writes.
    """
    where = Path(folder)
    path = where / RESULTS
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        problem = "does not exist" if not where.exists() else f"has no {RESULTS}"
        raise ValueError(f"folder={str(where)!r} {problem}: pass the save_path of a study that has begun") from None
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}): hpopt did not write it") from None
    try:
        spec, rows, best_trial = (
            _spec(results["study"]),
            [_row(each) for each in results["trials"]],
            results["best_trial"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not what this version of hpopt writes: {type(error).__name__} {error}") from None
    curves = load_curves(where / FILE) if (where / FILE).exists() else None
    return StudyRecord(where.absolute().name, spec, rows, curves, best_trial)


def from_server(study: str, url: str | None = None, namespace: str | None = None) -> StudyRecord:
    """A study as it stands on a shared server; `url` and `namespace` as for `hpopt.join`. Nothing there is changed.

    Raises UnknownStudy when there is none, ValueError when neither `url` nor HPOPT_URL says where the server is, and
    HpoptUnavailable when it does not answer.
    """
    from hpopt.api import NAMESPACE, UNREACHABLE_AFTER

    url = url or os.environ.get(URL)
    if not url:
        raise ValueError(f"url=None: pass the server's URL, or set {URL}")
    client = Client(url)
    keys = StudyKeys(namespace or os.environ.get(NAMESPACE) or "default", study)
    return client.outlast(lambda: _read(client, keys), Patience(None, UNREACHABLE_AFTER))


def _read(client: Client, keys: StudyKeys) -> StudyRecord:
    created = read_created(client, keys)
    if created is None:
        raise UnknownStudy(f"there is no study {keys.path!r} on {client.shown}: check the study, namespace and URL")
    return read_record(client, keys, created.uid, created.spec)


def read_record(client: Client, keys: StudyKeys, uid: str, spec: StudySpec) -> StudyRecord:
    """A study as it is committed. Raises UnknownStudy when it is not there any more, and the server's errors."""
    trials = read_trials(client, keys, uid, spec)
    winner = best(trials, spec)
    rows, curves = [row(trial) for trial in trials], read_curves(client, keys, uid, trials)
    return StudyRecord(keys.study, spec, rows, curves, None if winner is None else winner.id)


def _spec(wire: dict[str, Any]) -> StudySpec:
    space = [[name, *row] for name, row in wire["search_space"].items()]
    return StudySpec.from_wire({**wire, "search_space": space})


def _row(values: dict[str, Any]) -> TrialRow:
    known = {field.name: values[field.name] for field in fields(TrialRow) if field.name in values}
    stop = values.get("stopped_by")
    logs = {int(attempt): log for attempt, log in values.get("logs", {}).items()}  # JSON has no other keys than text
    stopped_by = None if stop is None else StoppedBy(**stop)
    too_large = tuple(values.get("too_large", ()))
    return TrialRow(**{**known, "stopped_by": stopped_by, "logs": logs, "too_large": too_large})


def trial_of(row: TrialRow) -> Trial:
    """As much of the trial's record as its row tells."""
    state = TrialState[row.state.upper()]
    return Trial(row.id, row.params, row.attempt, state, row.bracket, best_score=row.score, seen_step=row.step)
