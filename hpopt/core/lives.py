"""Who speaks for an attempt: of several processes that train it, one at a time."""

from hpopt.core.effects import TrialChanged, Turn
from hpopt.core.keys import launch_of
from hpopt.core.trial import Trial, TrialState
from hpopt.core.trials import Trials

REFUSED_LIVES = 8
"""So many processes that came second to an attempt are remembered."""


class Lives:
    """A life is what trains an attempt: one process, or all ranks that were started at once.

    The first one keeps the attempt until it is silent, or its launcher starts it again.
    """

    def __init__(self, trials: Trials, takeover_after: float) -> None:
        """`takeover_after`: seconds after which the second process of a live attempt is refused."""
        self.trials = trials
        self.takeover_after = takeover_after

    def claim(self, trial: Trial, life: str, restart: int, turn: Turn) -> None:
        """A process wants the attempt. It gets it, waits for it, or is refused."""
        if life in trial.refused:
            return
        related = launch_of(life) == launch_of(trial.life)  # counts of two launches say nothing of one another
        if trial.state is not TrialState.RUNNING or (related and restart > trial.restart):
            self._hand_over(trial, life, restart, turn)
        elif life == trial.life or (trial.challenger is not None and trial.challenger[0] == life):
            return
        elif trial.challenger is not None or (related and restart < trial.restart):
            self._refuse(trial, life, turn)
        else:
            trial.challenger = (life, restart, turn.now)
            turn.add(TrialChanged(trial))

    def speaks(self, trial: Trial, life: str, turn: Turn) -> bool:
        """Whether the process that has sent a score is the one that speaks for the attempt; if not, it is to stop."""
        if trial.state is not TrialState.RUNNING and life not in trial.refused:
            self._hand_over(trial, life, -1, turn)
        elif life != trial.life:
            self._refuse(trial, life, turn)
        return life == trial.life

    def begun(self, trial: Trial, turn: Turn) -> None:
        """Something was said of the attempt as a whole, so it has begun."""
        if trial.state is not TrialState.RUNNING:
            self._hand_over(trial, trial.life, trial.restart, turn)

    def settle(self, trial: Trial, silent: frozenset[tuple[int, int, str]], turn: Turn) -> bool:
        """Let a waiting process take over if the first one is silent, else refuse it in the end; True if decided."""
        if trial.challenger is None:
            return False
        life, restart, since = trial.challenger
        if (trial.id, trial.attempt, trial.life) in silent:
            self._hand_over(trial, life, restart, turn)
        elif turn.now - since >= self.takeover_after:
            self._refuse(trial, life, turn)
        else:
            return False
        return True

    def _hand_over(self, trial: Trial, life: str, restart: int, turn: Turn) -> None:
        if trial.state is not TrialState.RUNNING:
            self.trials.move(trial, TrialState.RUNNING)
            trial.started_at = trial.started_at or turn.now
        if trial.life != life:
            trial.life, trial.restart, trial.base_step, trial.challenger = life, restart, trial.last_step, None
        turn.add(TrialChanged(trial))
        turn.note("trial running", trial, f"attempt {trial.attempt} from step {trial.base_step}")

    def _refuse(self, trial: Trial, life: str, turn: Turn) -> None:
        if trial.challenger is not None and trial.challenger[0] == life:
            trial.challenger = None
        if life not in trial.refused:
            trial.refused = (*trial.refused, life)[-REFUSED_LIVES:]
        turn.add(TrialChanged(trial))
