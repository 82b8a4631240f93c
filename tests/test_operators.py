from typing import Any

import pytest

from hpopt.core.messages import Nothing, Sample
from hpopt.core.trial import TrialState
from hpopt.status import Status
from tests.simulation import created

# --- operators come and go


def test_a_trial_whose_operator_is_gone_is_given_to_another() -> None:
    """If it was not started, it is handed out again unchanged: the same attempt, byte for byte."""
    sim = created(num_workers=1, num_init_trials=1, batch_size_name="bs")
    to = sim.sample("A")
    resizing = sim.study.attempts.resizing
    resizing.bound = resizing.bound.failed(to.params["bs"])  # has been learned since
    assert sim.ask("B") is None
    sim.tick(gone=["A"])
    answer = sim.answer("B", 0)
    assert isinstance(answer, Sample)
    assert (answer.trial, answer.attempt, answer.params) == (to.trial, to.attempt, to.params)


def test_a_session_that_said_goodbye_is_gone() -> None:
    """Nobody has to wait until its heartbeat expires."""
    sim = created(num_workers=1, num_init_trials=1)
    sim.sample("A")
    sim.close("A")
    assert sim.sample("B").trial == 0


def test_a_trial_that_was_started_is_not_given_away() -> None:
    """Its trainer goes on without the operator."""
    sim = created(num_workers=1, num_init_trials=1)
    sim.start(sim.sample("A"))
    sim.close("A")
    sim.tick(gone=["A"])
    assert sim.ask("B") is None


def test_a_trial_is_not_given_away_while_its_operator_is_there() -> None:
    """Another operator gets another trial, or waits."""
    sim = created(num_workers=1, num_init_trials=2)
    assert [sim.sample("A").trial, sim.sample("B").trial] == [0, 1]
    sim.tick(gone=["A"])
    sim.ask("A", "end")  # it was only slow
    assert sim.ask("B") is None


def test_two_processes_of_one_attempt_after_all() -> None:
    """If both operators launch it, the first process keeps the attempt, the second waits and is refused."""
    sim = created(num_workers=1, num_init_trials=1)
    first = sim.sample("A")
    sim.close("A")
    second = sim.sample("B")
    assert sim.start(second, "b").life == "b"
    assert sim.start(first, "a").life == "b"
    sim.tick(80.0)
    assert sim.start(first, "a").refused == ("a",)


@pytest.mark.parametrize("leave", [lambda sim: sim.close("A"), lambda sim: sim.tick(gone=["A"])], ids=["close", "gone"])
def test_requests_of_a_dead_session_are_withdrawn(leave: Any) -> None:
    """They take no trial away from those who are there."""
    sim = created(num_init_trials=1)
    to = sim.sample("B")
    sim.ask("A")
    leave(sim)
    sim.ask("B")
    sim.complete(to)
    assert isinstance(sim.answer("B", 1), Sample)
    assert sim.answer("A", 0) is None
    sim.crash()
    assert not sim.study.desk.requests


def test_whose_heartbeats_matter() -> None:
    """Lives of running trials; sessions that wait, or hold a trial under way."""
    sim = created(num_init_trials=3, num_workers=1)
    assert sim.study.watched() == ([], set())
    first = sim.sample("A")
    sim.sample("B")
    sim.start(first)
    sim.sample("C")
    sim.ask("D")
    assert sim.study.watched() == ([(0, 1, "a")], {"A", "B", "C", "D"})
    sim.complete(first)
    assert sim.study.watched() == ([], {"B", "C", "D"})


# --- requests that were given up


def test_a_request_that_is_withdrawn_gets_no_trial() -> None:
    """Who has given up waiting takes nothing away from those who wait, also after a restart of the coordinator."""
    sim = created(num_workers=1, num_init_trials=1)
    to = sim.sample("A")
    sim.ask("A")
    sim.withdraw(1, session="A")
    sim.crash()
    sim.ask("B")
    sim.complete(to)
    assert sim.answer("A", 1) is None
    assert isinstance(sim.answer("B", 0), Sample)


def test_a_trial_that_nobody_came_for_is_for_whoever_asks_next() -> None:
    """As it is: the same attempt. The one who gave up may ask too."""
    sim = created(num_workers=1, num_init_trials=1)
    to = sim.sample("A")
    assert sim.ask("B") is None
    sim.withdraw(0, session="A")
    sim.crash()
    answer = sim.answer("B", 0)
    assert isinstance(answer, Sample)
    assert (answer.trial, answer.attempt, answer.params) == (to.trial, to.attempt, to.params)
    sim.withdraw(0, session="B")
    assert sim.sample("A").trial == to.trial


