"""The operator's loop: one job for each sample, and for each job an end that the study hears of.

It keeps nothing. What there is to do follows from what the study and the cluster say, so it may be killed at any line,
started again, and run twice at the same time.
"""

import logging
import time
from typing import Any

import hpopt
from examples.operator.cluster import AlreadyExists, Cluster, ClusterError, Job, Phase
from examples.operator.manifest import Config, Manifest, best_config, filled, name_of

log = logging.getLogger(__name__)


class Operator:
    """Launches the trials of one study on one cluster."""

    def __init__(
        self, hpo: hpopt.HpOpt, cluster: Cluster, template: Manifest, *, poll: float = 10.0, stop_after: float = 60.0
    ) -> None:
        """`hpo`: a session with an operator's name, made with `operator=`.

        Args:
            hpo: The session.
            cluster: Where jobs run.
            template: What a job is, to be filled in.
            poll: Seconds between two looks at the cluster.
            stop_after: Seconds after which a job is deleted that still runs though its attempt is over.
        """
        self.hpo, self.cluster, self.template = hpo, cluster, template
        self.poll, self.stop_after = poll, stop_after
        self._seen: set[str] = set()
        self._over_since: dict[str, float] = {}
        self._deleted: set[str] = set()

    def run(self) -> dict[str, Any] | None:
        """The loop. Returns the best hyper-parameters when every trial has ended; None if no trial has a score."""
        while True:
            self.look_after_jobs()
            try:
                config = self.hpo.get_next_sample(timeout=self.poll)
            except TimeoutError:
                continue
            if config is None:
                break
            self.launch(config)
        return self.hpo.get_best_config(wait=True)

    def launch(self, config: Config) -> None:
        """Create the job of a sample. If the cluster refuses, the next look at the jobs finds it missing."""
        manifest = filled(self.template, config)
        name = manifest["metadata"]["name"]
        try:
            self.cluster.create(manifest)
            log.info("trial %d, attempt %d: created %s", config["trial_id"], config["attempt"], name)
        except AlreadyExists:
            log.info("trial %d, attempt %d: %s exists already", config["trial_id"], config["attempt"], name)
        except ClusterError as error:
            log.warning("trial %d, attempt %d: %s; trying again", config["trial_id"], config["attempt"], error)

    def look_after_jobs(self) -> None:
        """Compare what the study has handed out with the jobs that there are, and mend what differs.

        The study is asked first: a trial that was handed out before the jobs were listed, and has none, needs one.
        """
        unstarted = {name_of(config): config for config in self.hpo.get_open_samples(started=False)}
        started = {name_of(config): config for config in self.hpo.get_open_samples(started=True)}
        jobs = self._jobs()
        if jobs is None:
            return
        for name in unstarted.keys() - jobs.keys():
            self.launch(unstarted[name])
        for name in jobs.keys() & (unstarted.keys() | started.keys()):
            self._finalize(jobs[name])
        for name in (self._seen & started.keys()) - jobs.keys():
            log.info("%s was deleted: its trial is handed out again", name)
            hpopt.trial(started[name]).release()
        self._seen = set(jobs)
        self._stop(jobs)

    def see_off_jobs(self) -> None:
        """Wait for jobs that still run when every trial has ended, and delete those that do not end by themselves."""
        while (jobs := self._jobs()) is None or _active(jobs) - self._deleted:
            if jobs is not None:
                self._stop(jobs)
            time.sleep(self.poll)

    def publish(self, best: dict[str, Any]) -> None:
        """Leave the result in the cluster. Raises ClusterError."""
        manifest = best_config(self._identity(), self.hpo.spec.trials, best, self.template)
        try:
            self.cluster.create(manifest)
        except AlreadyExists:
            log.debug("published before")

    def clean_up(self) -> None:
        """Delete all jobs of the study, with their logs. Raises ClusterError."""
        for job in self.cluster.jobs(self.hpo.uid):
            self.cluster.delete(job.name)

    def _identity(self) -> dict[str, Any]:
        return {"study": self.hpo.study, "uid": self.hpo.uid}

    def _jobs(self) -> dict[str, Job] | None:
        """All jobs of the study by name; None if the cluster does not say."""
        try:
            return {job.name: job for job in self.cluster.jobs(self.hpo.uid)}
        except ClusterError as error:
            log.warning("the jobs cannot be listed: %s; trying again", error)
            return None

    def _finalize(self, job: Job) -> None:
        """A job has ended, and its attempt has not: its trainer could not say so, or never spoke.

        If the trainer did end the attempt in the meantime, this does nothing.
        """
        if job.phase is Phase.ACTIVE:
            return
        log.info("%s has %s without a word: %s", job.name, job.phase.value, job.reason or "no reason given")
        hpopt.finalize_trial(job.config, crashed=job.phase is Phase.FAILED)

    def _stop(self, jobs: dict[str, Job]) -> None:
        """Delete jobs that do not end by themselves though their attempt is over."""
        active = _active(jobs)
        trials = {trial.id: trial for trial in self.hpo.trials()} if active else {}
        now = time.monotonic()
        over = {name for name in active if _is_over(jobs[name], trials)}
        self._over_since = {name: self._over_since.get(name, now) for name in over}
        for name, since in self._over_since.items():
            if name in self._deleted or now - since < self.stop_after:
                continue
            try:
                self.cluster.delete(name)
            except ClusterError as error:
                log.warning("%s cannot be deleted: %s; trying again", name, error)
            else:
                self._deleted.add(name)
                log.info("deleted %s: it still ran, and its attempt is over", name)


def _active(jobs: dict[str, Job]) -> set[str]:
    return {name for name, job in jobs.items() if job.phase is Phase.ACTIVE}


def _is_over(job: Job, trials: dict[int, hpopt.TrialRow]) -> bool:
    """Whether nothing that the job does counts any more."""
    trial = trials.get(job.config["trial_id"])
    return trial is not None and (trial.ended_at > 0 or trial.attempt > job.config["attempt"])
