"""What is prepared at the hand-out desk: how many suggestions, when they are made again, what they know."""

from typing import Any

import pytest

from hpopt.core import handout
from hpopt.core.effects import Noted
from hpopt.core.internal import Suggested, SuggestFailed
from hpopt.core.messages import Refusal, Sample
from hpopt.core.space import SearchSpace, Space
from tests.simulation import Simulation, created


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
    assert list(wanted.pending) == [to.params for to in samples]
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
    sim.complete(to)
    assert sim.answer("op", 1) is None
    wanted = sim.study.wanted()
    assert wanted is not None
    assert [each.params for each in wanted.observations] == [to.params]
    sim.suggest()
    assert isinstance(sim.answer("op", 1), Sample)


def test_a_suggestion_grows_stale_while_nobody_asks() -> None:
    """What was ready before another trial came to its end is made anew."""
    sim = Simulation(prompt=False)
    sim.create(num_init_trials=1, num_workers=1)
    sim.suggest()
    sim.release(sim.sample())
    sim.suggest()
    sim.complete(sim.sample())
    assert len(sim.study.desk.ready) == 1
    assert sim.ask() is None
    sim.suggest()
    assert isinstance(sim.answer("op", 2), Sample)


def test_several_workers_need_not_wait_for_a_fit() -> None:
    """With more workers a suggestion that is ready is handed out, and a fresh one is wanted afterwards."""
    sim = Simulation(prompt=False)
    sim.create(num_init_trials=1, num_workers=2)
    sim.suggest()
    to = sim.sample()
    sim.suggest()
    sim.sample()
    sim.suggest()
    sim.complete(to)
    assert sim.study.wanted() is not None
    assert isinstance(sim.ask(), Sample)


def test_a_fleet_is_served_together() -> None:
    """So many suggestions are made at once as may be handed out, 64 at most; eight are kept in stock."""
    sim = Simulation(prompt=False)
    sim.create(num_init_trials=1, num_workers=100, num_trials=1000)
    request = sim.study.wanted()
    assert request is not None
    assert request.count == 64
    sim.suggest()
    running = [sim.sample() for _ in range(64)]
    sim.suggest()
    running += [sim.sample() for _ in range(36)]
    sim.complete(running[0])
    request = sim.study.wanted()
    assert request is not None
    assert request.count == 8


def test_a_fleet_costs_one_fit() -> None:
    """Suggestions made together know each other: none is made again as they are handed out one by one."""
    sim = Simulation(prompt=False)
    sim.create(num_init_trials=2, num_workers=64, num_trials=1000)
    sim.suggest()
    for to in (sim.sample(), sim.sample()):
        sim.complete(to)
    sim.suggest()
    for left in range(63, -1, -1):
        assert sim.study.wanted() is None
        sim.sample()
        assert len(sim.study.desk.ready) == left
    assert sim.study.wanted() is not None  # one is kept ready for whoever asks when a trial has ended


def test_what_is_ready_knows_what_was_handed_out() -> None:
    """A suggestion was handed out while the next ones were made: they are made again, with that one pending."""
    sim = Simulation(prompt=False)
    sim.create(num_init_trials=1, num_workers=4, num_trials=100)
    sim.suggest()
    sim.complete(sim.sample())
    sim.suggest()
    running = [sim.sample() for _ in range(2)]
    sim.complete(running[0])
    request = sim.study.wanted()
    assert request is not None
    handed = sim.sample()  # one of those that were ready
    others = ({"lr": 0.001, "bs": 8}, {"lr": 0.002, "bs": 16}, {"lr": 0.003, "bs": 24})
    sim.send(Suggested("u1", request.basis, request.ordinal, others))
    assert sim.study.desk.ready == list(others)  # they will do if there is no time for better ones
    again = sim.study.wanted()
    assert again is not None
    assert handed.params in again.pending
    sim.suggest()
    assert sim.study.wanted() is None


@pytest.mark.parametrize("place", [0, 2])
def test_a_batch_that_holds_what_was_handed_out(place: int) -> None:
    """Where that comes first, the others of the batch were made with it pending; else those before it were not."""
    sim = Simulation(prompt=False)
    sim.create(num_init_trials=1, num_workers=4, num_trials=100)
    sim.suggest()
    sim.complete(sim.sample())
    sim.suggest()
    batch = list(sim.study.desk.ready)
    handed = sim.sample()
    assert handed.params == batch[0]
    rest = batch[1:]
    sim.send(Suggested("u1", 1, 1, (*rest[:place], handed.params, *rest[place:])))
    assert sim.study.desk.ready == rest
    assert (sim.study.wanted() is None) == (place == 0)


def test_another_acquisition_makes_other_suggestions() -> None:
    """After a resume with other arguments nothing that was, or is being, made with the old ones is handed out."""
    sim = Simulation(prompt=False)
    sim.create(num_init_trials=1, num_workers=2)
    old = sim.study.wanted()
    assert old is not None
    sim.suggest()
    assert sim.study.wanted() is None
    sim.create("other", resume=True, num_init_trials=1, num_workers=2, acquisition="random")
    sim.send(Suggested("u1", old.basis, old.ordinal, tuple(sim.sampler(old)), epoch=old.epoch))
    assert sim.study.desk.ready == []
    request = sim.study.wanted()
    assert request is not None
    assert request.spec.acquisition == "random"
    sim.suggest()
    assert isinstance(sim.ask(), Sample)


