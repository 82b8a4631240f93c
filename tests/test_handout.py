from typing import Any

import pytest

from hpopt.core.effects import Noted
from hpopt.core.messages import Ask, Nothing, Refusal, Sample, Suggested, SuggestFailed
from hpopt.core.space import SearchSpace, Space
from hpopt.core.trial import TrialState
from hpopt.status import Status
from tests.committed import snapshot
from tests.simulation import Simulation

FINITE = Space({"bs": SearchSpace("choice", [8, 16]), "act": SearchSpace("choice", ["relu", "tanh"])})


def created(**spec: Any) -> Simulation:
    """A study."""
    sim = Simulation()
    sim.create(**spec)
    return sim


def end(sim: Simulation, to: Sample) -> None:
    """Train a trial to its end."""
    while sim.report(to, 0.5) is Status.RUNNING:
        pass


# --- when there is a sample


def test_initial_trials_come_at_once_then_one_by_one() -> None:
    """num_init_trials samples without waiting, whatever num_workers; then one for each that ends."""
    sim = created(num_init_trials=3, num_workers=1)
    first = [sim.sample() for _ in range(3)]
    assert sim.ask() is None
    end(sim, first[0])
    end(sim, first[1])
    assert sim.answer("op", 3) is None  # one is still under way, which is as many as there are workers
    end(sim, first[2])
    answer = sim.answer("op", 3)
    assert isinstance(answer, Sample)
    assert answer.trial == 3


@pytest.mark.parametrize(("workers", "at_once"), [(1, 2), (2, 2), (4, 4), (9, 6)])
def test_as_many_as_there_are_workers(workers: int, at_once: int) -> None:
    """Up to num_workers trials are under way, and no fewer than the initial ones."""
    sim = created(num_init_trials=2, num_workers=workers)
    assert [type(sim.ask()) for _ in range(at_once + 1)] == [Sample] * at_once + [type(None)]


def test_asha_has_no_initial_trials() -> None:
    """num_init_trials is ignored, num_workers is not."""
    sim = created(search_alg="asha", num_init_trials=5, num_workers=2)
    assert [type(sim.ask()) for _ in range(3)] == [Sample, Sample, type(None)]


def test_more_initial_trials_than_trials() -> None:
    """They are as many as there are trials."""
    sim = created(num_init_trials=9, num_trials=3)
    samples = [sim.sample() for _ in range(3)]
    assert sim.ask() is None
    for to in samples:
        end(sim, to)
    assert sim.answer("op", 3) == Nothing(3, done=True)


def test_requests_are_answered_in_the_order_they_came() -> None:
    """Whoever waits longest is served first, whichever session it is, also after a restart."""
    sim = created(num_init_trials=1, num_workers=2)
    first, second = sim.sample("A"), sim.sample("B")
    assert [sim.ask("B"), sim.ask("A"), sim.ask("B")] == [None] * 3
    sim.crash()
    end(sim, second)
    answer = sim.answer("B", 1)
    assert isinstance(answer, Sample)
    end(sim, first)
    assert isinstance(sim.answer("A", 1), Sample)
    assert sim.answer("B", 2) is None


def test_now_does_not_wait_for_a_trial() -> None:
    """Mode "now" gets a sample while there is room, and else hears that there is none."""
    sim = created(num_init_trials=1, num_workers=2)
    assert [type(sim.ask(mode="now")) for _ in range(2)] == [Sample, Sample]
    assert sim.ask(mode="now") == Nothing(2, done=False)


def test_now_does_not_wait_when_all_trials_are_handed_out() -> None:
    """Also when workers are free, but no trial is left."""
    sim = created(num_trials=3, num_workers=4)
    assert [type(sim.ask(mode="now")) for _ in range(3)] == [Sample] * 3
    assert sim.ask(mode="now") == Nothing(3, done=False)


def test_now_waits_for_the_sampler() -> None:
    """A sample that only has to be computed is waited for."""
    sim = Simulation(prompt=False)
    sim.create()
    assert sim.ask(mode="now") is None
    sim.suggest()
    assert isinstance(sim.answer("op", 0), Sample)


