"""A Kubernetes cluster, through the command line tool that everybody has."""

import json
import subprocess
from collections.abc import Sequence
from typing import Any

from examples.operator.cluster import AlreadyExists, ClusterError, Job, jobs_of
from examples.operator.manifest import STUDY_UID, Manifest

TIMEOUT = 60.0
"""Seconds for one command, which then is repeated: an API server that does not answer must not hold up the loop."""


class KubectlCluster:
    """Creates, lists and deletes resources of one kind with `kubectl`."""

    def __init__(self, template: Manifest, kubectl: Sequence[str] = ("kubectl",)) -> None:
        """`template`: of the resources. `kubectl`: the command, with options that hold for all calls, as --context."""
        self.kubectl = tuple(kubectl)
        group, _, version = template["apiVersion"].rpartition("/")
        self.type = ".".join(filter(None, (template["kind"].lower(), version, group)))
        namespace = template.get("metadata", {}).get("namespace")
        self.where = () if namespace is None else ("--namespace", namespace)

    def create(self, manifest: Manifest) -> None:
        """`kubectl create`, not `apply`: the API server lets one of any number of callers win."""
        self._run("create", "-f", "-", stdin=json.dumps(manifest))

    def jobs(self, study_uid: str) -> list[Job]:
        """By label, so that nothing else is looked at."""
        answer = self._run("get", self.type, "-l", f"{STUDY_UID}={study_uid}", "-o", "json", *self.where)
        try:
            return jobs_of(_items(answer))
        except ValueError as error:
            raise ClusterError(f"kubectl get: {error}") from None

    def delete(self, name: str) -> None:
        """Its pods go with it, in the background."""
        self._run("delete", self.type, name, "--ignore-not-found", "--wait=false", *self.where)

    def _run(self, *arguments: str, stdin: str = "") -> str:
        """What a command says. Raises AlreadyExists, or ClusterError with kubectl's own words."""
        command = [*self.kubectl, *arguments]
        try:
            done = subprocess.run(
                command, input=stdin, capture_output=True, text=True, timeout=TIMEOUT, check=False, encoding="utf-8"
            )
        except subprocess.TimeoutExpired:
            raise ClusterError(f"kubectl {arguments[0]}: no answer within {TIMEOUT:g} s") from None
        except OSError as error:
            raise ClusterError(f"{self.kubectl[0]}: {error.strerror}: is kubectl on the PATH?") from None
        if done.returncode == 0:
            return done.stdout
        if "(AlreadyExists)" in done.stderr:
            raise AlreadyExists(done.stderr.strip())
        raise ClusterError(f"kubectl {arguments[0]}: {done.stderr.strip() or f'exit status {done.returncode}'}")


def _items(answer: str) -> list[dict[str, Any]]:
    found = json.loads(answer)
    items = found.get("items") if isinstance(found, dict) else None
    if not isinstance(items, list):
        raise ValueError(f"expected a list of resources, not {answer[:80]!r}")  # noqa: TRY004 - what another program said
    return items
