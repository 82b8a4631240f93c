"""What trainers tell of their attempts, and what becomes of the trials by it."""

import dataclasses
import math
from typing import Any

from hpopt.core.batch_size import Size
from hpopt.core.curve import Point
from hpopt.core.effects import PointAdded, StudyChanged, TrialChanged, Turn, VerdictGiven
from hpopt.core.lives import Lives
from hpopt.core.messages import OUT_OF_MEMORY, Finalize, OutOfMemory, Query, Release, Report, Start, Verdict
from hpopt.core.resizing import Resizing
from hpopt.core.schedulers.base import INVALID_SCORES, Scheduler, make_scheduler
from hpopt.core.spec import StudySpec
from hpopt.core.trial import ENDED, Trial, TrialState
from hpopt.core.trials import NOBODY, Marks, Trials, replay

PAUSE_AFTER = 3
"""So many trials in a row that fail before their first report pause the study."""
STOP_AFTER_INVALID = 3
"""So many steps in a row without a valid score stop a trial."""
RETRIES = {"crashes": 1, "losses": 1, "releases": 20, "ooms": 8}
"""How often a trial is handed out again after each kind of mishap."""
OOM_RETRIES_UNCHANGED = 1
"""The same for running out of memory when there is no batch size to make smaller."""


class Attempts:
    """The trials of one study, as seen by those who train them."""

    def __init__(self, uid: str, spec: StudySpec, takeover_after: float) -> None:
        """`takeover_after`: seconds after which the second process of a live attempt is refused."""
        self.uid = uid
        self.spec = spec
        self.scheduler: Scheduler = make_scheduler(spec)
        self.trials = Trials(self._marks)
        self.lives = Lives(self.trials, takeover_after)
        self.resizing = Resizing(spec, self.trials)
        self.failures = 0
        self.paused = ""
        self.room_since: float | None = -math.inf
        """Since when a trial could have been started at once; None: nobody has looked since the study was loaded."""

    def restore(self, trial: Trial, points: Any) -> None:
        """Take in a committed trial with its curve."""
        counted = replay(trial, points, self.spec.sign)
        self.scheduler.recall(trial, ((point.step, self._goodness(point.score)) for point in counted))
        self.trials.add(trial)
        self.resizing.take_in(trial)

    # --- what trainers say

    def start(self, event: Start, turn: Turn) -> None:
        """A process begins an attempt; the verdict tells it whether it may, and from which step."""
        trial = self._current(event, turn)
        if trial is not None:
            self.lives.claim(trial, event.life, event.restart, turn)
            if trial.life == event.life and trial.keep_log(event.log):
                turn.add(TrialChanged(trial))
            self.verdict(trial, turn)

    def report(self, event: Report, turn: Turn) -> None:
        """A step's score. A repeat or an earlier step changes nothing."""
        trial = self._current(event, turn)
        if trial is None:
            return
        if self.lives.speaks(trial, event.life, turn) and event.step > trial.last_step:
            self._score(trial, min(event.step, self.spec.iterations), event.score, turn)
        self.verdict(trial, turn)

    def out_of_memory(self, event: OutOfMemory, turn: Turn) -> None:
        """The trial is handed out again with a smaller batch, as long as there is one."""
        trial = self._current(event, turn)
        if trial is None:
            return
        self.lives.begun(trial, turn)
        trial.ooms += 1
        size, retries = None, OOM_RETRIES_UNCHANGED
        if self.resizing.has_size(trial):
            self.resizing.failed(trial)
            size = self.resizing.next_size(trial)
            retries = 0 if size is None else RETRIES["ooms"]
        if trial.ooms > retries:
            self._unscore(trial)  # what cannot be trained to its end is neither the best nor a bar for others
            self._end(trial, TrialState.FAILED, f"{OUT_OF_MEMORY}, and {self.resizing.excuse(trial)}", turn)
        else:
            remedy = "to be tried once more" if size is None else f"next batch size {size}"
            self._again(trial, TrialState.OUT_OF_MEMORY, f"{OUT_OF_MEMORY}, {remedy}", turn)
            self._resize(trial, size)
        turn.add(StudyChanged())
        self.verdict(trial, turn)

    def finalize(self, event: Finalize, turn: Turn) -> None:
        """The attempt has ended, with or without scores."""
        trial = self._current(event, turn)
        if trial is not None:
            reason = "its training crashed" if event.crashed else "finalized"
            self.finish(trial, reason, turn, crashed=event.crashed)

    def release(self, event: Release, turn: Turn) -> None:
        """The attempt was interrupted through no fault of its own."""
        trial = self._current(event, turn)
        if trial is not None:
            self.lives.begun(trial, turn)
            self._retry(trial, "releases", TrialState.WAITING, "released by its trainer", turn)
            self.verdict(trial, turn)

    def query(self, event: Query, turn: Turn) -> None:
        """Say the newest verdict again."""
        trial = self._known(event, turn)
        if trial is not None:
            self.verdict(trial, turn)

    # --- what the study and the coordinator see

    def finish(self, trial: Trial, reason: str, turn: Turn, *, crashed: bool = False) -> None:
        """End the attempt of a pending trial: for good if it has a score, else it is tried once more."""
        self.lives.begun(trial, turn)
        if trial.best_score is not None:
            self._end(trial, TrialState.FAILED if crashed else TrialState.STOPPED, reason, turn)
        else:
            detail = "without any score" if crashed else "without any score: was hpopt.report called?"
            self._retry(trial, "crashes", TrialState.WAITING, f"{reason}, {detail}", turn)
        self.verdict(trial, turn)

    def lost(self, trial: Trial, turn: Turn, *, orphaned: bool) -> None:
        """A running trial's process has been silent for the whole grace period; its operator too, if `orphaned`."""
        if orphaned:  # whatever ended both was no fault of the trial's
            self._retry(trial, "releases", TrialState.LOST, "its trainer and its operator went silent", turn)
        else:
            self._retry(trial, "losses", TrialState.LOST, "its trainer went silent", turn)
        self.verdict(trial, turn)

    def pass_time(self, silent: frozenset[tuple[int, int, str]], absent: frozenset[str], turn: Turn) -> None:
        """Time passes for the pending trials. `absent`: the sessions that are not there."""
        pending = self.trials.pending_trials()
        running = sum(trial.state is TrialState.RUNNING for trial in pending)
        if self.room_since is None or running >= self.spec.num_workers:
            self.room_since = turn.now
        for trial in pending:
            if self.lives.settle(trial, silent, turn):
                self.verdict(trial, turn)
            self._await_launch(trial, self.room_since, absent, turn)

    def _await_launch(self, trial: Trial, room_since: float, absent: frozenset[str], turn: Turn) -> None:
        """Hand a trial out again that is not started though there is room for it, and a coordinator to tell."""
        timeout = self.spec.launch_timeout
        if trial.state is not TrialState.ISSUED or timeout is None or trial.session == NOBODY:
            return
        if turn.now - max(trial.issued_at, room_since) >= timeout:
            # that an operator left is no fault of the trial's
            kind = "releases" if trial.session in absent else "losses"
            self._retry(trial, kind, TrialState.WAITING, f"not started within {timeout:g} s", turn, may_return=True)
            self.verdict(trial, turn)

    def verdict(self, trial: Trial, turn: Turn) -> None:
        """Publish where the trial stands."""
        verdict = Verdict(
            trial.attempt, trial.life, trial.base_step, trial.last_step, trial.stop_step, trial.reason, trial.refused
        )
        turn.add(VerdictGiven(self.uid, trial.id, verdict, trial.state in ENDED))

    # --- which attempt is meant

    def _known(self, event: Any, turn: Turn) -> Trial | None:
        trial = self.trials.get(event.trial)
        if trial is not None and event.attempt <= trial.attempt:
            return trial
        turn.add(dataclasses.replace(unknown_trial(event, "unknown trial", stray=True), ended=trial is None))
        return None

    def _current(self, event: Any, turn: Turn) -> Trial | None:
        """The event's trial if that attempt is still going on; else None, and the trainer is told to stop."""
        trial = self._known(event, turn)
        if trial is None or (trial.attempt == event.attempt and _is_open(trial)):
            return trial
        self.verdict(trial, turn)
        return None

    # --- what becomes of a trial

    def _score(self, trial: Trial, step: int, score: float | None, turn: Turn) -> None:
        trial.add(step, score, self.spec.sign)
        turn.add(PointAdded(trial.id, Point(trial.attempt, step, score)))
        if trial.first_step == 0:
            trial.first_step, trial.first_at = step, turn.now
            turn.add(TrialChanged(trial))
        stop = self.scheduler.observe(trial, step, self._goodness(score))
        if self._learned(trial):
            turn.add(StudyChanged())
        if step >= self.spec.iterations:
            self._end(trial, TrialState.COMPLETED, "all iterations done", turn, step)
        elif trial.invalid >= STOP_AFTER_INVALID:
            reason = f"{trial.invalid} scores in a row were not finite, up to step {step}"
            trial.stopped_by = (INVALID_SCORES, step, None, None)
            self._end(trial, TrialState.STOPPED, reason, turn, step)
        elif stop is not None:
            trial.stopped_by = (stop.rule, stop.step, stop.score, stop.threshold)
            self._end(trial, TrialState.STOPPED, stop.reason, turn, step)

    def _learned(self, trial: Trial) -> bool:
        """Whether a score says something new of the study: trials do report, and this batch size fits."""
        failures, self.failures = self.failures, 0
        return self.resizing.scored(trial) or failures > 0

    def _marks(self, trial: Trial) -> Marks:
        return tuple((step, self.spec.sign * goodness) for step, goodness in self.scheduler.marks(trial))

    def _goodness(self, score: float | None) -> float:
        return -math.inf if score is None else self.spec.sign * score

    def _resize(self, trial: Trial, size: Size | None) -> None:
        """The next attempt has other params, so the scores of this one no longer count."""
        if size is not None:
            self.resizing.resize(trial, size)
            self._unscore(trial)

    def _unscore(self, trial: Trial) -> None:
        self.scheduler.forget(trial)
        trial.forget_scores()

    def _retry(
        self, trial: Trial, kind: str, state: TrialState, reason: str, turn: Turn, *, may_return: bool = False
    ) -> None:
        """Hand the trial out again, unless it has used up its retries of this kind."""
        count = getattr(trial, kind) + 1
        setattr(trial, kind, count)
        if count <= RETRIES[kind]:
            self._again(trial, state, reason, turn, may_return=may_return or state is TrialState.LOST)
        else:
            self._end(trial, TrialState.FAILED, reason, turn)

    def _again(self, trial: Trial, state: TrialState, reason: str, turn: Turn, *, may_return: bool = False) -> None:
        """`may_return`: until it is handed out again, the attempt is welcome to come back."""
        self.trials.move(trial, state, reason)
        trial.stop_step = None if may_return else trial.last_step + 1
        turn.add(TrialChanged(trial))
        turn.note("trial to be handed out again", trial, reason)

    def _end(self, trial: Trial, state: TrialState, reason: str, turn: Turn, stop_step: int | None = None) -> None:
        """`stop_step`: the step that is answered with STOP; the next one if the trial ended between two."""
        self.trials.move(trial, state, reason)
        trial.ended_at = turn.now
        trial.stop_step = trial.last_step + 1 if stop_step is None else stop_step
        turn.add(TrialChanged(trial))
        turn.note(f"trial {state.name.lower()}", trial, reason)
        if state is TrialState.FAILED:
            self.scheduler.dismiss(trial)
        if state is not TrialState.FAILED and self.resizing.fitted(trial):
            turn.add(StudyChanged())
        if state is TrialState.FAILED and trial.seen_step == 0 and not trial.ooms:
            self._failed_early(reason, turn)

    def _failed_early(self, reason: str, turn: Turn) -> None:
        self.failures += 1
        turn.add(StudyChanged())
        if self.failures >= PAUSE_AFTER:
            self.paused = f"{self.failures} trials in a row failed before their first report; the last one: {reason}"
            turn.note("study paused", detail=self.paused)


def unknown_trial(event: Any, reason: str, *, stray: bool = False) -> VerdictGiven:
    """The answer to a trainer whose trial is not there: stop. `stray`: others may train a trial of that number."""
    verdict = Verdict(event.attempt, getattr(event, "life", ""), 0, 0, 0, reason, (), stray)
    return VerdictGiven(event.uid, event.trial, verdict, ended=True)


def _is_open(trial: Trial) -> bool:
    """Whether the attempt may still speak: it runs, may begin, or may come back."""
    if trial.state in (TrialState.ISSUED, TrialState.RUNNING):
        return True
    return trial.state in (TrialState.LOST, TrialState.WAITING) and trial.stop_step is None