@pytest.mark.parametrize("mode", ["next", "now", "end"])
def test_done(mode: str) -> None:
    """When every trial has ended, every request is answered so, again and again."""
    sim = created(num_trials=1)
    end(sim, sim.sample())
    assert [sim.ask(mode=mode) for _ in range(2)] == [Nothing(1, done=True), Nothing(2, done=True)]


def test_the_end_is_waited_for() -> None:
    """Mode "end" is answered when the last trial has ended, not before."""
    sim = created(num_trials=2)
    samples = [sim.sample(), sim.sample()]
    assert sim.ask("waits", "end") is None
    end(sim, samples[0])
    assert sim.answer("waits", 0) is None
    sim.crash()
    end(sim, samples[1])
    assert sim.answer("waits", 0) == Nothing(0, done=True)


def test_nobody_waits_for_trials_that_nobody_takes() -> None:
    """Mode "end" is answered too when nothing is under way and no operator asks for more."""
    sim = created(num_trials=2)
    to = sim.sample()
    assert sim.ask("waits", "end") is None
    sim.report(to, 0.5)
    sim.lose(to)
    assert sim.answer("waits", 0) == Nothing(0, done=True)


def test_a_trial_to_be_handed_out_again_comes_first() -> None:
    """Before a new one, and whenever a worker is free; it still counts as one trial."""
    sim = created(num_trials=3, num_workers=1)
    first, second = sim.sample(), sim.sample()
    sim.release(first)
    assert sim.ask() is None
    end(sim, second)
    again = sim.answer("op", 2)
    assert isinstance(again, Sample)
    assert (again.trial, again.attempt) == (0, 2)


# --- exactly num_trials


