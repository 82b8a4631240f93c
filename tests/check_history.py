"""Checks what clients were told against what is stored. Reads with redis and msgpack alone: no code of hpopt's is used.

The journals are those of tests/load.py. Every line of the result is one violation of
- nothing acknowledged is lost, nothing is doubled, and nothing is there that nobody sent;
- trials are numbered without gaps, there are exactly as many as asked for, and all of them have ended;
- no attempt of a trial was handed out twice, or trained by two sessions;
- the verdicts seen are those that are committed: STOP from the stop step on, RUNNING before it;
- the best trial is the best of what was acknowledged.
"""

import math
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgpack
import redis

COMPLETED, STOPPED = 3, 4
ENDED = {3: "completed", 4: "stopped", 6: "failed"}
"""States of a trial's record that are final."""
POINT = struct.Struct("<HId")

Entry = dict[str, Any]
Point = tuple[int, int, float | None]


@dataclass
class Trial:
    """What is stored of one trial."""

    number: int
    params: dict[str, Any]
    attempt: int
    state: int
    stop_step: int | None
    best_score: float | None
    points: list[Point]
    reason: str = ""

    @property
    def ended_by_score(self) -> bool:
        """All iterations done, or stopped by the rule."""
        return self.state == COMPLETED or (self.state == STOPPED and self.reason.startswith(("asha", "median_stop")))

    @property
    def scores(self) -> list[float]:
        """The valid ones."""
        return [score for _, _, score in self.points if score is not None]


@dataclass
class Stored:
    """What is stored of a study."""

    spec: dict[str, Any]
    trials: list[Trial]
    requests: list[Any] = field(default_factory=list)
    dead: int = 0


def stored(server: redis.Redis, path: str) -> Stored:
    """Read the study "namespace/study"."""
    prefix = f"hpopt:{{{path}}}"
    meta: Any = server.hgetall(f"{prefix}:meta")
    uid = meta[b"uid"].decode()
    state = msgpack.unpackb(meta[b"state"])
    records: Any = server.hgetall(f"{prefix}:trials:{uid}")
    trials = []
    for number in sorted(map(int, records)):
        record = msgpack.unpackb(records[str(number).encode()])
        curve: Any = server.get(f"{prefix}:curve:{uid}:{number}")
        points = [(a, s, None if math.isnan(score) else score) for a, s, score in POINT.iter_unpack(curve or b"")]
        trials.append(Trial(record[0], record[1], record[2], record[3], record[12], record[22], points, record[13]))
    dead: Any = server.xlen(f"{prefix}:dead")
    return Stored(state["spec"], trials, state["requests"], dead)


def violations(journal: Iterable[Entry], study: Stored, killed: frozenset[str] = frozenset()) -> list[str]:
    """Everything that is wrong, one sentence each; [] when all is well.

    What was handed to the sessions that were `killed`, and not begun, may be handed out again as it is.
    """
    entries = _without_the_unbegun(list(journal), killed)
    reports = [entry for entry in entries if entry["op"] == "report"]
    found = [f"{entry['op']} raised {entry['error']}" for entry in entries if entry["phase"] == "raised"]
    found += _trials(study)
    found += _handed_out([entry for entry in entries if entry["op"] == "ask"], study)
    found += _points(reports, study)
    found += _verdicts([entry for entry in reports if entry["phase"] == "done"], study)
    found += _best([entry for entry in entries if entry["op"] == "best" and entry["phase"] == "done"], study)
    return found


def _without_the_unbegun(entries: list[Entry], killed: frozenset[str]) -> list[Entry]:
    begun = {(entry["session"], entry["trial"]) for entry in entries if entry["op"] == "report"}
    return [
        entry
        for entry in entries
        if entry["op"] != "ask" or entry["session"] not in killed or (entry["session"], entry.get("trial")) in begun
    ]


def _trials(study: Stored) -> list[str]:
    found = []
    numbers = [trial.number for trial in study.trials]
    if numbers != list(range(len(numbers))):
        found.append(f"the trials are numbered {numbers}")
    if len(numbers) != study.spec["num_trials"]:
        found.append(f"there are {len(numbers)} trials instead of {study.spec['num_trials']}")
    found += [f"trial {t.number} has not ended: state {t.state}" for t in study.trials if t.state not in ENDED]
    if study.requests:
        found.append(f"requests are still open: {study.requests}")
    if study.dead:
        found.append(f"{study.dead} events were put aside")
    return found


def _handed_out(asks: list[Entry], study: Stored) -> list[str]:
    handed = [(ask["trial"], ask["attempt"]) for ask in asks if ask["phase"] == "done" and ask["trial"] is not None]
    found = [f"attempt {a} of trial {t} was handed out {n} times" for (t, a), n in Counter(handed).items() if n > 1]
    wanted = {(trial.number, attempt) for trial in study.trials for attempt in range(1, trial.attempt + 1)}
    found += [f"attempt {a} of trial {t} was handed to nobody" for t, a in sorted(wanted - set(handed))]
    found += [f"attempt {a} of trial {t} was handed out, but is not stored" for t, a in sorted(set(handed) - wanted)]
    return found


