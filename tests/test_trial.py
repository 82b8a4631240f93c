import itertools
import math

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpopt.core.curve import Point, pack, unpack
from hpopt.core.incumbent import COMPARED, incumbent
from hpopt.core.trial import ENDED, LOGS, LONGEST_LOG, PENDING, REISSUABLE, TRANSITIONS, Trial, TrialState
from hpopt.core.trials import Trials, replay
from tests.simulation import Simulation

S = TrialState
ALLOWED = {
    (S.ISSUED, S.RUNNING), (S.ISSUED, S.WAITING), (S.ISSUED, S.FAILED),
    (S.RUNNING, S.COMPLETED), (S.RUNNING, S.STOPPED), (S.RUNNING, S.FAILED),
    (S.RUNNING, S.WAITING), (S.RUNNING, S.OUT_OF_MEMORY), (S.RUNNING, S.LOST),
    (S.WAITING, S.ISSUED), (S.WAITING, S.RUNNING),
    (S.LOST, S.ISSUED), (S.LOST, S.RUNNING),
    (S.OUT_OF_MEMORY, S.ISSUED),
}  # fmt: skip


@pytest.mark.parametrize(("before", "after"), list(itertools.product(S, S)), ids=lambda state: state.name.lower())
def test_moves(before: TrialState, after: TrialState) -> None:
    """Every move is either in the table or raises and changes nothing."""
    trial = Trial(7, {}, state=before)
    if (before, after) in ALLOWED:
        trial.move(after, "why")
        assert (trial.state, trial.reason) == (after, "why")
    else:
        with pytest.raises(RuntimeError, match=f"trial 7 cannot go from {before.name} to {after.name}"):
            trial.move(after, "why")
        assert (trial.state, trial.reason) == (before, "")


def test_states_have_one_role_each() -> None:
    """A trial is under way, to be handed out again, or at its end; from the end nothing leads away."""
    assert set(TRANSITIONS) == set(S)
    assert sorted([*PENDING, *REISSUABLE, *ENDED]) == sorted(S)
    assert all(not TRANSITIONS[state] for state in ENDED)


RECORD = Trial(
    3, {"lr": 0.5}, attempt=2, state=S.RUNNING, bracket=1, session="s", request=4, life="b", restart=1, base_step=5,
    refused=("x",), challenger=("c", 2, 1.5), stop_step=9, reason="why", issued_at=1.0, started_at=2.0, ended_at=3.0,
    crashes=1, losses=2, releases=3, ooms=4, first_attempt=2, best_score=0.25, best_step=6, last_step=7, seen_step=8,
    invalid=1, stopped_by=("asha", 9, 0.25, None), first_step=5, first_at=2.5,
    logs=((1, "h:/l"),), too_large=(64,),
)  # fmt: skip
RECORD_HEX = (
    "dc0020 03 81a26c72cb3fe0000000000000 02 02 01 a173 04 a162 01 05 91a178 93a16302cb3ff8000000000000 09 a3776879"
    "cb3ff0000000000000 cb4000000000000000 cb4008000000000000 01020304 02 cb3fd0000000000000 06 07 08 01"
    "94 a461736861 09 cb3fd0000000000000 c0 05 cb4004000000000000 919201a4683a2f6c 9140"
)


def test_stored_bytes_are_pinned() -> None:
    """Trials that an earlier release has stored can be read by this one."""
    assert msgpack.packb(RECORD.to_wire()).hex() == RECORD_HEX.replace(" ", "")
    assert Trial.from_wire(msgpack.unpackb(bytes.fromhex(RECORD_HEX))) == RECORD
    points = [Point(2, 1, 0.5), Point(3, 70_000, None)]
    assert b"".join(map(pack, points)).hex() == "020001000000000000000000e03f030070110100000000000000f87f"


def test_stored_by_another_release() -> None:
    """Fields that were stored by a later release are ignored, those of an earlier one get their defaults."""
    assert Trial.from_wire([*RECORD.to_wire(), "more"]) == RECORD
    early = Trial.from_wire(RECORD.to_wire()[:4])
    assert (early.id, early.params, early.attempt, early.state, early.life) == (3, {"lr": 0.5}, 2, S.RUNNING, "")