def test_other_arguments_of_a_study_whose_memory_is_short() -> None:
    """All that fits has been prepared: after a resume it is prepared again, not written off."""
    space = Space({"x": SearchSpace("quniform", [1, 3, 1]), "bs": SearchSpace("choice", [8, 64])})
    given: dict[str, Any] = {"search_space": space, "batch_size_name": "bs", "num_trials": 6, "num_workers": 4}
    sim = Simulation()
    sim.create(**given, num_init_trials=1, max_iterations=1)
    first = sim.sample()
    while first.params["bs"] != 64:
        sim.complete(first)
        first = sim.sample()
    sim.out_of_memory(first)
    sim.complete(sim.sample())
    fits = {params["x"] for params in sim.study.desk.ready}
    assert sim.study.desk.exhausted
    assert fits
    sim.create("new", resume=True, **given, num_init_trials=1, max_iterations=1, kappa=1.0)
    assert {params["x"] for params in sim.study.desk.ready} == fits
    assert not sim.study.desk.done


def asha_after(ended: int, workers: int) -> Simulation:
    """A study of asha that has just got suggestions made from so many ended trials, as many as are made at once."""
    sim = Simulation(prompt=False)
    sim.create(search_alg="asha", num_workers=workers, num_trials=10_000, max_iterations=9, min_iterations=1)
    sim.prompt = True
    for _ in range(ended):
        sim.complete(sim.sample())
    sim.prompt = False
    sim.study.desk.ready.clear()
    sim.suggest()
    assert sim.study.wanted() is None
    return sim


@pytest.mark.parametrize(("workers", "at_once"), [(2, 2), (12, 12)])
def test_asha_makes_many_suggestions_at_once(workers: int, at_once: int) -> None:
    """As many as there are workers, and again when less than half is left: few results have come since."""
    sim = asha_after(16 * at_once, workers)
    assert len(sim.study.desk.ready) == at_once
    for left in range(at_once - 1, at_once // 2 - 1, -1):
        sim.complete(sim.sample())
        assert len(sim.study.desk.ready) == left
        assert sim.study.wanted() is None
    sim.complete(sim.sample())
    wanted = sim.study.wanted()
    assert wanted is not None
    assert wanted.count == at_once


def test_asha_makes_no_more_at_once_than_a_model_can() -> None:
    """However many workers there are."""
    sim = Simulation(prompt=False)
    sim.create(search_alg="asha", num_workers=512, num_trials=10_000)
    wanted = sim.study.wanted()
    assert wanted is not None
    assert wanted.count == 64


def test_asha_takes_news_into_account() -> None:
    """However many suggestions are left, they are made again when a twentieth more trials have ended."""
    sim = asha_after(100, 64)
    running = [sim.sample() for _ in range(6)]
    for to in running[:5]:
        sim.complete(to)
    assert sim.study.wanted() is None
    sim.complete(running[5])
    assert sim.study.wanted() is not None


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


def test_a_sampler_that_keeps_failing_is_told_of() -> None:
    """After three failures in a row whoever waits for it is told; a later request gets what works again."""
    sim = Simulation(prompt=False)
    sim.create()
    assert sim.ask() is None
    for _ in range(2):
        sim.send(SuggestFailed("u1", "singular matrix"))
    assert sim.answer("op", 0) is None
    sim.send(SuggestFailed("u1", "singular matrix"))
    answer = sim.answer("op", 0)
    assert isinstance(answer, Refusal)
    assert (answer.code, "singular matrix" in answer.message) == ("stuck", True)
    sim.suggest()
    assert isinstance(sim.ask(), Sample)
    assert sim.study.desk.failures == 0


def test_a_sampler_without_ideas_is_not_asked_in_vain() -> None:
    """Only a new result is a reason to ask it again."""
    sim = Simulation(prompt=False)
    sim.create(num_init_trials=1, num_workers=2)
    sim.suggest()
    to = sim.sample()
    sim.send(Suggested("u1", 0, 1, (), last=True))
    assert sim.study.wanted() is None
    sim.complete(to)
    assert sim.study.wanted() is not None


def test_what_a_sampler_learns() -> None:
    """Every trial that has ended: its best score, how far it got, and whether that was the end."""
    sim = created(num_trials=5, num_init_trials=4, num_workers=2)
    completed, stopped, invalid, pending = (sim.sample() for _ in range(4))
    sim.complete(completed)
    sim.report(stopped, 0.25)
    sim.finalize(stopped)
    for _ in range(3):
        sim.report(invalid, None)
    sim.start(pending)
    observations = sim.study.trials.observations()
    assert [(each.score, each.steps, each.complete) for each in observations] == [
        (0.5, 4, True), (0.25, 1, False), (None, 3, False),
    ]  # fmt: skip


def test_what_was_tried_is_not_suggested_again_by_who_cannot_know(monkeypatch: pytest.MonkeyPatch) -> None:
    """In large studies the sampler sees some results only; what it repeats is told to it, once, and asked for anew."""
    monkeypatch.setattr(handout, "OBSERVED", 4)
    sim = Simulation(prompt=False)
    sim.create(search_alg="asha", num_workers=1, num_trials=20)
    for _ in range(6):
        sim.suggest()
        sim.complete(sim.sample())
    request = sim.study.wanted()
    assert request is not None
    unseen = next(trial for trial in sim.study.trials if trial.params not in [o.params for o in request.observations])
    for known in ((), (unseen.params,)):
        request = sim.study.wanted()
        assert request is not None
        assert request.left_behind == known
        sim.send(Suggested(sim.study.uid, request.basis, request.ordinal, (unseen.params,)))
    assert sim.study.desk.ready == [unseen.params], "it was told, and there is nothing else"
