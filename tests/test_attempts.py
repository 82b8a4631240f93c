import itertools
from collections.abc import Callable
from typing import Any

import pytest

from hpopt.core.incumbent import incumbent
from hpopt.core.messages import Finalize, OutOfMemory, Query, Refusal, Release, Report, Sample, Start, Verdict
from hpopt.core.trial import Trial, TrialState
from hpopt.status import Status
from tests.committed import snapshot
from tests.simulation import Simulation, created

S = TrialState


def begun(**spec: Any) -> tuple[Simulation, Sample]:
    """A study with its first trial handed out."""
    sim = Simulation()
    sim.create(**{"num_workers": 1, "num_init_trials": 1, **spec})
    return sim, sim.sample()


def state(sim: Simulation, to: Sample) -> TrialState:
    """The trial's state."""
    return trial_of(sim, to).state


def trial_of(sim: Simulation, to: Sample) -> Trial:
    """The trial's record."""
    return sim.study.trials.since(to.trial)[0]


# --- every event in every state


def released(sim: Simulation, to: Sample) -> None:
    """WAITING, for good."""
    sim.report(to, 0.5)
    sim.release(to)


def overdue(sim: Simulation, _to: Sample) -> None:
    """WAITING, but welcome to come back."""
    sim.tick(30.0)


def lost(sim: Simulation, to: Sample) -> None:
    """LOST, with a score."""
    sim.report(to, 0.5)
    sim.lose(to)


def completed(sim: Simulation, to: Sample) -> None:
    """COMPLETED."""
    for _ in range(4):
        sim.report(to, 0.5)


def finalized(sim: Simulation, to: Sample) -> None:
    """STOPPED."""
    sim.report(to, 0.5)
    sim.finalize(to)


def crashed(sim: Simulation, to: Sample) -> None:
    """FAILED."""
    sim.report(to, 0.5)
    sim.finalize(to, crashed=True)


STATES: dict[str, tuple[Callable[[Simulation, Sample], Any], TrialState]] = {
    "issued": (lambda _sim, _to: None, S.ISSUED),
    "running without a score": (Simulation.start, S.RUNNING),
    "running": (lambda sim, to: sim.report(to, 0.5), S.RUNNING),
    "released": (released, S.WAITING),
    "overdue": (overdue, S.WAITING),
    "out of memory": (Simulation.out_of_memory, S.OUT_OF_MEMORY),
    "lost": (lost, S.LOST),
    "completed": (completed, S.COMPLETED),
    "stopped": (finalized, S.STOPPED),
    "failed": (crashed, S.FAILED),
}
EVENTS: dict[str, Callable[[Simulation, Sample], Any]] = {
    "start": Simulation.start,
    "second start": lambda sim, to: sim.start(to, "b"),
    "report": lambda sim, to: sim.send(Report(sim.study.uid, to.trial, to.attempt, "a", 3, 0.25)),
    "out of memory": Simulation.out_of_memory,
    "finalize": Simulation.finalize,
    "crash": lambda sim, to: sim.finalize(to, crashed=True),
    "release": Simulation.release,
    "query": Simulation.query,
    "lost": Simulation.lose,
}
ORDER = tuple(EVENTS)
OUTCOMES = {
    # start, second start, report, out of memory, finalize, crash, release, query, lost
    "issued": (S.RUNNING, S.RUNNING, S.RUNNING, S.OUT_OF_MEMORY, S.WAITING, S.WAITING, S.WAITING, S.ISSUED, S.ISSUED),
    "running without a score": (
        S.RUNNING, S.RUNNING, S.RUNNING, S.OUT_OF_MEMORY, S.WAITING, S.WAITING, S.WAITING, S.RUNNING, S.LOST,
    ),
    "running": (S.RUNNING, S.RUNNING, S.RUNNING, S.OUT_OF_MEMORY, S.STOPPED, S.FAILED, S.WAITING, S.RUNNING, S.LOST),
    "released": (S.WAITING,) * 9,
    "overdue": (
        S.RUNNING, S.RUNNING, S.RUNNING, S.OUT_OF_MEMORY, S.WAITING, S.WAITING, S.WAITING, S.WAITING, S.WAITING,
    ),
    "out of memory": (S.OUT_OF_MEMORY,) * 9,
    "lost": (S.RUNNING, S.RUNNING, S.RUNNING, S.OUT_OF_MEMORY, S.STOPPED, S.FAILED, S.WAITING, S.LOST, S.LOST),
    "completed": (S.COMPLETED,) * 9,
    "stopped": (S.STOPPED,) * 9,
    "failed": (S.FAILED,) * 9,
}  # fmt: skip


