"""A cluster that is a folder: resources are JSON files, and a controller on the same machine runs them as processes.

Of the resource `kind/name`, `KIND/NAME.json` is what was asked for. Beside it, made by the controller, `NAME.log` is
what the process says, locked for as long as it runs, and `NAME.exit` its exit status. All that is known of a job is on
disk, so operators and controllers may be killed and started again, and jobs outlive both.
"""

import contextlib
import fcntl
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from examples.operator.cluster import AlreadyExists, ClusterError, Job, Phase, jobs_of
from examples.operator.manifest import STUDY_UID, Manifest


class DirectoryCluster:
    """Creates, lists and deletes the files of resources of one kind."""

    def __init__(self, folder: Path, template: Manifest) -> None:
        """`folder` is made if it is not there. `template`: of the resources."""
        self.folder = folder
        self.jobs_folder = folder / template["kind"].lower()
        self.jobs_folder.mkdir(parents=True, exist_ok=True)

    def create(self, manifest: Manifest) -> None:
        """A whole file appears under its name, or none: linking it there fails if the name is taken."""
        name, folder = manifest["metadata"]["name"], self.folder / manifest["kind"].lower()
        try:
            folder.mkdir(exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".new-", encoding="utf-8") as file:
                json.dump(manifest, file, indent=2)
                file.flush()
                _link(Path(file.name), folder / f"{name}.json")
        except OSError as error:
            raise ClusterError(str(error)) from None

    def jobs(self, study_uid: str) -> list[Job]:
        """By label, as Kubernetes does it, with the status that the controller's files tell."""
        found = (_read(path) for path in sorted(self.jobs_folder.glob("*.json")))
        resources = [each for each in found if each.get("metadata", {}).get("labels", {}).get(STUDY_UID) == study_uid]
        for each in resources:
            phase, message = phase_of(self.jobs_folder / each["metadata"]["name"])
            each["status"] = {"phase": phase.value.capitalize(), "message": message}
        return jobs_of(resources)

    def delete(self, name: str) -> None:
        """The controller sees that the file is gone, and ends what runs for it."""
        (self.jobs_folder / f"{name}.json").unlink(missing_ok=True)


def phase_of(job: Path) -> tuple[Phase, str]:
    """How far the job of this path is, without a suffix, and why it failed."""
    log, status = job.with_name(f"{job.name}.log"), job.with_name(f"{job.name}.exit")
    if not log.exists() or is_locked(log):
        return Phase.ACTIVE, ""
    try:
        code = status.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return Phase.FAILED, f"its process was killed; {log} may tell more"
    return (Phase.SUCCEEDED, "") if code == "0" else (Phase.FAILED, f"exit status {code}; {log} tells more")


def is_locked(log: Path) -> bool:
    """Whether a process still writes to this log."""
    try:
        with log.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _link(file: Path, name: Path) -> None:
    try:
        os.link(file, name)
    except FileExistsError:
        raise AlreadyExists(str(name)) from None


def _read(path: Path) -> dict[str, Any]:
    """A resource; an empty one if the file has gone in the meantime."""
    with contextlib.suppress(FileNotFoundError):
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    return {}
