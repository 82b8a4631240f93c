"""What is measured of trials, and how num_trials follows."""

import math
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpopt.core.budget import OPEN, affordable, plan, trial_bounds
from hpopt.core.cost import Pace, assumed_length, expected_ratio
from hpopt.core.effects import Effect
from hpopt.core.internal import Internal
from hpopt.core.messages import Create, Created, Event, Refusal
from hpopt.core.pace import epoch_seconds, measured
from hpopt.core.schedule import Correction, Schedule
from hpopt.core.space import SearchSpace, Space
from hpopt.core.spec import StudySpec
from hpopt.core.trial import Trial, TrialState
from hpopt.core.trials import Trials
from hpopt.core.validation import validated
from tests.committed import Committed, snapshot
from tests.simulation import Simulation
from tests.test_budget import make_spec, specs
from tests.virtual import Fleet

END = 10_000.0


def resolved(**fields: Any) -> StudySpec:
    """The arguments of a planned study."""
    return plan(make_spec(**{"seed": 1, "subset_ratio": 1.0, "max_iterations": 10, **fields}))[0]


def ran(trial: int, steps: int = 10, begin: float = 0.0, epoch: float = 2.0, besides: float = 0.0) -> Trial:
    """A trial that was handed out at `begin` and stopped with its last report."""
    state = TrialState.COMPLETED if steps == 10 else TrialState.STOPPED
    end = begin + besides + steps * epoch
    return Trial(
        trial, {}, state=state, issued_at=begin, ended_at=end, first_step=1, first_at=begin + besides + epoch,
        last_step=steps, seen_step=steps, stop_step=steps,
    )  # fmt: skip


def under_way(trial: int, steps: int, begin: float = 0.0) -> Trial:
    """A trial that has reported so many steps."""
    return Trial(trial, {}, state=TrialState.RUNNING, issued_at=begin, last_step=steps, seen_step=steps)


# --- the pace


def test_trials_that_run_as_planned_change_nothing() -> None:
    """A pace as assumed is one as assumed, but for the seconds of an epoch."""
    trials = [ran(i, begin=20.0 * i) for i in range(6)]
    assert measured(resolved(), trials, END) == Pace(seconds=2.0)


def test_without_trials_nothing_is_known() -> None:
    """A study that has not begun is as assumed."""
    assert measured(resolved(), [], END) == Pace()


@pytest.mark.parametrize(
    "changes",
    [{"first_step": 0}, {"last_step": 1, "stop_step": 1}, {"stop_step": 11}, {"stop_step": None}, {"base_step": 3}],
    ids=["no report", "one report", "ended between reports", "not stopped", "in two lives"],
)
def test_seconds_per_epoch_are_not_guessed(changes: dict[str, Any]) -> None:
    """They are known of a trial that ended with a report, after another one of the same process."""
    trial = ran(0)
    assert epoch_seconds(trial) == 2.0
    for name, value in changes.items():
        setattr(trial, name, value)
    assert epoch_seconds(trial) is None


def test_time_besides_epochs_is_counted_in_epochs() -> None:
    """A launch of 5 s is 2.5 epochs of 2 s; the trainer that hung for an hour is not typical."""
    trials = [ran(i, begin=25.0 * i, besides=5.0) for i in range(9)]
    trials.append(ran(9, begin=250.0, besides=3600.0))
    assert measured(resolved(), trials, END).overhead == pytest.approx(2.5)


def test_waiting_for_a_worker_is_no_overhead() -> None:
    """With one worker, the initial design is handed out at once: all but the first of it wait for each other."""
    trials = [ran(i, begin=0.0, besides=20.0 * i) for i in range(5)] + [ran(i, begin=20.0 * i) for i in range(5, 8)]
    assert measured(resolved(num_init_trials=5), trials, END).overhead == 0
    assert measured(resolved(num_init_trials=5, num_workers=5), trials, END).overhead == pytest.approx(5.0)


