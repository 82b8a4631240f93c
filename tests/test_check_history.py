"""The checker itself: a history without fault is passed, and each kind of fault is named."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.check_history import Stored, Trial, violations
from tests.journal import Entry

SPEC = {"num_trials": 2, "mode": "max", "search_alg": "asha", "min_iterations": 1, "max_iterations": 2,
        "reduction_factor": 2}  # fmt: skip


def stored() -> Stored:
    """Two trials: the first has run to its end, the second was stopped at once."""
    first = Trial(0, {"x": 0.5}, 1, 3, 2, 0.5, [(1, 1, 0.4), (1, 2, 0.5)])
    second = Trial(1, {"x": 0.9}, 1, 4, 1, 0.9, [(1, 1, 0.9)])
    return Stored(dict(SPEC), [first, second])


def journal() -> list[Entry]:
    """What the clients of this study have noted."""
    entries: list[Entry] = []

    def noted(op: str, answer: dict[str, Any], **call: Any) -> None:
        entries.append({"op": op, "phase": "call", "session": "s", **call})
        entries.append({"op": op, "phase": "done", "session": "s", **call, **answer})

    for trial in (0, 1, None):
        noted("ask", {"trial": trial, "attempt": 1})
    for trial, step, score, status in ((0, 1, 0.4, "RUNNING"), (0, 2, 0.5, "STOP"), (1, 1, 0.9, "STOP")):
        noted("report", {"status": status}, trial=trial, attempt=1, step=step, score=score)
    noted("best", {"params": {"x": 0.5}})
    return entries


def done(entries: list[Entry], op: str, number: int) -> Entry:
    """The answer to a call."""
    return [entry for entry in entries if entry["op"] == op and entry["phase"] == "done"][number]


FAULTS: dict[str, Callable[[list[Entry], Stored], Any]] = {
    "is lost": lambda _, study: study.trials[0].points.pop(0),
    "is stored twice": lambda _, study: study.trials[0].points.insert(1, (1, 1, 0.4)),
    "was sent as nothing": lambda _, study: study.trials[1].points.append((1, 2, 0.1)),
    "was sent as 0.4": lambda _, study: study.trials[0].points.__setitem__(0, (1, 1, 0.3)),
    "numbered": lambda _, study: setattr(study.trials[1], "number", 2),
    "instead of 3": lambda _, study: study.spec.update(num_trials=3),
    "has not ended": lambda _, study: setattr(study.trials[1], "state", 2),
    "still open": lambda _, study: study.requests.append(["s", 4, "next"]),
    "put aside": lambda _, study: setattr(study, "dead", 1),
    "handed out 2 times": lambda entries, _: done(entries, "ask", 1).update(trial=0),
    "handed to nobody": lambda entries, _: done(entries, "ask", 1).update(trial=None),
    "but is not stored": lambda entries, _: done(entries, "ask", 2).update(trial=7, attempt=1),
    "was answered RUNNING": lambda entries, _: done(entries, "report", 2).update(status="RUNNING"),
    "was answered STOP": lambda entries, _: done(entries, "report", 0).update(status="STOP"),
    "told ['RUNNING', 'STOP']": lambda entries, _: entries.append({**done(entries, "report", 0), "status": "STOP"}),
    "several sessions": lambda entries, _: entries.append({**done(entries, "report", 0), "session": "t"}),
    "though the trial had stopped": lambda _, study: setattr(study.trials[0], "stop_step", 1),
    "the best was told": lambda entries, _: done(entries, "best", 0).update(params={"x": 0.9}),
    "the best score of trial 0": lambda _, study: setattr(study.trials[0], "best_score", 0.4),
    "raised": lambda entries, _: entries.append({**entries[0], "phase": "raised", "error": "TimeoutError()"}),
}


def test_a_good_history() -> None:
    """Nothing is wrong with it."""
    assert violations(journal(), stored()) == []


@pytest.mark.parametrize(("number", "reason"), [(0, "all iterations done"), (1, "asha: best 0.9 at rung 1")])
def test_the_score_that_ended_a_trial_counts(number: int, reason: str) -> None:
    """It was answered with STOP, and is looked for all the same."""
    study = stored()
    study.trials[number].points.pop()
    study.trials[number].reason = reason
    assert any("is lost" in each for each in violations(journal(), study))


@pytest.mark.parametrize("words", FAULTS)
def test_faults(words: str) -> None:
    """A fault is found, and named."""
    entries, study = copy.deepcopy(journal()), stored()
    FAULTS[words](entries, study)
    assert any(words in each for each in violations(entries, study)), violations(entries, study)


def test_what_a_killed_session_has_not_begun() -> None:
    """It may be handed out again, but what the session has begun may not."""
    entries = journal()
    entries.insert(0, {**done(entries, "ask", 0), "session": "killed"})
    assert violations(entries, stored()) != []
    assert violations(entries, stored(), frozenset({"killed"})) == []
    entries.append({**done(entries, "report", 0), "session": "killed"})
    assert violations(entries, stored(), frozenset({"killed"})) != []
