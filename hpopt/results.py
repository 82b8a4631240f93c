"""A study's results: read from the server, printed, and mirrored into files."""

import csv
import json
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, field, fields
from pathlib import Path
from typing import Any, TextIO

import msgpack

from hpopt.client import Client
from hpopt.core.curve import unpack
from hpopt.core.incumbent import Incumbent
from hpopt.core.keys import StudyKeys
from hpopt.core.messages import Created
from hpopt.core.plan import Plan
from hpopt.core.rungs import levels_of
from hpopt.core.spec import StudySpec
from hpopt.core.trial import ENDED, Trial
from hpopt.core.trials import replay
from hpopt.errors import UnknownStudy

CURVES_AT_ONCE = 500
RESULTS, TRIALS = "results.json", "trials.csv"
"""The files that `write_files` writes."""


@dataclass(frozen=True, slots=True)
class StoppedBy:
    """The decision to stop a trial."""

    rule: str
    """"asha", "median_stop", or "invalid_scores" for three in a row that were not finite."""
    step: int
    """The step whose report was answered with STOP."""
    score: float | None
    """What was judged, the trial's best score by then; None if it had no valid one."""
    threshold: float | None
    """What it was worse than; None when those it was compared with had no valid score either."""


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One trial, as a table shows it.

    Times are server time in seconds, of the latest attempt; 0 when it has not come to that.
    """

    id: int
    attempt: int
    state: str
    params: dict[str, Any]
    score: float | None
    """The best valid score so far."""
    step: int
    bracket: int
    reason: str
    issued_at: float
    started_at: float
    ended_at: float
    first_attempt: int = 1
    """The earliest attempt whose scores count: later than 1 after the params changed."""
    stopped_by: StoppedBy | None = None
    """The rule that stopped it, and why; None if it ended otherwise."""
    logs: dict[int, str] = field(default_factory=dict)
    """Attempt -> where its output is, "host:path"; of the latest attempts that said so (workers and HPOPT_LOG do)."""
    too_large: tuple[Any, ...] = ()
    """Batch sizes that it had before, and that did not fit into memory."""

    @property
    def log(self) -> str:
        """Where the output of the latest of these attempts is; "" if none has said so."""
        return self.logs[max(self.logs)] if self.logs else ""


def read_trials(client: Client, keys: StudyKeys, uid: str, spec: StudySpec) -> list[Trial]:
    """Every trial as committed; for those under way, best score and last step follow from their curves.

    Raises UnknownStudy when the study is not there any more.
    """
    current, answer = client.call(("HGET", keys.meta, "uid"), ("HGETALL", keys.trials(uid)))
    for each in (current, answer):
        if isinstance(each, Exception):
            raise each
    if current is None or current.decode() != uid:
        raise UnknownStudy(f"the study {keys.path!r} is not on {client.shown} any more, or was replaced by a new one")
    trials = sorted((Trial.from_wire(msgpack.unpackb(record)) for record in answer[1::2]), key=lambda trial: trial.id)
    open_ones = [trial for trial in trials if trial.state not in ENDED]
    for start in range(0, len(open_ones), CURVES_AT_ONCE):
        part = open_ones[start : start + CURVES_AT_ONCE]
        curves = client.get("MGET", *(keys.curve(uid, trial.id) for trial in part))
        for trial, curve in zip(part, curves, strict=True):
            replay(trial, unpack(curve or b""), spec.sign)
    return trials


def read_created(client: Client, keys: StudyKeys) -> Created | None:
    """What a study's creation was answered with, read from what is stored; None if there is no such study."""
    uid, state = client.get("HMGET", keys.meta, "uid", "state")
    if uid is None:
        return None
    stored = msgpack.unpackb(state)
    spec, notices = StudySpec.from_wire(stored["spec"]), tuple(stored["notices"])
    return Created(uid.decode(), spec, notices, stored.get("schedule"))