def test_logs_are_kept_by_attempt() -> None:
    """The latest word of an attempt counts, the latest attempts are kept, and a long text is cut."""
    trial = Trial(0, {})
    assert not trial.keep_log("")
    assert [trial.keep_log(log) for log in ("a:/1", "a:/1", "b:/1")] == [True, False, True]
    trial.attempt = 2
    assert trial.keep_log("x" * 2 * LONGEST_LOG)
    assert trial.logs == ((1, "b:/1"), (2, "x" * LONGEST_LOG))
    for trial.attempt in range(3, 3 + LOGS):
        trial.keep_log("c:/1")
    assert [attempt for attempt, _ in trial.logs] == list(range(3, 3 + LOGS))


scores = st.none() | st.floats(allow_nan=False, allow_infinity=False)
points = st.lists(st.builds(Point, st.integers(1, 2**16 - 1), st.integers(1, 2**32 - 1), scores))


@given(points)
def test_curves_round_trip(points: list[Point]) -> None:
    """A curve is the same after being stored; NaN bytes mark an invalid score."""
    assert list(unpack(b"".join(map(pack, points)))) == points


@pytest.mark.parametrize(
    ("mode", "reported", "best"),
    [
        ("max", [0.5, 0.7, 0.6], (0.7, 2)),
        ("min", [0.5, 0.7, 0.6], (0.5, 1)),
        ("max", [-3.0, -2.0, -2.0], (-2.0, 2)),
        ("min", [0.0, 1.0], (0.0, 1)),
        ("max", [None, -1.0, None], (-1.0, 2)),
        ("max", [None, None], (None, 0)),
        ("max", [1e308, -1e308], (1e308, 1)),
    ],
)
def test_best_score(mode: str, reported: list[float | None], best: tuple[float | None, int]) -> None:
    """The best valid score and the step that had it first."""
    trial = Trial(0, {})
    for step, score in enumerate(reported, start=1):
        trial.add(step, score, 1.0 if mode == "max" else -1.0)
    assert (trial.best_score, trial.best_step, trial.last_step) == (*best, len(reported))


def test_invalid_scores_are_counted_in_a_row() -> None:
    """A valid score begins the count anew."""
    trial = Trial(0, {})
    counts = []
    for step, score in enumerate([None, None, 1.0, None], start=1):
        trial.add(step, score, 1.0)
        counts.append(trial.invalid)
    assert counts == [1, 2, 0, 1]


def test_the_next_attempt_begins_anew_but_keeps_its_scores() -> None:
    """Another attempt counts its steps from 1; what the trial has reached stays."""
    trial = Trial(0, {}, life="a", restart=2, base_step=1, refused=("b",), challenger=("c", 0, 1.0), stop_step=3)
    trial.started_at = 5.0
    trial.add(2, 0.5, 1.0)
    trial.reissue()
    assert trial == Trial(0, {}, attempt=2, best_score=0.5, best_step=2, seen_step=2)


# --- curves of several attempts


@pytest.mark.parametrize(
    ("trial", "curve", "counted", "expected"),
    [
        (Trial(0, {}), [], [], (None, 0, 0, 0)),
        (Trial(0, {}), [(1, 1, 0.5), (1, 2, 0.7)], [1, 2], (0.7, 2, 2, 0)),
        (Trial(0, {}), [(1, 1, 0.5), (1, 2, None), (1, 4, None)], [1, 2, 4], (0.5, 4, 4, 2)),
        (Trial(0, {}, attempt=2), [(1, 1, 0.5), (1, 2, None)], [1, 2], (0.5, 0, 2, 0)),
        (Trial(0, {}, attempt=2), [(1, 1, 0.5), (1, 2, 0.4), (2, 1, 0.6)], [1, 2, 1], (0.6, 1, 2, 0)),
        (Trial(0, {}, attempt=2, first_attempt=2), [(1, 3, 0.9), (2, 1, 0.2)], [1], (0.2, 1, 1, 0)),
        (Trial(0, {}, attempt=1, first_attempt=2), [(1, 3, 0.9)], [], (None, 3, 0, 0)),
    ],
    ids=["none", "one attempt", "invalid", "not started", "overlap", "other params", "just out of memory"],
)
def test_replay(
    trial: Trial,
    curve: list[tuple[int, int, float | None]],
    counted: list[int],
    expected: tuple[float | None, int, int, int],
) -> None:
    """What follows from a curve is rebuilt: the scores of all attempts count, but those with other params."""
    points = replay(trial, [Point(*point) for point in curve], 1.0)
    assert [point.step for point in points] == counted
    assert (trial.best_score, trial.last_step, trial.seen_step, trial.invalid) == expected