@pytest.mark.parametrize(("before", "event"), list(itertools.product(STATES, EVENTS)))
def test_every_event_in_every_state(before: str, event: str) -> None:
    """The outcome is that of the table, also after a restart; a repeat changes nothing."""
    sim, to = begun(launch_timeout=30.0)
    reach, reached = STATES[before]
    reach(sim, to)
    assert state(sim, to) is reached
    sim.crash()
    EVENTS[event](sim, to)
    assert state(sim, to) is OUTCOMES[before][ORDER.index(event)]
    after = snapshot(sim.study)
    EVENTS[event](sim, to)
    assert snapshot(sim.study) == after


# --- reports


def test_reports_go_on_to_the_last_iteration() -> None:
    """RUNNING until the last iteration, which is answered with STOP; finalizing afterwards changes nothing."""
    sim, to = begun()
    assert [sim.report(to, score) for score in (0.1, 0.9, 0.5, 0.3)] == [Status.RUNNING] * 3 + [Status.STOP]
    before = snapshot(sim.study)
    sim.finalize(to, crashed=True)
    assert snapshot(sim.study) == before
    trial = trial_of(sim, to)
    assert (trial.state, trial.best_score, trial.best_step, trial.last_step) == (S.COMPLETED, 0.9, 2, 4)


def test_the_same_step_twice() -> None:
    """The first score of a step counts; the second is answered as the first was."""
    sim, to = begun()
    assert sim.report(to, 0.5) is Status.RUNNING
    before = snapshot(sim.study)
    assert sim.report(to, 0.9, step=1) is Status.RUNNING
    assert snapshot(sim.study) == before


def test_a_lower_step_is_a_repeat() -> None:
    """What arrives late, behind a later step, changes nothing."""
    sim, to = begun()
    sim.report(to, 0.5, step=3)
    before = snapshot(sim.study)
    assert sim.report(to, 0.9, step=2) is Status.RUNNING
    assert snapshot(sim.study) == before


def test_steps_may_be_left_out() -> None:
    """A report may jump ahead; the steps between have no score."""
    sim, to = begun()
    assert sim.report(to, 0.5, step=3) is Status.RUNNING
    assert (trial_of(sim, to).last_step, trial_of(sim, to).best_step) == (3, 3)


def test_a_step_beyond_the_last_is_the_last() -> None:
    """Who reports more iterations than there are is at the end, and hears so."""
    sim, to = begun()
    assert sim.report(to, 0.5, step=99) is Status.STOP
    assert (state(sim, to), trial_of(sim, to).last_step) == (S.COMPLETED, 4)


@pytest.mark.parametrize("step", [0, -1])
def test_there_is_no_step_below_one(step: int) -> None:
    """Such a report adds nothing."""
    sim, to = begun()
    sim.start(to)
    sim.send(Report("u1", 0, 1, "a", step, 0.5))
    assert trial_of(sim, to).best_score is None


@pytest.mark.parametrize("reach", [completed, finalized, crashed, released], ids=lambda reach: reach.__name__)
def test_reports_after_the_end(reach: Callable[[Simulation, Sample], None]) -> None:
    """They are answered with STOP and do not count, so that the best score is that of the accepted ones."""
    sim, to = begun()
    reach(sim, to)
    before = snapshot(sim.study)
    assert sim.report(to, 9.0) is Status.STOP
    assert sim.report(to, 9.0) is Status.STOP
    assert snapshot(sim.study) == before


def test_the_log_is_that_of_the_process_that_trains() -> None:
    """A second process of the attempt that is made to wait does not put its log in the place of the first one's."""
    sim, to = begun()
    for life in ("a", "b"):
        sim.send(Start(sim.study.uid, to.trial, to.attempt, life, log=f"host:/{life}.log"))
    trial = sim.study.trials.get(to.trial)
    assert trial is not None
    assert trial.logs == ((1, "host:/a.log"),)


