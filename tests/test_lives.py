"""Who speaks for an attempt: processes that fall silent, and several that claim one."""

import pytest

from hpopt.core.messages import Report, Sample
from hpopt.core.trial import TrialState
from hpopt.status import Status
from tests.committed import snapshot
from tests.test_attempts import begun, state, trial_of

S = TrialState

# --- silence


def test_a_lost_trial_is_tried_once_more() -> None:
    """It keeps its scores; when the second attempt is lost too, it has failed."""
    sim, to = begun()
    sim.report(to, 0.5)
    sim.lose(to)
    again = sim.sample()
    assert (again.trial, again.attempt, again.params) == (0, 2, to.params)
    assert sim.report(again, 0.1) is Status.RUNNING
    assert trial_of(sim, to).best_score == 0.5
    sim.lose(again)
    assert state(sim, to) is S.FAILED
    assert sim.report(again, 0.9) is Status.STOP


def test_a_trial_lost_together_with_its_operator_was_released() -> None:
    """Whatever ended both was no fault of the trial's: it does not count among the losses that a trial may have."""
    sim, to = begun()
    for session in "ABC":
        sim.start(to)
        sim.tick(gone={trial_of(sim, to).session})
        sim.lose(to)
        assert state(sim, to) is S.LOST
        to = sim.sample(session)
    assert (trial_of(sim, to).losses, trial_of(sim, to).releases) == (0, 3)


def test_a_lost_trial_may_come_back() -> None:
    """Until it is handed out again, its trainer goes on as if nothing had happened."""
    sim, to = begun()
    sim.report(to, 0.5)
    sim.lose(to)
    assert sim.report(to, 0.6) is Status.RUNNING
    assert (state(sim, to), trial_of(sim, to).attempt, trial_of(sim, to).last_step) == (S.RUNNING, 1, 2)
    assert sim.ask() is None  # it occupies its worker again


def test_a_superseded_attempt_is_to_stop() -> None:
    """Once another operator has the trial, the old trainer hears STOP, and its score does not count."""
    sim, to = begun()
    sim.report(to, 0.5)
    sim.lose(to)
    sim.sample("other")
    before = snapshot(sim.study)
    assert sim.report(to, 0.9) is Status.STOP
    assert sim.start(to, "b").attempt == 2
    sim.finalize(to)
    sim.out_of_memory(to)
    assert snapshot(sim.study) == before


@pytest.mark.parametrize(("attempt", "life"), [(1, "b"), (2, "a")])
def test_only_the_current_life_can_be_lost(attempt: int, life: str) -> None:
    """Silence of a process that does not speak for the trial means nothing."""
    sim, to = begun()
    sim.start(to)
    sim.lose(Sample(0, 0, attempt, 0, {}), life)
    assert state(sim, to) is S.RUNNING


def test_the_second_attempt_is_judged_by_new_steps_only() -> None:
    """An attempt that goes over its steps again is not stopped for what was decided before; the best score stays."""
    sim, to = begun(search_alg="asha", num_workers=3, max_iterations=8)
    assert sim.report(to, 0.9) is Status.RUNNING
    sim.lose(to)
    again = sim.sample()
    others = [sim.sample() for _ in range(2)]
    assert [sim.report(other, 0.95) for other in others] == [Status.RUNNING] * 2
    assert sim.report(again, 0.1) is Status.RUNNING
    assert sim.report(again, 0.1) is Status.RUNNING  # the first at this rung, with the best of both attempts
    assert sim.report(others[0], 0.95) is Status.RUNNING
    assert trial_of(sim, to).best_score == 0.9


# --- several processes for one attempt


def test_a_second_process_waits_and_is_refused() -> None:
    """While the first is alive the second waits; in the end it is told to stop, and stays refused."""
    sim, to = begun()
    sim.report(to, 0.5)
    verdict = sim.start(to, "b")
    assert (verdict.life, verdict.refused) == ("a", ())
    sim.tick(74.0)
    assert trial_of(sim, to).challenger is not None
    sim.crash()
    sim.tick(1.0)
    verdict = sim.start(to, "b")
    assert (verdict.life, verdict.refused) == ("a", ("b",))
    assert sim.report(to, 0.6) is Status.RUNNING
    assert sim.report(to, 0.9, life="b") is Status.STOP
    assert trial_of(sim, to).best_score == 0.6


