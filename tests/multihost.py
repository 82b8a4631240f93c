"""A study on a fleet of hosts of which one dies, one is cut off and one is preempted. Needs root; see tests/hosts.py.

    python -m tests.multihost                           # 60 trials, a cut of a minute, its own times: ten minutes
    python -m tests.multihost --cut 300 --trials 150    # a cut that lasts until others have been handed the trials
    python -m tests.multihost --small                   # what the tests run, in half a minute

One host has the server, two have a coordinator each, three have workers: `hpopt-worker` with a command and with a
function. In the middle of the study
- worker1 loses its power: kill -9 of everything there, and no packet comes from it any more;
- the coordinator that keeps the study is killed -9, and not replaced;
- worker2 is cut off, while its trainers train on, and is plugged in again;
- worker3 is preempted, and started again.
Then what the trainers have noted is compared with what is stored, and with the results files.
"""

# ruff: noqa: T201 - it is a command, too

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests import check_history, fleet_history
from tests.fleet import STUDY, Fleet
from tests.fleet_history import Attempt, Name
from tests.fleet_scale import Blow, Scale
from tests.hosts import Network, why_not
from tests.journal import Entry
from tests.server import SHORT

BOTH = ("command", "function")
FULL = Scale(
    trials=60,
    iterations=30,
    forms={"worker1": BOTH, "worker2": BOTH, "worker3": BOTH},
    coordinator=("coordinator",),
    hits=(6, 12, 24),
    cut=60.0,
    away=10.0,
)
SMALL = Scale(
    trials=8,
    iterations=8,
    forms={"worker1": ("command",), "worker2": ("function", "function"), "worker3": ("function",)},
    coordinator=("tests.faulty_coordinator", *SHORT, "--quick"),
    hits=(0, 0, 0),
    cut=2.0,
    away=0.0,
    gated=True,
    patience=180.0,
)


@dataclass
class Outcome:
    """What came of it."""

    timeline: list[tuple[float, str]]
    journal: list[Entry]
    stored: check_history.Stored
    folder: Path
    """Of the results files."""
    crash: Blow
    coordinator_killed: float
    cut: Blow
    preemption: Blow
    attempts: dict[Name, Attempt] = field(init=False)
    violations: list[str] = field(init=False)

    def __post_init__(self) -> None:
        """Look for what is wrong."""
        self.attempts = fleet_history.attempts(self.journal)
        self.violations = fleet_history.violations(self.journal, self.stored, self.folder) + self._wrong_turns()

    def _wrong_turns(self) -> list[str]:
        """What is wrong with the way in which it came to these results."""
        attempts = self.attempts
        wrong: list[str] = []
        due = {name for name in (*self.crash.under_way, *self.preemption.under_way) if not attempts[name].over}
        due |= set(self.cut.given_up)
        again = {(trial, attempt - 1) for trial, attempt in attempts if attempt > 1}
        if due != again:
            wrong.append(f"handed out again were {sorted(again)}, instead of {sorted(due)}")
        for trial, attempt in due & again:
            before, after = attempts[trial, attempt], attempts[trial, attempt + 1]
            if after.begins not in (before.step, before.step + 1):
                wrong.append(f"trial {trial} had reported iteration {before.step}, and goes on with {after.begins}")
        heard = [at for at in self._answered(self.cut) if self.cut.at + 1 < at < self.cut.over]
        if heard:
            wrong.append(f"{len(heard)} reports were answered during the cut")
        if len(self.waited()) != len(self.cut.under_way):
            wrong.append(f"{len(self.waited())} of {len(self.cut.under_way)} reports waited for the end of the cut")
        return wrong

    def _answered(self, blow: Blow) -> list[float]:
        return [at for name in blow.under_way for _, at, _, _ in self.attempts[name].answers]

    def waited(self) -> list[tuple[float, float]]:
        """When the reports that waited for the end of the cut were made, and answered."""
        answers = [answer[:2] for name in self.cut.under_way for answer in self.attempts[name].answers]
        return [(called, answered) for called, answered in answers if called < self.cut.over < answered]

    def report(self) -> list[str]:
        """It in words, and in tables for the documentation."""
        lines = ["", "| after | what happened |", "|---:|---|"]
        lines += [f"| {at:.0f} s | {text} |" for at, text in self.timeline]
        lines += ["", *fleet_history.table(self.journal), ""]
        hits = (("loss of power", self.crash, self.crash.under_way), ("cut", self.cut, self.cut.given_up))
        for what, blow, names in (*hits, ("preemption", self.preemption, self.preemption.under_way)):
            lines += [self._again(name, what, blow) for name in names]
        called, answered = self._first_after(self.coordinator_killed)
        seconds = answered - self.coordinator_killed
        lines.append(f"the next report after the coordinator's death was acknowledged {seconds:.1f} s after it")
        for called, answered in self.waited():
            lines.append(
                f"a report waited {answered - called:.1f} s, until {answered - self.cut.over:.1f} s after the cut"
            )
        acknowledged = sum(entry["op"] == "report" and entry["phase"] == "done" for entry in self.journal)
        lines += [f"reports acknowledged: {acknowledged}", f"violations: {len(self.violations)}", *self.violations]
        return lines

    def _again(self, name: Name, what: str, blow: Blow) -> str:
        before, after = self.attempts[name], self.attempts.get((name[0], name[1] + 1))
        if after is None:
            return f"trial {name[0]} was not handed out again after the {what}"
        return (
            f"trial {name[0]} ({before.form}) began again {after.began - blow.at:.1f} s after the {what}, on "
            f"{after.host}, with iteration {after.begins}; {before.step} were acknowledged"
        )

    def _first_after(self, at: float) -> tuple[float, float]:
        answers = (answer[:2] for each in self.attempts.values() for answer in each.answers)
        return min((answer for answer in answers if answer[0] > at), key=lambda answer: answer[1])


def run(folder: Path, scale: Scale, say: Callable[[str], None] = print) -> Outcome:
    """The whole of it."""
    with Network() as network:
        fleet = Fleet(folder, network, scale, say)
        try:
            for host in scale.forms:
                fleet.work(host)
            fleet.note(f"{sum(map(len, scale.forms.values()))} workers are started")
            blows = (
                fleet.crash("worker1", scale.hits[0]),
                fleet.kill_coordinator(),
                fleet.cut("worker2", scale.hits[1]),
                fleet.preempt("worker3", scale.hits[2]),
            )
            fleet.finish()
            stored = check_history.stored(fleet.redis, STUDY)
            return Outcome(fleet.timeline, fleet.journal(), stored, folder / "results", *blows)
        finally:
            fleet.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 when nothing was lost and nothing doubled."""
    parser = argparse.ArgumentParser("python -m tests.multihost", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cut", type=float, default=FULL.cut, metavar="S", help="seconds (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=FULL.trials, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--small", action="store_true", help="a study of half a minute")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="an empty folder for journals, logs and results")
    options = parser.parse_args(arguments)
    if reason := why_not():
        print(f"it cannot be run: {reason}", file=sys.stderr)
        return 2
    scale = SMALL if options.small else replace(FULL, cut=options.cut, trials=options.trials)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            outcome = run(options.keep or Path(temporary), scale)
    except KeyboardInterrupt:
        print("interrupted: the hosts and all that ran there are gone", file=sys.stderr)
        return 130
    print("\n".join(outcome.report()))
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
