"""The threads that keep a machine busy: one for each job, each with a runner process."""

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hpopt
from workers.backoff import Backoff
from workers.checkpoints import sweep
from workers.environment import CHECKPOINTS, runner_environment
from workers.link import CRASHED, DIED, FINISHED, GRACE, OUT_OF_MEMORY, RELEASED
from workers.process import Ending, Launch, Runner, tail
from workers.settings import Settings
from workers.table import params_text

_ASK = 5.0
"""Seconds after which a thread that waits for a sample looks whether it is still wanted."""
_LOOK_WHETHER_PAUSED = 2.0
"""Seconds between two looks, in a pause after a crash, whether trials are handed out at all."""
_LOOK_WHETHER_RESUMED = 5.0
"""Seconds between two requests for a sample of a paused study."""
_AFTER_KILL = 5.0
"""Seconds to give the trials of killed processes back."""


class Crew:
    """One thread for each job: it asks for a sample, has it trained in its runner process, and asks again."""

    def __init__(
        self,
        hpo: hpopt.HpOpt,
        launch: Launch,
        settings: Settings,
        say: Callable[[str], None],
        mention: Callable[[str], None],
    ) -> None:
        """Nothing is started yet. `say` shows a text to the user; `mention` one that is only of passing interest."""
        self._hpo, self._launch, self._settings = hpo, launch, settings
        self._say, self._mention = say, mention
        self._asking = threading.Lock()
        self._changing = threading.Lock()
        self._runners: dict[int, Runner] = {}
        self._busy: set[int] = set()
        """Slots whose runner trains."""
        self._stale: set[int] = set()
        """Slots whose runner has imported what may have been mended since."""
        self._stopping = threading.Event()
        self._over = threading.Event()
        self._left = [threading.Event() for _ in range(settings.jobs)]
        """Of each slot, whether its thread has done all it had to do. Python 3.11 marks a thread as ended when a signal
        interrupts who joins it, so threads are not joined."""
        self._working = settings.jobs
        self._error: BaseException | None = None
        self._last_log: Path | None = None
        self.trained: set[int] = set()
        """The trials that were begun here."""

    def work(self) -> None:
        """Train until there is nothing more to train; nothing is left running, however this ends."""
        self._settings.logs.mkdir(parents=True, exist_ok=True)
        threads = [
            threading.Thread(target=self._job, args=(slot,), name=f"hpopt-job-{slot}", daemon=True)
            for slot in range(self._settings.jobs)
        ]
        try:
            for thread in threads:
                thread.start()
            self._over.wait()
        finally:
            if not self._finished():
                self._end()
        if self._error is not None:
            raise self._error
        self._tidy()  # once more: the last trial of all may have ended elsewhere

    # --- one job

    def _job(self, slot: int) -> None:
        runner: Runner | None = None
        backoff = Backoff(self._settings.longest_pause)
        try:
            runner = self._new_runner(slot)
            runner.wait_ready()  # before a sample is asked for: what cannot be imported costs no trial
            while (config := self._next(slot)) is not None:
                if slot in self._stale or not runner.alive():
                    self._stale.discard(slot)
                    runner = self._renewed(runner, slot)
                began = time.monotonic()
                how = self._train(runner, config, slot).how
                lasted = time.monotonic() - began
                if self._stopping.is_set():
                    break
                if self._launch.command or how != FINISHED:
                    runner = self._renewed(runner, slot)
                self._pause(backoff, lasted, crashed=how in (CRASHED, DIED))
        except BaseException as error:  # noqa: BLE001 - raised again by work()
            self._fail(error)
        finally:
            if runner is not None:
                runner.close()
            self._leave(slot)

    def _next(self, slot: int) -> dict[str, Any] | None:
        """A sample; None when the study has ended, or nobody wants one any more."""
        while not self._stopping.is_set():
            try:
                with self._asking, contextlib.suppress(TimeoutError):
                    return self._hpo.get_next_sample(timeout=_ASK)
            except hpopt.StudyPaused as error:
                if not self._settings.outlast_pause:
                    raise
                if slot not in self._stale:
                    self._say(f"{self._explained(error)}. Waiting until that is done")
                self._stale.add(slot)
                self._stopping.wait(_LOOK_WHETHER_RESUMED)
        return None

    def _train(self, runner: Runner, config: dict[str, Any], slot: int) -> Ending:
        path = self._settings.logs / f"trial-{config['trial_id']}-{config['attempt']}.log"
        with self._changing:
            stopping = self._stopping.is_set()
            self._busy |= set() if stopping else {slot}
        if stopping:
            hpopt.trial(config).release(GRACE)
            return Ending(RELEASED)
        self.trained.add(config["trial_id"])
        self._mention(f"{_name(config)} begins: {params_text(config['params'])}")
        try:
            ending = self._trained(runner, config, path)
            self._settle(config, ending, path)
        finally:
            with self._changing:
                self._busy.discard(slot)
        return ending

    def _trained(self, runner: Runner, config: dict[str, Any], path: Path) -> Ending:
        try:
            return runner.train(config, path)
        except BaseException:
            hpopt.trial(config).release(GRACE)
            raise

    def _settle(self, config: dict[str, Any], ending: Ending, path: Path) -> None:
        """Tell the study what the runner could not tell any more, and the user what went wrong."""
        if self._stopping.is_set():
            if ending.how in (DIED, OUT_OF_MEMORY):  # it may have been killed before it could say so
                hpopt.trial(config).release(GRACE)
            return
        self._last_log = path
        if ending.how in (DIED, CRASHED):
            hpopt.finalize_trial(config, crashed=True)
            self._say(f"{_name(config)} failed: {ending.detail}{tail(path)}\n    log: {path}")
        elif ending.how != FINISHED:
            if ending.how == OUT_OF_MEMORY:
                hpopt.reportOOM(config)  # again: its process may have been killed before it could
            self._say(f"{_name(config)} {ending.how}: {ending.detail}")
        self._tidy()

    def _tidy(self) -> None:
        """Remove checkpoints that are not needed any more."""
        if not self._settings.checkpoints:
            return
        try:
            sweep(self._hpo, self._settings.checkpoints, self._settings.keep_checkpoints)
        except OSError as error:  # a full study is worth more than a tidy disk
            self._say(f"checkpoints cannot be removed: {error}")

    def _pause(self, backoff: Backoff, lasted: float, *, crashed: bool) -> None:
        seconds = backoff.after(lasted, crashed=crashed)
        if seconds <= 0 or self._hpo.paused:
            return  # who asks a paused study for a sample hears why
        times = "" if backoff.crashes == 1 else f", {backoff.crashes} times in a row"
        self._say(f"the training crashed{times}: the next one begins in {seconds:.0f} s")
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not (self._stopping.is_set() or self._hpo.paused):
            self._stopping.wait(min(left, _LOOK_WHETHER_PAUSED))

    def _new_runner(self, slot: int) -> Runner:
        settings = self._settings
        environment = runner_environment(slot, settings.jobs, self._hpo.url)
        if settings.checkpoints:
            environment[CHECKPOINTS] = settings.checkpoints
        runner = Runner(self._launch, environment, settings.logs / settings.runner_log.format(slot=slot))
        with self._changing:
            self._runners[slot] = runner
        return runner

    def _renewed(self, runner: Runner, slot: int) -> Runner:
        runner.close()  # waited for: what it held of an accelerator's memory is free then
        return self._new_runner(slot)

    # --- the end

    def _fail(self, error: BaseException) -> None:
        """Keep the first error. What is being trained may go on if the study is just paused, else it is interrupted."""
        with self._changing:
            self._error = self._error or self._explained(error)
        if not isinstance(error, hpopt.StudyPaused):
            self._stopping.set()
            self._over.set()

    def _explained(self, error: BaseException) -> BaseException:
        if not isinstance(error, hpopt.StudyPaused) or self._last_log is None:
            return error
        explained = hpopt.StudyPaused(f"{error}. The log of the last trial here: {self._last_log}")
        explained.__cause__ = error
        return explained

    def _leave(self, slot: int) -> None:
        self._left[slot].set()
        with self._changing:
            self._working -= 1
        if self._finished():
            self._over.set()

    def _finished(self) -> bool:
        return self._working == 0

    def _end(self) -> None:
        """Have the running trials given back, then end what is left; another Ctrl-C ends it at once."""
        busy: list[threading.Event] = []
        try:
            with self._changing:
                self._stopping.set()
                busy += [self._left[slot] for slot in self._busy]
            if busy:
                grace = f"{self._launch.grace:g} s"
                later = "" if self._hpo.save_path is None else "; create(..., resume=True) goes on with the study later"
                what = f"{len(busy)} under way, to be given back within {grace}; again to end at once{later}"
                self._say(f"interrupted: {what}")
            self._each(Runner.interrupt)
            _wait_for(busy, self._launch.grace)
        finally:
            self._each(Runner.kill)
            _wait_for(busy, _AFTER_KILL)

    def _each(self, action: Callable[[Runner], None]) -> None:
        with self._changing:
            runners = list(self._runners.values())
        for runner in runners:
            action(runner)


def _name(config: dict[str, Any]) -> str:
    return f"trial {config['trial_id']} (attempt {config['attempt']})"


def _wait_for(events: list[threading.Event], seconds: float) -> None:
    """Wait until all of them are set, so many seconds at most."""
    deadline = time.monotonic() + seconds
    for event in events:
        event.wait(max(0.0, deadline - time.monotonic()))