def test_a_trial_that_nobody_came_for_is_not_waited_for() -> None:
    """Whoever waits for the last trial waits for those that somebody has."""
    sim = created(num_workers=1, num_init_trials=1)
    sim.sample("A")
    assert sim.ask("B", "end") is None
    sim.withdraw(0, session="A")
    assert sim.answer("B", 0) == Nothing(0, done=True)
    assert sim.study.watched() == ([], set())


def test_an_operator_with_a_name_keeps_what_it_was_given() -> None:
    """It looks for that among its open samples; what it was not given yet is for others."""
    sim = created(num_workers=1, num_init_trials=1)
    sim.sample("A")
    sim.ask("A")
    sim.withdraw(0, 1, session="A", keep=True)
    assert sim.ask("B", "now") == Nothing(0, done=False)
    assert (sim.study.trials.since(0)[0].session, list(sim.study.desk.requests)) == ("A", [])


def test_a_trial_that_is_another_operators_by_now_is_not_given_up() -> None:
    """The thread that was handed it first left it behind, and it was given to somebody else, who has not begun yet."""
    sim = created(num_workers=1, num_init_trials=1)
    to = sim.sample("A")
    sim.withdraw(0, session="A")
    again = sim.sample("B")
    assert sim.ask("A", yields=((to.trial, to.attempt, ""),)) is None
    assert sim.report(again, 0.5) is Status.RUNNING


def test_a_trial_that_was_started_cannot_be_given_back() -> None:
    """The answer did arrive, whatever is said of it later."""
    sim = created(num_workers=1, num_init_trials=1)
    to = sim.sample("A")
    sim.start(to)
    sim.withdraw(0, session="A")
    assert sim.ask("B") is None
    assert sim.study.trials.since(0)[0].session == "A"


def test_sessions_of_the_past_leave_nothing_behind() -> None:
    """Who has come and gone is remembered only for the trials that it left under way."""
    sim = created(num_workers=1, num_init_trials=1, num_trials=50)
    held = sim.sample("holder")
    for number in range(20):
        sim.ask(f"S{number}", "now")
        sim.close(f"S{number}")
    sim.close("holder")
    assert sim.study.desk.closed == {"holder"}
    sim.complete(held)
    sim.close("S0")
    assert sim.study.desk.closed == set()


# --- launches that never come


def test_a_trial_that_is_not_started_in_time() -> None:
    """After launch_timeout it is handed out as the next attempt, once; it may come back until then."""
    sim = created(num_workers=1, num_init_trials=1, launch_timeout=60.0)
    first = sim.sample()
    sim.tick(59.0)
    assert sim.ask() is None
    sim.tick(1.0)
    again = sim.answer("op", 1)
    assert isinstance(again, Sample)
    assert (again.trial, again.attempt) == (0, 2)
    assert sim.start(first).attempt == 2  # superseded
    sim.tick(60.0)
    assert sim.study.trials.since(0)[0].state is TrialState.FAILED
    assert sim.sample().trial == 1


def test_a_late_start_before_it_is_handed_out_again() -> None:
    """Better late than never: the first launch goes on."""
    sim = created(num_workers=1, num_init_trials=1, launch_timeout=60.0)
    first = sim.sample()
    sim.tick(60.0)
    assert sim.report(first, 0.5) is Status.RUNNING
    assert sim.ask() is None


def test_trials_that_wait_for_a_worker_are_not_late() -> None:
    """The first samples are handed out at once: their time begins when fewer than num_workers are trained."""
    sim = created(num_workers=1, num_init_trials=2, launch_timeout=60.0)
    first, second = sim.sample(), sim.sample()
    sim.start(first)
    sim.tick(50.0)
    sim.tick(50.0)
    sim.complete(first)
    sim.tick(59.0)
    assert sim.study.trials.since(1)[0].state is TrialState.ISSUED
    sim.tick(1.0)
    assert sim.study.trials.since(1)[0].state is TrialState.WAITING
    assert sim.report(second, 0.5) is Status.RUNNING


