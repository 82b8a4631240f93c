from typing import Any

import pytest

from hpopt.core.effects import StudyChanged, StudyReplaced
from hpopt.core.internal import Tick
from hpopt.core.messages import Ask, Close, Create, Created, Finalize, Query, Refusal, Release, Report, Sample, Start
from hpopt.core.schedulers.asha import Asha
from hpopt.core.space import SearchSpace, Space
from hpopt.core.study import REMEMBERED
from hpopt.status import Status
from tests.committed import snapshot
from tests.simulation import Simulation, created


def train(_to: Sample) -> list[float | None]:
    """A trial that gets as far as it can."""
    return [0.5] * 4


# --- creating


def test_create() -> None:
    """A new study has the operator's uid and a resolved spec; it is committed before it is answered."""
    sim = Simulation()
    answer = sim.create(num_trials=None, subset_ratio=None, seed=None, full_dataset_size=5000)
    assert isinstance(answer, Created)
    assert (answer.uid, sim.study.uid, sim.committed.uid) == ("u1", "u1", "u1")
    assert answer.spec == sim.study.spec
    assert None not in (answer.spec.num_trials, answer.spec.subset_ratio, answer.spec.seed)
    assert answer.schedule is not None
    assert answer.schedule["derived"] == ["num_trials", "subset_ratio"]


def test_the_seed_follows_from_the_uid() -> None:
    """Without a seed each study searches otherwise; with the same uid, as it did before."""
    seeds = [created(uid=uid, seed=None).study.spec.seed for uid in ("a", "a", "b")]
    assert seeds[0] == seeds[1] != seeds[2]
    assert created(seed=5).study.spec.seed == 5


def test_create_comes_twice() -> None:
    """A repeat is answered as the first time."""
    sim = Simulation()
    first = sim.create(uid="u")
    sim.sample()
    before = snapshot(sim.study)
    assert sim.create(uid="u", overwrite=True) == first
    assert snapshot(sim.study) == before


def test_the_first_create_may_resume() -> None:
    """Resuming what is not there begins it."""
    assert isinstance(Simulation().create(resume=True), Created)


@pytest.mark.parametrize(
    ("given", "expected", "notice"),
    [
        ({"num_brackets": 9, "max_iterations": 9, "reduction_factor": 3}, {"num_brackets": 3}, "num_brackets=9"),
        ({"num_brackets": 6, "max_iterations": 243, "reduction_factor": 3}, {"num_brackets": 6}, None),
        ({"early_stop": "median_stop"}, {"early_stop": None}, "early_stop='median_stop' is ignored"),
        ({"min_iterations": 9, "num_brackets": 2}, {"num_brackets": 1}, "min_iterations=9"),
        ({"grace_period": 0.5}, {"grace_period": 0.5}, "grace_period=0.5 is ignored: it is for search_alg='bayes_opt'"),
        ({"early_stop": "median_stop", "min_peers": 2}, {"early_stop": None}, "min_peers=2 is ignored"),
    ],
    ids=["too many brackets", "just enough", "early_stop", "min_iterations", "guard", "guard of a rule"],
)
def test_what_does_not_apply_to_asha(given: dict[str, Any], expected: dict[str, Any], notice: str | None) -> None:
    """It is changed with a notice, and resuming with the same arguments is no difference."""
    sim = Simulation()
    answer = sim.create(search_alg="asha", **given)
    assert isinstance(answer, Created)
    assert {name: getattr(answer.spec, name) for name in expected} == expected
    assert any(text.startswith(notice) for text in answer.notices) if notice else not answer.notices[1:]
    assert isinstance(sim.create(search_alg="asha", resume=True, **given), Created)


def test_guards_without_a_rule_to_guard_against() -> None:
    """bayes_opt says so too, of each one that was given, unless it stops trials by the median."""
    for early_stop, ignored in ((None, ["lenient_every=0", "min_peers=2"]), ("median_stop", [])):
        answer = Simulation().create(early_stop=early_stop, min_peers=2, lenient_every=0)
        assert isinstance(answer, Created)
        assert sorted(text.split()[0] for text in answer.notices if "is ignored" in text) == ignored