@pytest.mark.parametrize(("trial", "attempt"), [(5, 1), (-1, 1), (0, 2)])
@pytest.mark.parametrize("kind", [Start, Report, OutOfMemory, Finalize, Release, Query], ids=lambda kind: kind.__name__)
def test_unknown_trials_are_to_stop(kind: Any, trial: int, attempt: int) -> None:
    """Whoever trains what was never handed out hears STOP; nothing is created."""
    sim, _ = begun()
    before = snapshot(sim.study)
    more: dict[Any, tuple[Any, ...]] = {Start: ("a",), Report: ("a", 1, 0.5)}
    sim.send(kind("u1", trial, attempt, *more.get(kind, ())))
    verdict = sim.verdict(trial)
    assert verdict is not None
    assert (verdict.attempt, verdict.stop_step, verdict.reason, verdict.stray) == (attempt, 0, "unknown trial", True)
    assert snapshot(sim.study) == before


def test_a_query_gets_the_newest_verdict() -> None:
    """A reader that comes late is told what all others were told."""
    sim, to = begun()
    sim.report(to, 0.5)
    verdict = sim.verdict(0)
    sim.committed.verdicts.clear()
    assert sim.query(to) == verdict
    assert verdict == Verdict(1, "a", 0, 1)


@pytest.mark.parametrize("rule", [{"search_alg": "asha"}, {"early_stop": "median_stop"}], ids=["asha", "median"])
def test_the_rule_stops_a_trial(rule: dict[str, Any]) -> None:
    """What the scheduler says is the answer to the step, the trial's end, and its reason."""
    sim, first = begun(num_workers=4, mode="min", **rule)
    *others, to = [first, *(sim.sample() for _ in range(3))]
    for other in others:
        assert [sim.report(other, 0.1) for _ in range(3)] == [Status.RUNNING] * 3
    statuses = [sim.report(to, 0.9)]
    while statuses[-1] is Status.RUNNING:
        statuses.append(sim.report(to, 0.9))
    trial = trial_of(sim, to)
    assert (trial.state, trial.stop_step, trial.last_step) == (S.STOPPED, len(statuses), len(statuses))
    assert len(statuses) < 4
    assert trial.reason.startswith(("asha: ", "median_stop: "))


def test_what_a_later_attempt_scores_where_an_earlier_one_was_counts() -> None:
    """At the next rung a trial is judged by its best score, also if that is of a step it had come to before."""
    sim, other = begun(search_alg="asha", reduction_factor=3, max_iterations=9, num_trials=9)
    for score in (0.6, *[0.85] * 8):
        sim.report(other, score)
    to = sim.sample()
    for score in (0.7, 0.1):
        sim.report(to, score)
    sim.release(to)
    again = sim.sample()
    assert (again.trial, again.attempt) == (to.trial, 2)
    assert [sim.report(again, score) for score in (0.9, 0.8, 0.8)] == [Status.RUNNING] * 3
    assert trial_of(sim, again).best_score == 0.9


# --- scores that are none


def test_three_invalid_scores_in_a_row_stop_a_trial() -> None:
    """NaN is a step without a score; the third in a row is answered with STOP."""
    sim, to = begun(max_iterations=9)
    scores = [None, None, 0.5, None, None, None]
    assert [sim.report(to, score) for score in scores] == [Status.RUNNING] * 5 + [Status.STOP]
    trial = trial_of(sim, to)
    assert (trial.state, trial.best_score) == (S.STOPPED, 0.5)
    assert trial.reason == "3 scores in a row were not finite, up to step 6"
    assert trial.stopped_by == ("invalid_scores", 6, None, None)


def test_invalid_scores_are_counted_across_a_restart() -> None:
    """A coordinator that takes over knows how many there were."""
    sim, to = begun(max_iterations=9)
    sim.report(to, None)
    sim.crash()
    sim.report(to, None)
    sim.crash()
    assert sim.report(to, None) is Status.STOP


def test_a_trial_with_invalid_scores_only_is_never_best() -> None:
    """It has no score at all, and is no incumbent."""
    sim, to = begun(num_trials=2)
    for _ in range(3):
        sim.report(to, None)
    assert incumbent(sim.study.trials, sim.study.spec) is None
    sim.report(sim.sample(), -1e308)
    best = incumbent(sim.study.trials, sim.study.spec)
    assert best is not None
    assert best.id == 1


# --- crashes


def test_a_crash_without_a_score_is_tried_once_more() -> None:
    """The same params as the next attempt; after the second crash the trial has failed."""
    sim, to = begun()
    sim.finalize(to, crashed=True)
    again = sim.sample()
    assert (again.trial, again.attempt, again.params) == (0, 2, to.params)
    sim.start(again)
    sim.finalize(again, crashed=True)
    assert state(sim, to) is S.FAILED
    assert sim.sample().trial == 1