def test_time_in_which_nothing_ran_does_not_count() -> None:
    """A script that is started again the next morning finds its trials as they were."""
    sim = created(num_workers=1, num_init_trials=1, launch_timeout=60.0)
    to = sim.sample("A")
    sim.close("A")
    sim.crash()
    sim.tick(80_000.0, gone=["A"])
    again = sim.sample("B")
    assert (again.trial, again.attempt) == (to.trial, to.attempt)
    sim.tick(60.0)
    assert sim.study.trials.since(0)[0].state is TrialState.WAITING


def test_an_operator_that_leaves_its_trials_unstarted_makes_none_fail() -> None:
    """However often that happens: it is no fault of theirs."""
    sim = created(num_workers=1, num_init_trials=1, launch_timeout=60.0)
    for attempt in range(1, 5):
        assert sim.sample("A").attempt == attempt
        sim.tick(60.0, gone=["A"])
    assert not sim.study.attempts.paused
    assert sim.study.trials.since(0)[0].state is TrialState.WAITING


def test_a_trial_that_nobody_came_for_is_not_late() -> None:
    """Nobody has it, so nobody could start it."""
    sim = created(num_workers=1, num_init_trials=1, launch_timeout=60.0)
    sim.sample("A")
    sim.withdraw(0, session="A")
    sim.tick(600.0)
    assert sim.sample("B").attempt == 1


def test_without_a_launch_timeout_a_trial_may_wait_for_ever() -> None:
    """A job may spend a week in a queue."""
    sim = created()
    to = sim.sample()
    sim.tick(7 * 86_400.0)
    assert sim.report(to, 0.5) is Status.RUNNING


# --- trials that are left behind


def test_a_trial_left_behind_is_finalized() -> None:
    """A thread that would have to wait for its own trial ends it by asking for the next one."""
    sim = created(num_workers=1, num_init_trials=1)
    to = sim.sample()
    sim.report(to, 0.5)
    answer = sim.ask(yields=((0, 1, "a"),))
    assert isinstance(answer, Sample)
    assert answer.trial == 1
    left = sim.study.trials.since(0)[0]
    assert (left.state, left.reason) == (TrialState.STOPPED, "its training returned before the last iteration")
    assert sim.report(to, 0.9) is Status.STOP


def test_a_trial_left_behind_without_a_score() -> None:
    """It is tried once more, and then has failed; the loop goes on."""
    sim = created(num_workers=1, num_init_trials=1)
    samples = [sim.sample()]
    for _ in range(3):
        last = samples[-1]
        answer = sim.ask(yields=((last.trial, last.attempt, ""),))
        assert isinstance(answer, Sample)
        samples.append(answer)
    assert [(to.trial, to.attempt) for to in samples] == [(0, 1), (0, 2), (1, 1), (1, 2)]


def test_a_trial_is_not_ended_while_there_is_another() -> None:
    """The initial trials may all be under way at once."""
    sim = created(num_init_trials=2)
    sim.start(sim.sample())
    assert isinstance(sim.ask(yields=((0, 1, "a"),)), Sample)
    assert sim.study.trials.since(0)[0].state is TrialState.RUNNING


def test_only_as_many_as_needed_are_ended() -> None:
    """Of several trials left behind the oldest is ended first, the others only if there is still no room."""
    sim = created(num_init_trials=1, num_workers=2)
    for _ in range(2):
        sim.report(sim.sample(), 0.5)
    answer = sim.ask(yields=((0, 1, "a"), (1, 1, "a")))
    assert isinstance(answer, Sample)
    assert [trial.state for trial in sim.study.trials] == [TrialState.STOPPED, TrialState.RUNNING, TrialState.ISSUED]


@pytest.mark.parametrize("mode", ["next", "end"])
def test_the_last_trial_left_behind(mode: str) -> None:
    """Also when no trial is left, and when the end is waited for, with workers to spare."""
    sim = created(num_trials=2, num_workers=4)
    sim.complete(sim.sample())
    sim.report(sim.sample(), 0.5)
    assert sim.ask(mode=mode, yields=((1, 1, "a"),)) == Nothing(2, done=True)


@pytest.mark.parametrize("left", [(0, 1, "b"), (0, 2, "a"), (5, 1, "a"), (-1, 0, "")])
def test_only_ones_own_trial_is_left_behind(left: tuple[int, int, str]) -> None:
    """Another process's trial, another attempt or an unknown trial is none of their business."""
    sim = created(num_workers=1, num_init_trials=1)
    sim.report(sim.sample(), 0.5)
    assert sim.ask(yields=(left,)) is None
    assert sim.study.trials.since(0)[0].state is TrialState.RUNNING