def test_costly_configurations() -> None:
    """The mean trial may cost more than the typical one; what was assumed counts like four trials."""
    trials = [ran(i, begin=100.0 * i, epoch=each) for i, each in enumerate([1.0, 2.0, 2.0, 2.0, 6.0, 6.0])]
    assert measured(resolved(), trials, END).spread == pytest.approx((19 / 2 + 4) / 10)


def test_a_trial_that_was_held_up_is_left_out() -> None:
    """An epoch that took a night says nothing of configurations."""
    trials = [ran(i, begin=100.0 * i) for i in range(6)] + [ran(6, begin=1000.0, epoch=5000.0)]
    assert measured(resolved(), trials, END).spread == 1.0


def test_workers_that_are_not_there() -> None:
    """With 4 workers of 8, half of them are busy; that nothing is left for them at the end does not count."""
    trials = [ran(i, begin=20.0 * (i // 4)) for i in range(12)]
    trials.append(ran(12, begin=60.0))
    assert measured(resolved(num_workers=8), trials, END).busy == pytest.approx(0.5)
    assert measured(resolved(num_workers=4), trials, END).busy == 1.0
    assert measured(resolved(num_workers=2), trials, END).busy == 1.0


def test_a_trainer_that_hangs_while_nobody_asks_does_not_count() -> None:
    """It looks as if one of four workers had been there for a day; three times a full trial is all that is believed."""
    spec = resolved(num_workers=4)
    trials = [*(ran(i, begin=0.0) for i in range(4)), under_way(4, 3, begin=20.0)]
    trials += [ran(i, begin=86_400.0) for i in range(5, 9)]
    assert measured(spec, trials, 90_000.0).busy == pytest.approx((4 * 20 + 3 * 20) / (20 + 60) / 4)


def test_time_in_which_nothing_ran_does_not_count() -> None:
    """A study that was interrupted for a month is not slow."""
    trials = [ran(i, begin=20.0 * i) for i in range(3)] + [ran(3 + i, begin=3e6 + 20.0 * i) for i in range(3)]
    assert measured(resolved(), trials, 4e6) == Pace(seconds=2.0)


def test_length_counts_trials_that_are_under_way() -> None:
    """By the product-limit estimate: of 4 trials one stops after 2 of 10 epochs, and one of the 2 left after 5.

    Then a share of 3/4 goes beyond 2, and half of that beyond 5: 2 + 3 * 3/4 + 5 * 3/8 = 6.125 epochs. The trial
    that has reported 3 steps goes on at least.
    """
    trials = [ran(0, 2), under_way(1, 3), ran(2, 5), ran(3, 10)]
    assert measured(resolved(), trials, END).length == pytest.approx((4 + 3 * 0.6125) / (4 + 3))


def test_length_of_trials_that_no_rule_stops_is_not_asked() -> None:
    """Trials that median_stop spares run to their end; what was assumed of the others is scaled."""
    spec = resolved(early_stop="median_stop", grace_trials=2)
    trials = [ran(0), ran(1), ran(2, 3), ran(3, 3), ran(4, 3), ran(5, 3)]
    expected = (4 + 4 * 3 / assumed_length(spec, 4)) / 8
    assert measured(spec, trials, END).length == pytest.approx(expected)
    assert measured(spec, trials[:2], END).length == 1.0


# --- what it costs, and what fits


def test_cost_at_a_pace() -> None:
    """20 trials of 10 epochs, each 1.5 times a typical one and with 5 besides, on half of 2 workers: 10 waves of 40."""
    spec = resolved(num_trials=20, num_workers=2)
    pace = Pace(2.0, spread=1.4, overhead=5.0, busy=0.5, length=15 / 14)
    assert expected_ratio(spec, pace) * 50 == pytest.approx(10 * (15 + 5) / 0.5)


def test_as_many_trials_as_fit() -> None:
    """4 full trainings of 50 epochs, less 5 %, hold 19 trials of 10 epochs; when they take 15, 13 are cut down to."""
    spec = resolved()
    assert spec.num_trials == 19
    assert affordable(spec, Pace(), 0) == 19
    assert affordable(spec, Pace(overhead=0.5), 0) == 19  # 199.5 epochs: they are planned, and fit
    assert affordable(spec, Pace(overhead=5.0), 0) == 13
    assert affordable(spec, Pace(overhead=5.0), 15) == 15
    assert affordable(spec, Pace(overhead=500.0), 0) == trial_bounds(spec)[0] == 10
    assert affordable(spec, Pace(length=1e-9), 0) == trial_bounds(spec)[1] == 60


paces = st.builds(Pace, st.just(1.0), st.floats(0.5, 4), st.floats(0, 50), st.floats(0.05, 1), st.floats(0.01, 3))
WORSE = {"spread": 1.5, "overhead": 2.0, "busy": 0.7, "length": 1.5}
"""Factors by which a pace costs more."""


@settings(deadline=None)
@given(specs, paces, st.sampled_from(sorted(WORSE)), st.integers(0, 50))
def test_a_worse_pace_never_asks_for_more(spec: StudySpec, pace: Pace, name: str, least: int) -> None:
    """Within the limits of a plan, above what was handed out, and with the same answer every time."""
    planned, _ = plan(replace(spec, num_trials=None))
    worse = replace(pace, **{name: getattr(pace, name) * WORSE[name]})
    low, high = trial_bounds(planned)
    count = affordable(planned, pace, least)
    assert affordable(planned, worse, least) <= count == affordable(planned, pace, least)
    assert max(low, least) <= count <= max(high, least)


@settings(deadline=None)
@given(specs, paces, st.integers(1, 200), st.integers(1, 100))
def test_more_trials_never_cost_less(spec: StudySpec, pace: Pace, trials: int, more: int) -> None:
    """Whatever the pace, also from one wave to the next, and from those that are spared to those that are not."""
    few = replace(plan(replace(spec, num_trials=trials))[0], num_trials=trials)
    assert expected_ratio(few, pace) <= expected_ratio(replace(few, num_trials=trials + more), pace) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("overhead", "wanted"),
    [(0.0, 48), (3.3, 48), (7.9, 48), (8.1, 32), (29.9, 32), (30.1, 16)],
    ids=[
        "as planned",
        "within the budget",
        "a little over it",
        "two waves are nearer",
        "a fifth over it",
        "more than that",
    ],
)
def test_waves_are_cut_where_that_is_nearer_to_the_budget(overhead: float, wanted: int) -> None:
    """3 waves of 16 trials of 30 epochs were planned for 100 epochs, and 95 is what is aimed at."""
    spec = resolved(num_trials=48, num_workers=16, max_iterations=30, expected_time_ratio=2)
    assert affordable(spec, Pace(overhead=overhead), 0) == wanted


@settings(deadline=None)
@given(specs, paces, st.integers(0, 50))
def test_a_cut_is_needed_and_enough(spec: StudySpec, pace: Pace, least: int) -> None:
    """Nothing is cut of a study that fits; another is over by a fifth at most then, unless it may not be smaller."""
    planned, _ = plan(replace(spec, num_trials=None))
    count = affordable(planned, pace, least)
    if expected_ratio(planned, pace) <= planned.expected_time_ratio:
        assert count >= planned.trials
    elif count > max(trial_bounds(planned)[0], least):
        assert count <= planned.trials
        cut = replace(planned, num_trials=count)
        assert expected_ratio(cut, pace) <= 1.2 * planned.expected_time_ratio * (1 + 1e-9)


def test_no_more_trials_than_configurations() -> None:
    """However cheap trials are."""
    space = Space({"x": SearchSpace("choice", list(range(12)))})
    assert affordable(resolved(search_space=space, num_workers=50), Pace(length=0.01), 0) == 12


# --- the schedule


def study(*trials: Trial) -> Trials:
    """The trials of a study."""
    found = Trials(lambda _trial: ())
    for trial in trials:
        found.add(trial)
    return found


def test_checks_are_rare() -> None:
    """The pace is measured after 6 trials, or half as many as there are workers; then each time half as many more."""
    spec, schedule = resolved(), Schedule(("num_trials",))
    assert not schedule.due(spec, 5)
    assert schedule.due(spec, 6)
    assert not replace(schedule, checked=6).due(spec, 8)
    assert replace(schedule, checked=6).due(spec, 9)
    assert not schedule.due(replace(spec, num_workers=64), 31)
    assert schedule.due(replace(spec, num_workers=64), 32)


def test_a_given_num_trials_is_never_corrected() -> None:
    """It is the user's."""
    assert not Schedule(("subset_ratio",)).due(resolved(), 1000)
    assert Schedule.of(make_spec(num_trials=3)).derived == ("max_iterations", "subset_ratio")
    assert Schedule(("num_trials", "subset_ratio")).joined(make_spec(num_trials=30)) == Schedule(("subset_ratio",))
    assert Schedule(("num_trials",)).joined(make_spec()) == Schedule(("num_trials",))


def test_a_correction_says_what_it_followed_from() -> None:
    """19 trials of 10 epochs were planned, and each takes 5 epochs besides: 13 fit."""
    trials = study(*(ran(i, begin=30.0 * i, besides=10.0) for i in range(11)))
    spec, schedule = Schedule(("num_trials",)).check(resolved(), trials, END)
    pace = Pace(2.0, overhead=5.0)
    assert (spec.num_trials, schedule.checked, schedule.pace) == (13, 11, pace)
    assert schedule.corrections == (Correction(11, 19, 13, 19 * (10 + 5.0) / 50, pace),)
    assert str(schedule.corrections[0]).startswith(
        "num_trials=19 becomes 13: as the first 11 trials ran, 19 would take 5.7 full trainings (100% of the workers"
    )


def test_small_changes_are_not_made() -> None:
    """A change of a tenth is not worth being told."""
    trials = study(*(ran(i, begin=21.2 * i, besides=1.2) for i in range(12)))
    spec, schedule = Schedule(("num_trials",)).check(resolved(), trials, END)
    assert affordable(resolved(), schedule.pace, 0) == 18
    assert (spec, schedule.corrections, schedule.checked) == (resolved(), (), 12)


def test_one_correction_halves_at_most() -> None:
    """What makes it small may pass: the next check sees."""
    spec = resolved(expected_time_ratio=10)
    held_up = study(*(ran(i, begin=1000.0 * i, besides=900.0) for i in range(12)))
    corrected, _ = Schedule(("num_trials",)).check(spec, held_up, END)
    assert corrected.trials == math.ceil(spec.trials / 2)


def test_a_pace_of_a_later_release_is_read() -> None:
    """What it has more is ignored."""
    wire = Schedule(("num_trials",)).to_wire()
    wire["pace"]["more"] = 1
    assert Schedule.from_wire(wire) == Schedule(("num_trials",))


def test_what_was_handed_out_stays() -> None:
    """num_trials never falls below the trials that there are."""
    trials = study(*(ran(i, begin=30.0 * i, besides=40.0) for i in range(15)))
    assert Schedule(("num_trials",)).check(resolved(), trials, END)[0].num_trials == 15


def test_a_schedule_is_stored_as_plain_values() -> None:
    """What was committed is what is loaded; a study of an earlier release has no schedule, and is not corrected."""
    pace = Pace(2.0, 1.5, 0.5, 0.75, 1.25)
    schedule = Schedule(("num_trials",), 9, pace, (Correction(9, 19, 12, 5.7, pace),))
    assert Schedule.from_wire(msgpack.unpackb(msgpack.packb(schedule.to_wire()))) == schedule
    assert Schedule.from_wire(None) == Schedule()


# --- in a study


@dataclass
class Crashing(Fleet):
    """A fleet whose coordinator is replaced by another one again and again."""

    crashes: float = 0.2
    committed: Committed = field(default_factory=Committed)
    random: Random = field(default_factory=lambda: Random(7))

    def handle(self, event: Event | Internal) -> list[Effect]:
        """Lose everything that is not committed, now and then."""
        effects = super().handle(event)
        self.committed.apply(self.study, effects)
        if self.random.random() < self.crashes:
            before = snapshot(self.study)
            self.study = self.committed.restore(75.0)
            assert snapshot(self.study) == before
        return effects


@pytest.mark.parametrize("rule", [{}, {"early_stop": "median_stop"}, {"search_alg": "asha"}])
def test_corrections_survive_the_coordinator(rule: dict[str, Any]) -> None:
    """A study that changes hands at any moment is corrected as one that does not."""
    spec = validated(make_spec(seed=1, num_workers=4, num_full_iterations=10, expected_time_ratio=6, **rule))
    undisturbed = Fleet(spec, spread=0.3, launch=1.0)
    crashing = Crashing(spec, spread=0.3, launch=1.0)
    assert crashing.run() == undisturbed.run()
    assert crashing.study.spec == undisturbed.study.spec
    assert crashing.study.schedule == undisturbed.study.schedule
    assert crashing.study.schedule.corrections
    assert len(crashing.study.trials) == crashing.study.spec.trials


def test_corrections_are_noted() -> None:
    """The coordinator's log has each of them."""
    notes: list[str] = []

    class Logged(Fleet):
        def handle(self, event: Event | Internal) -> list[Effect]:
            effects = super().handle(event)
            notes.extend(str(getattr(e, "detail", "")) for e in effects if getattr(e, "what", "") == NOTE)
            return effects

    fleet = Logged(validated(make_spec(seed=1, num_full_iterations=10)), launch=2.0)
    fleet.run()
    assert notes == [str(each) for each in fleet.study.schedule.corrections]
    assert notes


NOTE = "num_trials corrected"


def test_given_trials_are_run_at_any_pace() -> None:
    """num_trials=20 is 20 trials, however long they take."""
    fleet = Fleet(validated(make_spec(seed=1, num_trials=20, num_full_iterations=10)), launch=20.0)
    fleet.run()
    assert len(fleet.study.trials) == 20
    assert fleet.study.schedule.corrections == ()


def test_resuming_with_num_trials_fixes_it() -> None:
    """Without it the study keeps the number it has, and goes on correcting it."""
    sim = Simulation()
    asked: dict[str, Any] = {**dict.fromkeys(OPEN), "full_dataset_size": 5000}
    created = sim.create(**asked)
    assert isinstance(created, Created)
    again = sim.create(uid="u2", resume=True, **asked)
    assert isinstance(again, Created)
    assert (again.spec, again.schedule) == (created.spec, created.schedule)
    fixed = sim.create(uid="u3", resume=True, **{**asked, "num_trials": created.spec.trials})
    assert isinstance(fixed, Created)
    assert Schedule.from_wire(fixed.schedule).derived == ("max_iterations", "subset_ratio")
    fewer = sim.create(uid="u4", resume=True, **{**asked, "num_trials": 1})
    assert isinstance(fewer, Refusal)


def test_a_study_that_is_done_stays_done() -> None:
    """Its last trial does not make the schedule ask for more."""
    spec = validated(make_spec(seed=1, num_full_iterations=10, num_workers=4))
    fleet = Fleet(spec)
    fleet.run()
    study = fleet.study
    ended = study.trials.ended
    study.handle(Create("again", "op", replace(spec, expected_time_ratio=100.0), resume=True), fleet.now)
    assert study.desk.done
    assert study.trials.ended == study.spec.trials == ended
