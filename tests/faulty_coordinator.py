"""A coordinator with faults planted in it.

    python -m tests.faulty_coordinator --fault before:20:kill --fault in:7:server --url unix://... --lease 1

A fault is WHEN:COUNT:WHAT. It strikes at the COUNT-th commit since the fault before it: `before` the commit is sent,
`in` between its sending and its answer, or `after` its answer. With a + (`before+`) only commits with scores count.

    kill    kill -9 of this coordinator
    pause   SIGSTOP of this coordinator
    server  kill -9 of the server, whose process id is in the file HPOPT_TEST_SERVER

Each fault is noted in the journal HPOPT_TEST_FAULTS before it strikes. `poison:N:report` is another kind: the study
fails at every report of trial N, when it has changed already. With `--quick` suggestions are drawn at random, in the
coordinator itself: there is no second process that needs a second to start. With `--expiry MS` the last verdict of an
ended trial is gone after so many milliseconds.
"""

import argparse
import contextlib
import os
import signal
import sys
from collections import deque
from pathlib import Path
from typing import Any

from coordinator import batch, service
from coordinator.__main__ import main
from coordinator.store import Link, StudyLink
from hpopt.core.messages import Report
from hpopt.core.study import Study
from hpopt.core.suggest_request import SuggestRequest
from tests.journal import Journal
from tests.simulation import quick_suggest


class Saboteur:
    """Counts commits, and strikes when it is time to."""

    def __init__(self, faults: list[str]) -> None:
        """The faults strike one after the other."""
        self._faults = deque(fault.split(":") for fault in faults)
        self._commits = 0
        self._sending = False
        self._journal = Journal(Path(os.environ["HPOPT_TEST_FAULTS"]))

    def plant(self) -> None:
        """From now on every commit goes through here."""
        commit, send = StudyLink.commit, Link.send

        async def faulty_commit(link: StudyLink, keys: list[str], arguments: list[Any], read: Any = None) -> str:
            self._count(arguments)
            self._strike_if_due("before")
            self._sending = True
            answer = await commit(link, keys, arguments, read)
            self._strike_if_due("after")
            return answer

        async def faulty_send(link: Link, *commands: tuple[Any, ...]) -> None:
            await send(link, *commands)
            if self._sending and commands[0][0] == "EVALSHA":
                self._sending = False
                self._strike_if_due("in")

        StudyLink.commit = faulty_commit  # type: ignore[assignment,method-assign]
        Link.send = faulty_send  # type: ignore[assignment,method-assign]

    def _count(self, arguments: list[Any]) -> None:
        scores_only = bool(self._faults) and self._faults[0][0].endswith("+")
        if not scores_only or "A" in arguments:
            self._commits += 1

    def _strike_if_due(self, when: str) -> None:
        if not self._faults:
            return
        its_when, count, what = self._faults[0]
        if its_when.rstrip("+") == when and self._commits >= int(count):
            self._faults.popleft()
            self._commits = 0
            self._journal.write(when=when, what=what)
            _strike(what)


def _strike(what: str) -> None:
    if what == "server":
        pid = int(Path(os.environ["HPOPT_TEST_SERVER"]).read_text(encoding="ascii"))
        with contextlib.suppress(ProcessLookupError):  # it is dead already
            os.kill(pid, signal.SIGKILL)
    else:
        os.kill(os.getpid(), {"kill": signal.SIGKILL, "pause": signal.SIGSTOP}[what])


def poison(trial: int) -> None:
    """Make the study fail at every report of a trial."""
    handle = Study.handle

    def poisoned(study: Study, event: Any, now: float) -> Any:
        effects = handle(study, event, now)
        if isinstance(event, Report) and event.trial == trial:
            raise RuntimeError("planted by a test")
        return effects

    Study.handle = poisoned  # type: ignore[assignment,method-assign]


class QuickSuggester:
    """In the place of the coordinator's Suggester."""

    async def suggest(self, request: SuggestRequest) -> list[dict[str, Any]]:
        return quick_suggest(request)

    def close(self) -> None:
        """There is nothing to close."""


def run(arguments: list[str]) -> int:
    """Plant the faults, and run the coordinator with the rest of the arguments."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--fault", action="append", default=[])
    parser.add_argument("--expiry", type=int, default=batch.VERDICT_TTL)
    options, arguments = parser.parse_known_args(arguments)
    batch.VERDICT_TTL = options.expiry
    if options.quick:
        service.Suggester = QuickSuggester  # type: ignore[assignment,attr-defined]
    faults = [fault for fault in options.fault if not fault.startswith("poison:")]
    for fault in set(options.fault) - set(faults):
        poison(int(fault.split(":")[1]))
    if faults:
        Saboteur(faults).plant()
    return main(arguments)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