@pytest.mark.parametrize(
    ("given", "ignored"),
    [
        ({"search_alg": "asha", "num_init_trials": 30}, ["num_init_trials=30"]),
        ({"reduction_factor": 3, "num_brackets": 2}, ["num_brackets=2", "reduction_factor=3"]),
        ({"early_stop": "median_stop", "min_iterations": 3}, ["min_iterations=3"]),
        ({"search_alg": "asha", "num_init_trials": 5, "reduction_factor": 3, "min_iterations": 2}, []),
        ({"num_init_trials": 3}, []),
    ],
)
def test_arguments_of_the_other_algorithm(given: dict[str, Any], ignored: list[str]) -> None:
    """What the algorithm has no use for is named."""
    answer = Simulation().create(**given)
    assert isinstance(answer, Created)
    assert sorted(text.split()[0] for text in answer.notices if "is ignored" in text) == ignored


def test_min_iterations_beyond_the_last() -> None:
    """Every trial then runs to its end."""
    sim = created(search_alg="asha", min_iterations=9)
    assert isinstance(sim.study.attempts.scheduler, Asha)
    assert sim.study.attempts.scheduler.levels == [()]
    sim.run(train)
    assert all(trial.last_step == 4 for trial in sim.study.trials)


# --- resuming


def test_resume_goes_on() -> None:
    """A session of another process gets the same study, with its trials and the initial arguments."""
    sim = created(num_trials=3)
    sim.run(train)
    before = sim.study.trials
    answer = sim.create("next", resume=True, num_trials=5)
    assert isinstance(answer, Created)
    assert (answer.uid, answer.spec.num_trials) == ("u1", 5)
    assert sim.study.trials is before
    assert sim.sample("next").trial == 3


def test_resume_keeps_what_is_not_given() -> None:
    """None keeps what was derived when the study was made."""
    sim = created(num_trials=None, subset_ratio=None, full_dataset_size=5000, seed=None)
    spec = sim.study.spec
    answer = sim.create(resume=True, num_trials=None, subset_ratio=None, full_dataset_size=5000, seed=None)
    assert isinstance(answer, Created)
    assert answer.spec == spec


@pytest.mark.parametrize(
    "given",
    [
        {"subset_ratio": 0.01, "full_dataset_size": 5000},
        {"num_trials": 99, "search_space": Space({"x": SearchSpace("choice", [1, 2, 3])})},
        {"num_init_trials": 50},
        {"image_resize": (8, 8), "default_hyper_parameters": ({"lr": 0.01, "bs": 8.0},)},
    ],
    ids=["least subset", "finite space", "many initial trials", "rounded defaults"],
)
def test_resume_with_the_same_arguments(given: dict[str, Any]) -> None:
    """Whatever was made of the arguments, the same ones are no difference."""
    sim = created(**given)
    assert isinstance(sim.create(resume=True, **given), Created)


def test_resume_with_other_arguments() -> None:
    """The refusal names each of them; nothing changes."""
    sim = created()
    before = snapshot(sim.study)
    answer = sim.create(resume=True, mode="min", metric="loss", num_trials=5)
    assert isinstance(answer, Refusal)
    assert (answer.n, answer.code) == (-1, "spec")
    assert all(part in answer.message for part in ("mode was 'max'", "metric was 'mAP'", "num_trials was 6"))
    assert snapshot(sim.study) == before


def test_resume_after_the_batch_has_shrunk() -> None:
    """The search space is compared as it was created, not with what was learned of memory."""
    sim = created(batch_size_name="bs")
    sim.out_of_memory(sim.sample())
    sim.crash()
    assert isinstance(sim.create(resume=True, batch_size_name="bs"), Created)


def test_resume_comes_twice() -> None:
    """A repeat neither fails nor undoes what another operator has changed since."""
    sim = created()
    sim.create("A", uid="join", resume=True, num_trials=7)
    sim.create("B", uid="other", resume=True, num_trials=9)
    sim.crash()
    answer = sim.create("A", uid="join", resume=True, num_trials=7)
    assert isinstance(answer, Created)
    assert answer.spec.num_trials == 9


