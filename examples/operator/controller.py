"""The controller of a folder of resources: runs each as a process, so many at once, and ends those that are deleted.

    python -m examples.operator.controller DIR --jobs 2

It stands in for Kubernetes: a job is started once and never again, whatever becomes of it. When the controller ends,
jobs go on; the next one takes them over.
"""

import argparse
import fcntl
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from examples.operator.directory_cluster import is_locked

LOOK_EVERY = 0.2
"""Seconds."""
KILL_AFTER = 5.0
"""Seconds from SIGTERM to SIGKILL for what was deleted."""
RUN = """
echo $$ >"$0.pid"
"$@"
status=$?
echo $status >"$0.exit.new"
mv "$0.exit.new" "$0.exit"
exit $status
"""
"""The shell that a job runs in: whoever looks later knows how it ended, also without us."""
FILES = ("log", "pid", "exit", "exit.new")
"""What there may be of a job beside its resource."""

log = logging.getLogger(__name__)


class Controller:
    """Runs what is in one folder of resources."""

    def __init__(self, folder: Path, jobs: int) -> None:
        """At most `jobs` processes at once."""
        self.folder = folder
        self.jobs = jobs
        self._children: list[subprocess.Popen[bytes]] = []
        self._told: dict[str, float] = {}

    def look(self) -> None:
        """Start what waits, the oldest first, and end what was deleted."""
        self.children()
        wanted = {path.stem: path for path in self.folder.glob("*.json")}
        begun = {path.stem for path in self.folder.glob("*.log")}
        for name in begun - wanted.keys():
            self._end(name)
        places = self.jobs - sum(is_locked(self._file(name, "log")) for name in begun)
        waiting = sorted((path.lstat().st_ctime_ns, name) for name, path in wanted.items() if name not in begun)
        for _, name in waiting[: max(0, places)]:
            self._start(name)

    def children(self) -> int:
        """How many processes of this controller's still run; those that have ended are done with."""
        self._children = [child for child in self._children if child.poll() is None]
        return len(self._children)

    def _start(self, name: str) -> None:
        """The log appears under its name locked: whoever sees it knows that the job runs, or has run."""
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".log-") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                os.link(file.name, self._file(name, "log"))
            except FileExistsError:
                return  # another controller was faster
            try:
                spec = json.loads(self._file(name, "json").read_text(encoding="utf-8"))["spec"]
                command, environment = _command(spec), _environment(spec)
            except (OSError, KeyError, TypeError, ValueError) as error:
                file.write(f"it cannot be run: {error!r}\n".encode())
                self._file(name, "exit").write_text("78\n")
                return
            shell = ["sh", "-c", RUN, str(self.folder / name), *command]
            child = subprocess.Popen(
                shell, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, start_new_session=True
            )
        self._children.append(child)
        log.info("started %s", name)

    def _end(self, name: str) -> None:
        """One more step towards its end; what it left is removed when it has ended."""
        if not is_locked(self._file(name, "log")):
            for suffix in FILES:
                self._file(name, suffix).unlink(missing_ok=True)
            if self._told.pop(name, None) is not None:
                log.info("ended %s", name)
            return
        first = name not in self._told
        told = self._told.setdefault(name, time.monotonic())
        if first or time.monotonic() - told > KILL_AFTER:
            try:
                os.killpg(int(self._file(name, "pid").read_text()), signal.SIGTERM if first else signal.SIGKILL)
            except (OSError, ValueError):
                del self._told[name]  # it is just starting, or ending: look again

    def _file(self, name: str, suffix: str) -> Path:
        return self.folder / f"{name}.{suffix}"


def _environment(spec: dict[str, Any]) -> dict[str, str]:
    """Ours, with the config; `python` is the one that runs this."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "HPO_CONFIG": str(spec["hpoConfig"])}


def _command(spec: dict[str, Any]) -> list[str]:
    """The command, with `$(HPO_CONFIG)` replaced as Kubernetes does it."""
    command = spec["command"]
    if not isinstance(command, list) or not command or not all(isinstance(each, str) for each in command):
        raise ValueError(f"spec.command={command!r}: give the program and its arguments, a list of strings")
    return [re.sub(r"\$\(HPO_CONFIG\)", lambda _: str(spec["hpoConfig"]), each) for each in command]


def main() -> None:
    """Look, again and again."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.operator.controller", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("folder", type=Path, help="where the operator puts its resources")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once (default: %(default)s)")
    parser.add_argument("--kind", default="HpoTrial", help="of the resources to run (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.jobs < 1:
        parser.error(f"--jobs={arguments.jobs}: at least 1")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder = (arguments.folder / arguments.kind.lower()).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    controller = Controller(folder, arguments.jobs)
    log.info("watching %s", folder)
    try:
        while True:
            controller.look()
            time.sleep(LOOK_EVERY)
    except KeyboardInterrupt:
        log.info("jobs that run go on; start the controller again to watch over them")


if __name__ == "__main__":
    main()