def test_a_second_process_takes_over_a_silent_one() -> None:
    """It goes on from the last step that is committed; the first one, should it come back, is to stop."""
    sim, to = begun()
    sim.report(to, 0.5)
    sim.report(to, 0.6)
    sim.start(to, "b")
    sim.tick(5.0, silent=[(0, 1, "a")])
    verdict = sim.verdict(0)
    assert verdict is not None
    assert (verdict.life, verdict.base_step) == ("b", 2)
    sim.steps["u1", 0, 1, "b"] = verdict.base_step
    assert sim.report(to, 0.7, life="b") is Status.RUNNING
    assert sim.report(to, 0.9, life="a") is Status.STOP
    assert (trial_of(sim, to).last_step, trial_of(sim, to).best_score) == (3, 0.7)


def test_a_restart_by_the_launcher_takes_over_at_once() -> None:
    """A higher restart count of the same launch needs no silence; an old count is refused."""
    sim, to = begun()
    sim.start(to, "r:0", 0)
    sim.report(to, 0.5, life="r:0")
    verdict = sim.start(to, "r:1", 1)
    assert (verdict.life, verdict.base_step) == ("r:1", 1)
    assert "r:0" in sim.start(to, "r:0", 0).refused
    assert sim.report(to, 0.6, life="r:1") is Status.RUNNING
    assert trial_of(sim, to).last_step == 2


def test_a_restart_inside_a_runner_takes_over_at_once() -> None:
    """A runner has no count of its own; what its trainer's launcher starts again takes over from it."""
    sim, to = begun()
    sim.start(to, "runner")
    sim.start(to, "runner", 0)
    sim.report(to, 0.5, life="runner")
    verdict = sim.start(to, "runner:1", 1)
    assert (verdict.life, verdict.base_step) == ("runner:1", 1)


@pytest.mark.parametrize("count", [0, 2])
def test_restart_counts_of_two_launches_are_not_compared(count: int) -> None:
    """A second launch waits for the first one's silence, whatever it counts, and takes over then."""
    sim, to = begun()
    sim.start(to, "r:1", 1)
    sim.report(to, 0.5, life="r:1")
    assert (sim.start(to, "s:0", count).life, trial_of(sim, to).refused) == ("r:1", ())
    sim.tick(5.0, silent=[(0, 1, "r:1")])
    assert (trial_of(sim, to).life, trial_of(sim, to).base_step) == ("s:0", 1)


def test_a_third_process_is_refused_at_once() -> None:
    """One may wait for an attempt, not many."""
    sim, to = begun()
    sim.start(to, "a")
    sim.start(to, "b")
    assert sim.start(to, "c").refused == ("c",)


def test_a_report_of_another_process_ends_it() -> None:
    """Only the process that speaks for the attempt may report; another one has missed that it was replaced."""
    sim, to = begun()
    sim.start(to, "a")
    sim.start(to, "b")
    assert sim.report(to, 0.9, life="b") is Status.STOP
    assert trial_of(sim, to).challenger is None
    sim.tick(5.0, silent=[(0, 1, "a")])
    assert (trial_of(sim, to).life, trial_of(sim, to).best_score) == ("a", None)


def test_a_refused_process_never_comes_back() -> None:
    """Not even when the trial is lost and anybody else would be welcome."""
    sim, to = begun()
    sim.start(to, "a")
    sim.report(to, 0.5, life="b")
    sim.lose(to, "a")
    assert "b" in sim.start(to, "b").refused
    assert sim.report(to, 0.5, life="b") is Status.STOP
    assert state(sim, to) is S.LOST
    assert sim.start(to, "c").life == "c"


def test_the_first_report_is_contact_enough() -> None:
    """A process whose Start was lost speaks for the attempt with its first report."""
    sim, to = begun()
    sim.send(Report("u1", 0, 1, "a", 1, 0.5))
    assert (state(sim, to), trial_of(sim, to).life, trial_of(sim, to).best_score) == (S.RUNNING, "a", 0.5)