@pytest.mark.parametrize("search_alg", ["bayes_opt", "asha"])
def test_two_operators_share_one_budget(search_alg: str) -> None:
    """However they take turns, exactly num_trials trials are handed out, each to one of them."""
    sim = created(num_trials=7, num_workers=3, search_alg=search_alg)
    samples = []
    for turn in range(40):
        answer = sim.ask("AB"[turn % 2], "now")
        if isinstance(answer, Sample):
            samples.append(answer)
        if turn % 3 == 2 and samples:
            end(sim, samples[turn // 3 % len(samples)])
        if turn % 10 == 9:
            sim.crash()
    assert sorted(to.trial for to in samples) == list(range(7))
    assert sim.study.desk.done


@pytest.mark.parametrize("crashes", [0.0, 0.3])
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("search_alg", ["bayes_opt", "asha"])
def test_whole_studies(search_alg: str, workers: int, crashes: float) -> None:
    """With trials that crash and run out of memory, and a coordinator that dies, every trial comes to its end."""

    def train(to: Sample) -> Any:
        yield to.params["lr"]
        if to.trial % 3 == 1:
            raise MemoryError
        if to.trial % 3 == 2:
            raise RuntimeError
        yield from (to.params["lr"], None, to.params["lr"])

    sim = created(search_alg=search_alg, num_trials=9, num_workers=workers, batch_size_name="bs")
    samples = sim.run(train, crashes=crashes)
    assert {to.trial for to in samples} == set(range(9))
    assert all(
        trial.state in (TrialState.COMPLETED, TrialState.STOPPED, TrialState.FAILED) for trial in sim.study.trials
    )


def test_a_crash_of_the_coordinator_changes_no_study() -> None:
    """The trials of a study are the same with a coordinator that dies at every other turn."""

    def outcome(crashes: float) -> Any:
        sim = created(num_trials=8, num_workers=2, early_stop="median_stop", max_iterations=6)
        sim.run(lambda to: (to.params["lr"] * step for step in range(6)), crashes=crashes)
        return [(trial.params, trial.state, trial.best_score, trial.last_step) for trial in sim.study.trials]

    # the same order of turns: the crashes are drawn either way
    assert outcome(1e-9) == outcome(0.5)


def test_the_real_sampler() -> None:
    """The study and the sampler that it is made for agree with each other."""
    pytest.importorskip("numpy")
    from hpopt.samplers.base import suggest

    sim = Simulation(seed=3, sampler=suggest)
    sim.create(num_trials=8, num_workers=2, num_init_trials=3)
    sim.run(lambda to: [to.params["lr"]] * 4, crashes=0.1)
    keys = {sim.study.spec.search_space.key(trial.params) for trial in sim.study.trials}
    assert len(keys) == 8


def test_a_finite_space_is_used_up() -> None:
    """num_trials is capped by the number of configurations, and each is tried once."""
    sim = created(search_space=FINITE, num_trials=99)
    assert sim.study.spec.trials == 4
    sim.run(lambda _to: [0.5] * 4)
    assert len({FINITE.key(trial.params) for trial in sim.study.trials}) == 4


# --- requests come again


def test_a_repeated_request_gets_the_same_answer() -> None:
    """As long as the trial is theirs, also when it is at its end, and after a restart."""
    sim = created()
    to = sim.sample()
    for reach in (lambda: None, lambda: sim.report(to, 0.5), lambda: end(sim, to), sim.crash):
        reach()
        before = snapshot(sim.study)
        sim.committed.replies.clear()
        sim.send(Ask("u1", "op", 0))
        assert sim.answer("op", 0) == to
        assert snapshot(sim.study) == before


def test_a_repeated_request_that_waits() -> None:
    """It waits once, and is answered once."""
    sim = created(num_init_trials=1)
    to = sim.sample()
    sim.ask()
    before = snapshot(sim.study)
    sim.send(Ask("u1", "op", 1))
    assert snapshot(sim.study) == before
    end(sim, to)
    assert len(sim.committed.replies["op"]) == 3  # the create's, and two samples
    assert len(sim.study.trials) == 2


# --- operators come and go


def test_a_trial_whose_operator_is_gone_is_given_to_another() -> None:
    """If it was not started, it is handed out again unchanged: the same attempt, byte for byte."""
    sim = created(num_workers=1, num_init_trials=1, batch_size_name="bs")
    to = sim.sample("A")
    sim.study.attempts.bound.failed(to.params["bs"])  # has been learned since
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
    end(sim, to)
    assert isinstance(sim.answer("B", 1), Sample)
    assert len(sim.study.trials) == 2
    sim.crash()
    assert not sim.study.desk.requests


def test_whose_heartbeats_matter() -> None:
    """Lives of running trials; sessions that wait, or hold a trial that was not started."""
    sim = created(num_init_trials=3, num_workers=1)
    assert sim.study.watched() == ([], set())
    first = sim.sample("A")
    sim.sample("B")
    sim.start(first, "x")
    sim.sample("C")
    sim.ask("D")
    assert sim.study.watched() == ([(0, 1, "x")], {"B", "C", "D"})


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
    end(sim, sim.sample())
    sim.report(sim.sample(), 0.5)
    assert sim.ask(mode=mode, yields=((1, 1, "a"),)) == Nothing(2, done=True)


@pytest.mark.parametrize("left", [(0, 1, "b"), (0, 2, "a"), (5, 1, "a"), (-1, 0, "")])
def test_only_ones_own_trial_is_left_behind(left: tuple[int, int, str]) -> None:
    """Another process's trial, another attempt or an unknown trial is none of their business."""
    sim = created(num_workers=1, num_init_trials=1)
    sim.report(sim.sample(), 0.5)
    assert sim.ask(yields=(left,)) is None
    assert sim.study.trials.since(0)[0].state is TrialState.RUNNING


# --- suggestions


def test_suggestions_are_prepared_ahead() -> None:
    """All initial ones, then one for each worker, never more than there are trials left."""
    sim = Simulation(prompt=False)
    sim.create(num_init_trials=4, num_workers=2, num_trials=5)
    wanted = sim.study.wanted()
    assert wanted is not None
    assert (wanted.ordinal, wanted.count, wanted.observations, wanted.pending) == (0, 4, (), ())
    sim.suggest()
    samples = [sim.sample() for _ in range(4)]
    wanted = sim.study.wanted()
    assert wanted is not None
    assert (wanted.ordinal, wanted.count) == (4, 1)
    assert [params for params in wanted.pending] == [to.params for to in samples]
    sim.suggest()
    assert sim.study.wanted() is None


def test_one_worker_gets_suggestions_that_know_all_results() -> None:
    """With num_workers=1 a model's suggestion made before the last result is not handed out."""
    sim = Simulation(prompt=False)
    sim.create(num_init_trials=1, num_workers=1)
    sim.suggest()
    to = sim.sample()
    assert sim.study.wanted() is None  # it would be stale at once
    sim.ask()
    end(sim, to)
    assert sim.answer("op", 1) is None
    wanted = sim.study.wanted()
    assert wanted is not None
    assert [each.params for each in wanted.observations] == [to.params]
    sim.suggest()
    assert isinstance(sim.answer("op", 1), Sample)


def test_several_workers_need_not_wait_for_a_fit() -> None:
    """With more workers a suggestion that is ready is handed out, and a fresh one is wanted afterwards."""
    sim = Simulation(prompt=False)
    sim.create(num_init_trials=1, num_workers=2)
    sim.suggest()
    to = sim.sample()
    sim.suggest()
    sim.sample()
    sim.suggest()
    end(sim, to)
    assert sim.study.wanted() is not None
    assert isinstance(sim.ask(), Sample)


def test_what_was_handed_out_in_the_meantime_is_left_out() -> None:
    """A suggestion that arrives late does not hand out a configuration twice."""
    sim = Simulation(prompt=False)
    sim.create(num_trials=4, num_workers=4)
    request = sim.study.wanted()
    assert request is not None
    late = Suggested("u1", 0, 0, tuple(sim.sampler(request)))
    sim.suggest()
    handed = sim.sample()
    sim.send(late)
    assert handed.params not in sim.study.desk.ready
    assert len(sim.study.desk.ready) == len(late.params) - 1


def test_suggestions_of_another_study_are_ignored() -> None:
    """The study was replaced while they were made."""
    sim = Simulation(prompt=False)
    sim.create()
    sim.send(Suggested("u0", 0, 0, ({"lr": 0.01, "bs": 8},)))
    assert sim.study.desk.ready == []


def test_a_failing_sampler_is_asked_again() -> None:
    """The reason is noted; the request waits."""
    sim = Simulation(prompt=False)
    sim.create()
    assert sim.ask() is None
    assert sim.send(SuggestFailed("u1", "singular matrix")) == [Noted("suggestion failed", None, "singular matrix")]
    assert sim.study.wanted() is not None
    sim.suggest()
    assert isinstance(sim.answer("op", 0), Sample)


def test_a_sampler_without_ideas_is_not_asked_in_vain() -> None:
    """Only a new result is a reason to ask it again."""
    sim = Simulation(prompt=False)
    sim.create(num_init_trials=1, num_workers=2)
    sim.suggest()
    to = sim.sample()
    sim.send(Suggested("u1", 0, 1, ()))
    assert sim.study.wanted() is None
    end(sim, to)
    assert sim.study.wanted() is not None


def test_what_a_sampler_learns() -> None:
    """Every trial that has ended: its best score, how far it got, and whether that was the end."""
    sim = created(num_trials=5, num_init_trials=4, num_workers=2)
    completed, stopped, invalid, pending = (sim.sample() for _ in range(4))
    end(sim, completed)
    sim.report(stopped, 0.25)
    sim.finalize(stopped)
    for _ in range(3):
        sim.report(invalid, None)
    sim.start(pending)
    observations = sim.study.trials.observations()
    assert [(each.score, each.steps, each.complete) for each in observations] == [
        (0.5, 4, True), (0.25, 1, False), (None, 3, False),
    ]  # fmt: skip


def test_requests_before_the_study_exists() -> None:
    """They are refused at once."""
    sim = Simulation()
    sim.send(Ask("u1", "op", 0))
    assert sim.answer("op", 0) == Refusal(0, "unknown", "there is no such study")
    assert sim.study.wanted() is None
    assert sim.study.watched() == ([], set())