def _last_words(study: Stored) -> set[tuple[int, int, int]]:
    """The steps whose score ended their trial: they were answered with STOP, and count all the same."""
    ended = (trial for trial in study.trials if trial.stop_step is not None and trial.ended_by_score)
    return {(trial.number, trial.attempt, trial.stop_step or 0) for trial in ended}


def _points(reports: list[Entry], study: Stored) -> list[str]:
    """Every acknowledged score is stored once, and every stored score was sent."""
    found = []
    sent = {_key(entry): entry["score"] for entry in reports}
    there: dict[tuple[int, int, int], float | None] = {}
    for trial in study.trials:
        last: dict[int, int] = defaultdict(int)
        for attempt, step, score in trial.points:
            key = (trial.number, attempt, step)
            if step <= last[attempt]:
                found.append(f"{_name(key)} is stored twice, or behind a later step")
            last[attempt] = max(last[attempt], step)
            there[key] = score
            if key not in sent or sent[key] != score:
                found.append(f"{_name(key)} is stored as {score}, and was sent as {sent.get(key, 'nothing')}")
    acknowledged = {_key(entry) for entry in reports if entry["phase"] == "done" and entry["status"] == "RUNNING"}
    acknowledged |= {_key(entry) for entry in reports if entry["phase"] == "done"} & _last_words(study)
    return found + [f"{_name(key)} was acknowledged, and is lost" for key in sorted(acknowledged - there.keys())]


def _verdicts(answers: list[Entry], study: Stored) -> list[str]:
    """What trainers were told is what is stored."""
    found = []
    trials = {trial.number: trial for trial in study.trials}
    scored = {(trial.number, attempt, step) for trial in study.trials for attempt, step, _ in trial.points}
    sessions: dict[tuple[int, int], set[str]] = defaultdict(set)
    told: dict[tuple[int, int, int], set[str]] = defaultdict(set)
    for entry in answers:
        key, trial = _key(entry), trials.get(entry["trial"])
        told[key].add(entry["status"])
        if entry["status"] == "RUNNING":
            sessions[key[:2]].add(entry["session"])
        if trial is None:
            found.append(f"{_name(key)} was answered, but there is no such trial")
        elif trial.attempt == entry["attempt"] and trial.stop_step is not None:
            due = "STOP" if entry["step"] >= trial.stop_step else "RUNNING"
            if entry["status"] != due:
                found.append(f"{_name(key)} was answered {entry['status']}, but the stop step is {trial.stop_step}")
            if due == "STOP" and key in scored and entry["step"] > trial.stop_step:
                found.append(f"{_name(key)} is stored, though the trial had stopped at {trial.stop_step}")
    found += [f"{_name(key)} was told {sorted(each)}" for key, each in told.items() if len(each) > 1]
    several = [attempt for attempt, its in sessions.items() if len(its) > 1]
    return found + [f"attempt {attempt} of trial {trial} ran in several sessions" for trial, attempt in several]


def _best(answers: list[Entry], study: Stored) -> list[str]:
    found = []
    sign = 1 if study.spec["mode"] == "max" else -1
    for trial in study.trials:
        best = max(trial.scores, key=lambda score: sign * score, default=None)
        if best != trial.best_score:
            found.append(f"the best score of trial {trial.number} is {best}, and is stored as {trial.best_score}")
    levels = _rungs(study.spec) if study.spec["search_alg"] == "asha" else []

    def standing(trial: Trial) -> tuple[int, float, int]:
        reached = max(step for _, step, _ in trial.points)
        return sum(reached >= level for level in levels), sign * (trial.best_score or 0.0), -trial.number

    winner = max((trial for trial in study.trials if trial.scores), key=standing, default=None)
    expected = None if winner is None else winner.params
    found += [f"the best was told to be {e['params']}, it is {expected}" for e in answers if e["params"] != expected]
    return found


def _rungs(spec: dict[str, Any]) -> list[int]:
    """Steps at which asha decides, and the last one: r, r*eta, r*eta^2, ..., R."""
    levels, level = [], spec["min_iterations"] or 1
    while level < spec["max_iterations"]:
        levels.append(level)
        level *= spec["reduction_factor"]
    return [*levels, spec["max_iterations"]]


def _key(entry: Entry) -> tuple[int, int, int]:
    return entry["trial"], entry["attempt"], entry["step"]


def _name(key: tuple[int, int, int]) -> str:
    return f"step {key[2]} of trial {key[0]}, attempt {key[1]},"
