"""What the operator needs of a cluster, whatever that is."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from examples.operator.manifest import Manifest, config_of

log = logging.getLogger(__name__)


class AlreadyExists(Exception):
    """There is a resource of this kind and name. Whoever meant to create it may take it as done."""


class ClusterError(Exception):
    """The cluster cannot be asked, or refuses: the same may go well later."""


class Phase(Enum):
    """How far a job is."""

    ACTIVE = "active"
    """Waits for a place, starts or runs."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Job:
    """A job that exists, with the config that it was created for."""

    name: str
    config: dict[str, Any]
    phase: Phase
    reason: str = ""
    """Why it failed, for a person."""


class Cluster(Protocol):
    """Where jobs run. Every call may be repeated; all of them raise ClusterError."""

    def create(self, manifest: Manifest) -> None:
        """Create a resource, all or nothing. Raises AlreadyExists if its name is taken, if only by one that ended."""

    def jobs(self, study_uid: str) -> list[Job]:
        """Every job of the study that has not been deleted, finished ones included."""

    def delete(self, name: str) -> None:
        """Delete a job and end what runs for it; no error if it is gone."""


def jobs_of(resources: Iterable[Mapping[str, Any]]) -> list[Job]:
    """What an operator has created. Resources that only bear its labels are left alone, with a warning."""
    jobs = []
    for resource in resources:
        try:
            jobs.append(job_of(resource))
        except ValueError as error:
            log.warning("not a job of this operator's: %s", error)
    return jobs


def job_of(resource: Mapping[str, Any]) -> Job:
    """A Job of Kubernetes (`status.conditions`), or a custom resource (`status.phase`), as a job.

    Raises ValueError when it does not carry the config that its name stands for.
    """
    status = resource.get("status") or {}
    config = config_of(resource)
    name = resource["metadata"]["name"]
    for condition in status.get("conditions") or []:
        if condition.get("status") == "True" and condition.get("type") in {"Complete", "Failed"}:
            phase = Phase.FAILED if condition["type"] == "Failed" else Phase.SUCCEEDED
            return Job(name, config, phase, condition.get("message") or condition.get("reason") or "")
    phases = {"Succeeded": Phase.SUCCEEDED, "Failed": Phase.FAILED}
    return Job(name, config, phases.get(status.get("phase", ""), Phase.ACTIVE), status.get("message") or "")
