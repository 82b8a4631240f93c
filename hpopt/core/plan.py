"""The plan of a study, for people: what was given, what was derived and why, and what it should cost."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Self

from hpopt.core.budget import OPEN, least_ratio, trial_bounds
from hpopt.core.cost import Stage, epoch_cost, expected_ratio, stages, trial_epochs
from hpopt.core.schedule import Correction, Schedule, rounded
from hpopt.core.spec import StudySpec
from hpopt.core.subset import subset_size


@dataclass(frozen=True, slots=True)
class Argument:
    """num_trials, max_iterations or subset_ratio, and where its value comes from."""

    name: str
    value: int | float
    derived: bool
    """By hpopt; else it is the user's."""
    why: str
    """Empty where it is as the user gave it, and not at a limit."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a study is going to do, and what is expected of it. Its text, `str(plan)`, is a table.

    It follows from the study's spec and schedule alone, and is the same every time.
    """

    arguments: tuple[Argument, ...]
    """num_trials, max_iterations and subset_ratio, in this order."""
    num_workers: int
    samples: int
    """In the study's subset; 0 if the size of the dataset is not known."""
    epoch_cost: float
    """Of an epoch on that subset, in epochs on the full dataset."""
    trial_epochs: float
    """Epochs that a trial is expected to run, on average."""
    stages: tuple[Stage, ...]
    """What is expected of the trials of asha between two rungs."""
    expected_ratio: float
    """Expected time of the study, in full trainings."""
    expected_time_ratio: float
    """The budget that the user gave, in full trainings."""
    corrections: tuple[Correction, ...] = ()
    """What became of num_trials since, the earliest first."""

    @classmethod
    def of(cls, spec: StudySpec, schedule: Schedule) -> Self:
        """The plan of a study with this resolved spec. Once trials were measured, it expects what they showed."""
        values = ((name, getattr(spec, name), name in schedule.derived) for name in OPEN)
        return cls(
            arguments=tuple(Argument(*each, _why(each[0], spec, schedule)) for each in values),
            num_workers=spec.num_workers,
            samples=subset_size(spec.full_dataset_size, spec.subset_ratio or 1.0),
            epoch_cost=epoch_cost(spec),
            trial_epochs=trial_epochs(spec, schedule.pace),
            stages=tuple(stages(spec, spec.trials)) if spec.search_alg == "asha" else (),
            expected_ratio=expected_ratio(spec, schedule.pace),
            expected_time_ratio=spec.expected_time_ratio,
            corrections=schedule.corrections,
        )

    @property
    def derived(self) -> tuple[str, ...]:
        """The arguments that were not given."""
        return tuple(each.name for each in self.arguments if each.derived)

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain values, for JSON."""
        return {**asdict(self), "text": str(self).splitlines()}

    def __str__(self) -> str:
        """The plan as a table, without a line break at its end."""
        rows = list(self._rows())
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)) for row in rows)
        head = "the plan (what is derived may be given instead):" if self.derived else "the plan:"
        return "\n  ".join([head, *(line.rstrip() for line in lines)])

    def _rows(self) -> Iterator[tuple[str, str, str, str]]:
        """(what, value, where it comes from, remark)."""
        for each in self.arguments:
            source = "derived" if each.derived else "limited" if each.why else "given"
            yield each.name, f"{each.value:.10g}", source, each.why
        share = "" if self.epoch_cost == 1 else f"each {self.epoch_cost:.3g} of one on the full dataset"
        yield "epochs of a trial", rounded(self.trial_epochs), "expected", share
        for bracket in sorted({stage.bracket for stage in self.stages}):
            reached = (f"{stage.level} ({rounded(stage.trials)})" for stage in self.stages if stage.bracket == bracket)
            yield f"rungs of bracket {bracket}", "", "expected", f"step (trials to get there): {', '.join(reached)}"
        yield (
            "full trainings", rounded(self.expected_ratio), "expected",
            f"expected_time_ratio={self.expected_time_ratio:.10g}, num_workers={self.num_workers}",
        )  # fmt: skip
        for change in self.corrections:
            remark = (
                f"after {change.ended} trials: {change.before} would take {rounded(change.expected)} full trainings"
            )
            yield "-> num_trials", str(change.after), "measured", remark


def _why(name: str, spec: StudySpec, schedule: Schedule) -> str:
    """Why hpopt derived the value; for one that was given, at which limit it is: it may have been moved there."""
    if name in schedule.derived:
        return _WHY[name](spec, schedule)
    if name == "num_trials" and spec.trials == spec.search_space.size:
        return "every configuration there is"
    size = spec.full_dataset_size
    if name == "subset_ratio" and (size == 0 or spec.subset_ratio == least_ratio(size)):
        return _why_ratio(spec, schedule)
    return ""


def _why_trials(spec: StudySpec, schedule: Schedule) -> str:
    least, most = trial_bounds(spec)
    if schedule.corrections:
        first, last = schedule.corrections[0], schedule.corrections[-1]
        return f"as measured after {last.ended} trials; planned were {first.before}"
    if spec.trials == spec.search_space.size:
        return "every configuration there is"
    if spec.trials == least:
        return "the least that makes a search"
    return "the most that is of use" if spec.trials == most else "what fits into the budget"


def _why_iterations(spec: StudySpec, _schedule: Schedule) -> str:
    full = f"num_full_iterations={spec.num_full_iterations}"
    if spec.search_alg == "asha":
        return f"{full}: the rungs stop most trials long before"
    return full if spec.iterations == spec.num_full_iterations else f"of {full}, in step with the subset"


def _why_ratio(spec: StudySpec, _schedule: Schedule) -> str:
    size = spec.full_dataset_size
    if size == 0:
        return "full_dataset_size=0: its size is not known"
    samples = f"{subset_size(size, spec.subset_ratio or 1.0):,} of {size:,} samples"
    return f"{samples}, the least" if spec.subset_ratio == least_ratio(size) < 1 else samples


_WHY = {"num_trials": _why_trials, "max_iterations": _why_iterations, "subset_ratio": _why_ratio}