@pytest.mark.parametrize(("crash", "expected"), [(False, S.STOPPED), (True, S.FAILED)])
def test_an_end_with_a_score(crash: bool, expected: TrialState) -> None:
    """Finalized, the trial is STOPPED; crashed, it is FAILED but keeps its score."""
    sim, to = begun()
    sim.report(to, 0.5)
    sim.finalize(to, crashed=crash)
    assert (state(sim, to), trial_of(sim, to).best_score) == (expected, 0.5)
    assert sim.report(to, 0.9) is Status.STOP


def fail(sim: Simulation) -> None:
    """One trial crashes as often as it can."""
    for _ in range(2):
        sim.finalize(sim.sample(), crashed=True)


def test_three_early_failures_pause_the_study() -> None:
    """Requests are refused with the reason, instead of burning all trials; resuming goes on."""
    sim = Simulation()
    sim.create(num_trials=9)
    for _ in range(3):
        fail(sim)
    refusal = sim.ask()
    assert isinstance(refusal, Refusal)
    assert refusal.code == "paused"
    assert refusal.message.startswith("3 trials in a row failed before their first report; the last one: ")
    sim.crash()
    assert sim.ask() == Refusal(sim.requests["op"], "paused", refusal.message)
    sim.create("next", resume=True, num_trials=9)
    assert sim.sample("next").trial == 3
    sim.finalize(Sample(0, 3, 1, 0, {}), crashed=True)
    sim.finalize(sim.sample("next"), crashed=True)
    assert sim.sample("next").trial == 4  # one failure is no reason to pause again


def test_open_requests_hear_of_the_pause() -> None:
    """Who waits is refused too, and nothing more is asked of the sampler."""
    sim = Simulation(prompt=False)
    sim.create(num_trials=9)
    sim.suggest()
    for _ in range(2):
        fail(sim)
        sim.suggest()
    sim.finalize(sim.sample(), crashed=True)
    last = sim.sample()
    sim.ask("waits", "end")
    sim.finalize(last, crashed=True)
    answer = sim.answer("waits", 0)
    assert isinstance(answer, Refusal)
    assert sim.study.wanted() is None


def test_a_report_in_between_prevents_the_pause() -> None:
    """Failures count in a row only."""
    sim = Simulation()
    sim.create(num_trials=9, num_workers=2)
    for _ in range(2):
        fail(sim)
    sim.report(sim.sample(), 0.5)
    fail(sim)
    fail(sim)
    assert sim.study.attempts.paused == ""
    fail(sim)
    assert sim.study.attempts.paused


def test_trials_that_ran_before_do_not_pause() -> None:
    """A trial that had scores, and one that ran out of memory, say nothing against the training."""
    sim = Simulation()
    sim.create(num_trials=9, num_workers=1)
    for number in range(4):
        to = sim.sample()
        if number % 2:
            sim.report(to, 0.5)
            sim.finalize(to, crashed=True)
        else:
            sim.out_of_memory(to)
            sim.out_of_memory(sim.sample())
    assert [trial.state for trial in sim.study.trials] == [S.FAILED] * 4
    assert sim.study.attempts.paused == ""


def test_running_out_of_memory_does_not_pause() -> None:
    """However many trials in a row need more memory than there is: the next configuration may fit."""
    sim = created(num_trials=5)
    for _ in range(4):
        sim.out_of_memory(sim.sample())
        sim.out_of_memory(sim.sample())
    assert [trial.state for trial in sim.study.trials] == [S.FAILED] * 4
    assert isinstance(sim.ask(), Sample)


# --- release


def test_a_released_trial_is_handed_out_again() -> None:
    """With the same params and all its scores; not more than 20 times."""
    sim, to = begun()
    sim.report(to, 0.5)
    for attempt in range(1, 21):
        assert to.attempt == attempt
        sim.release(to)
        assert state(sim, to) is S.WAITING
        to = sim.sample()
    sim.release(to)
    assert (state(sim, to), trial_of(sim, to).best_score) == (S.FAILED, 0.5)


def test_each_mishap_has_a_budget_of_its_own() -> None:
    """A crash, a loss and releases do not use up each other's retries."""
    sim, to = begun()
    sim.finalize(to)
    sim.start(sim.sample())
    sim.lose(Sample(0, 0, 2, 0, {}))
    for attempt in (3, 4):
        to = sim.sample()
        assert to.attempt == attempt
        sim.release(to)
    assert state(sim, to) is S.WAITING