def test_more_workers() -> None:
    """A waiting request is served when an operator raises num_workers."""
    sim = created(num_init_trials=1, num_workers=1)
    sim.sample()
    assert sim.ask() is None
    sim.create("next", resume=True, num_init_trials=1, num_workers=2)
    assert isinstance(sim.answer("op", 1), Sample)


# --- replacing


def test_an_unfinished_study_is_not_replaced() -> None:
    """Without resume and overwrite it stays, and the refusal says how far it is."""
    sim = created()
    to = sim.sample()
    before = snapshot(sim.study)
    answer = sim.create("other")
    assert answer == Refusal(-1, "exists", "it is not finished: 0 of 6 trials have ended")
    assert snapshot(sim.study) == before
    assert sim.report(to, 0.5) is Status.RUNNING


@pytest.mark.parametrize("how", ["overwrite", "private", "finished"])
def test_a_study_is_replaced(how: str) -> None:
    """With overwrite, on a private server, or when it has ended: a new study, from the first trial on."""
    sim = created(num_trials=2)
    if how == "finished":
        sim.run(train)
    else:
        sim.sample()
    answer = sim.create("new", overwrite=how == "overwrite", private=how == "private", mode="min")
    assert isinstance(answer, Created)
    assert (answer.uid, answer.spec.mode, len(sim.study.trials)) == ("u2", "min", 0)
    assert snapshot(sim.committed.restore(75.0)) == snapshot(sim.study)
    assert sim.sample("new").trial == 0


def test_replacing_drops_the_old_keys() -> None:
    """The coordinator hears how many trials' keys there are to drop."""
    sim = created(num_trials=3)
    sim.sample()
    sim.sample()
    effects = sim.send(Create("new", "other", sim.spec(), overwrite=True))
    assert StudyReplaced("u1", 2) in effects
    assert StudyChanged() in effects


def test_who_belongs_to_the_old_study_is_told() -> None:
    """Waiting operators are refused at once, later requests too, and trainers hear STOP."""
    sim = created(num_init_trials=1)
    to = sim.sample()
    sim.report(to, 0.5)
    sim.ask()
    sim.create("new", overwrite=True)
    assert sim.answer("op", 1) == Refusal(1, "replaced", "a new study has taken this one's name")
    before = snapshot(sim.study)
    sim.send(Ask("u1", "op", 2))
    assert sim.answer("op", 2) == Refusal(2, "replaced", "a new study has taken this one's name")
    old: list[Any] = [Start("u1", 0, 1, "a"), Report("u1", 0, 1, "a", 2, 0.9), Finalize("u1", 0, 1)]
    for event in [*old, Release("u1", 0, 1), Query("u1", 0, 1), Close("u1", "op")]:
        sim.send(event)
        verdict = sim.committed.verdict("u1", 0)
        assert verdict is not None
        assert (verdict.stop_step, verdict.reason) == (0, "a new study has taken this one's name")
    assert snapshot(sim.study) == before


def test_a_replaced_create_does_not_come_back() -> None:
    """A repeat of the create of a replaced study changes nothing."""
    sim = created(uid="old")
    sim.create(uid="new", overwrite=True)
    sim.crash()
    before = snapshot(sim.study)
    assert sim.create(uid="old", overwrite=True) == Refusal(-1, "replaced", "a new study has taken this one's name")
    assert snapshot(sim.study) == before


def test_so_many_incarnations_are_remembered() -> None:
    """The list of earlier uids does not grow for ever."""
    sim = created()
    for _ in range(2 * REMEMBERED):
        sim.create(overwrite=True)
    assert len(sim.study.past) == REMEMBERED


# --- before there is a study


def test_nothing_happens_without_a_study() -> None:
    """Trainers hear STOP, the clock may tick, and nothing is stored."""
    sim = Simulation()
    sim.send(Report("u1", 0, 1, "a", 1, 0.5))
    sim.send(Tick())
    sim.send(Close("u1", "op"))
    verdict = sim.committed.verdict("u1", 0)
    assert verdict is not None
    assert (verdict.stop_step, verdict.reason) == (0, "there is no such study")
    assert snapshot(sim.committed.restore(75.0)) is None