def read_paused(client: Client, keys: StudyKeys) -> str:
    """Why the study is paused, "" if it is not, or not there."""
    state = client.get("HGET", keys.meta, "state")
    return "" if state is None else str(msgpack.unpackb(state)["paused"])


def row(trial: Trial) -> TrialRow:
    """The trial for a table."""
    return TrialRow(
        trial.id, trial.attempt, trial.state.name.lower(), trial.params, trial.best_score, trial.seen_step,
        trial.bracket, trial.reason, trial.issued_at, trial.started_at, trial.ended_at, trial.first_attempt,
        None if trial.stopped_by is None else StoppedBy(*trial.stopped_by), dict(trial.logs),
        trial.too_large,
    )  # fmt: skip


def best(trials: Iterable[Trial], spec: StudySpec) -> Trial | None:
    """The best trial, among those that can be compared: see hpopt.core.incumbent."""
    leader = leader_of(spec)
    for trial in trials:
        leader.observe(trial)
    return leader.trial


def leader_of(spec: StudySpec) -> Incumbent:
    """The incumbent of a study with this spec, before any trial was looked at."""
    return Incumbent(spec, levels_of(spec) if spec.search_alg == "asha" else ())


def progress(trials: Sequence[Trial], spec: StudySpec) -> float:
    """The share of the study that is done, from 0 to 1: ended trials, and the steps of those under way."""
    done = sum(1.0 if trial.state in ENDED else min(trial.seen_step / spec.iterations, 1.0) for trial in trials)
    return min(done / spec.trials, 1.0)


def print_table(trials: Iterable[Trial], spec: StudySpec, out: TextIO | None = None) -> None:
    """Print every scored trial in the format of the original."""
    names = list(spec.search_space)
    widths = [max(len(name) + 2, 20) for name in names]
    head = "".join(f"{name:^{width}} |" for name, width in zip(names, widths, strict=True))
    print(f"|{'#':^5}|{head}{'score':^21}|", file=out)
    scored = (trial for trial in trials if trial.best_score is not None)
    for number, trial in enumerate(scored, start=1):
        values = (f"{trial.params[name]!s:>{width}} |" for name, width in zip(names, widths, strict=True))
        print(f"|{number:>4} |{''.join(values)}{trial.best_score!s:>20} |", file=out)


def write_files(folder: Path, trials: Sequence[Trial], spec: StudySpec, plan: Plan) -> None:
    """Write results.json and trials.csv into the folder, each as a whole or not at all."""
    rows = [row(trial) for trial in trials]
    winner = best(trials, spec)
    results = {
        "study": {**spec.to_wire(), "search_space": {n: s.to_wire() for n, s in spec.search_space.items()}},
        "plan": plan.to_dict(),
        "best_trial": None if winner is None else winner.id,
        "best_config": None if winner is None else winner.params,
        "trials": [asdict(each) for each in rows],
    }
    write_whole(folder / RESULTS, lambda out: json.dump(results, out, indent=2))
    write_whole(folder / TRIALS, lambda out: _write_csv(out, rows, list(spec.search_space)))


def _write_csv(out: TextIO, rows: Iterable[TrialRow], names: list[str]) -> None:
    plain = ["id", "attempt", "state", "score", "step", "bracket", "issued_at", "started_at", "ended_at", "reason"]
    plain.append("log")
    why = [each.name for each in fields(StoppedBy)]
    writer = csv.writer(out)
    writer.writerow(
        [*plain, "too_large", *(f"stopped_by.{name}" for name in why), *(f"params.{name}" for name in names)]
    )
    for each in rows:
        stop = ("",) * len(why) if each.stopped_by is None else astuple(each.stopped_by)
        params = (json.dumps(each.params.get(name)) for name in names)
        writer.writerow([*(getattr(each, name) for name in plain), json.dumps(each.too_large), *stop, *params])


def write_whole(path: Path, write: Callable[[TextIO], object]) -> None:
    """Write a file under another name and move it into place. Others may read it as the umask has it."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with draft.open("x", encoding="utf-8", newline="") as out:
            write(out)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