# --- all trials of a study


def test_ids_have_no_gap() -> None:
    """A trial with any other id than the next one is a bug."""
    trials = Trials()
    trials.add(Trial(0, {}))
    with pytest.raises(ValueError, match="trial 2 cannot follow 0"):
        trials.add(Trial(2, {}))
    assert [trials.get(number) is not None for number in (-1, 0, 1)] == [False, True, False]


def test_the_lowest_id_is_handed_out_again_first() -> None:
    """Trials that wait are handed out by id, however often they came and went."""
    trials = Trials()
    for number in range(4):
        trials.add(Trial(number, {}))
    for number in (3, 1, 2):
        trials.move(trials.since(number)[0], S.WAITING)
    assert trials.pending == {0}
    order = []
    while (trial := trials.next_reissuable()) is not None:
        order.append(trial.id)
        trials.move(trial, S.ISSUED)
        if order == [1]:
            trials.move(trial, S.WAITING)
    assert order == [1, 1, 2, 3]


SPEC = Simulation().spec
SCORED = [
    (0.5, 1), (0.9, 1), (0.7, 3), (0.7, 3), (None, 9),
]  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "levels", "best"),
    [("max", (), 1), ("min", (), 0), ("max", (1, 3, 9), 2), ("min", (1, 3, 9), 2), ("min", (1,), 0)],
)
def test_incumbent(mode: str, levels: tuple[int, ...], best: int) -> None:
    """Among the highest rung reached the best score, then the lowest id; a trial without a score is nothing."""
    trials = [Trial(number, {}, best_score=score, seen_step=steps) for number, (score, steps) in enumerate(SCORED)]
    found = incumbent(trials, SPEC(mode=mode), levels)
    assert found is not None
    assert found.id == best


@pytest.mark.parametrize(("others", "best"), [(COMPARED - 2, 0), (COMPARED - 1, 1)])
def test_the_first_at_a_rung_is_not_the_best_yet(others: int, best: int) -> None:
    """Once enough trials have come to a rung they are compared there, though one has come farther."""
    far, better = Trial(0, {}, best_score=0.5, seen_step=9), Trial(1, {}, best_score=0.9, seen_step=3)
    short = [Trial(2 + i, {}, best_score=0.1, seen_step=3) for i in range(others - 1)]
    found = incumbent([far, better, *short], SPEC(num_trials=50), (1, 3, 9))
    assert found is not None
    assert found.id == best


def test_at_the_end_of_a_study_the_longest_trials_are_compared() -> None:
    """When all have ended, the winner is one that came to the highest rung."""
    far = Trial(0, {}, state=TrialState.COMPLETED, best_score=0.5, seen_step=9)
    short = [Trial(1 + i, {}, state=TrialState.STOPPED, best_score=0.9, seen_step=3) for i in range(COMPARED)]
    found = incumbent([far, *short], SPEC(num_trials=1 + COMPARED), (1, 3, 9))
    assert found is far


def test_no_incumbent_without_a_score() -> None:
    """No trial, or none with a valid score."""
    assert incumbent([], SPEC()) is None
    assert incumbent([Trial(0, {}, seen_step=5)], SPEC()) is None


@given(st.lists(st.none() | st.floats(-1e300, 1e300), max_size=8), st.sampled_from(["max", "min"]))
def test_incumbent_has_the_best_score(best_scores: list[float | None], mode: str) -> None:
    """No trial has a better score, and of those as good none a lower id."""
    trials = [Trial(number, {}, best_score=score) for number, score in enumerate(best_scores)]
    found = incumbent(trials, SPEC(mode=mode))
    valid = [score for score in best_scores if score is not None]
    best = (max if mode == "max" else min)(valid, default=math.nan)
    assert (-1 if found is None else found.id) == (best_scores.index(best) if valid else -1)
