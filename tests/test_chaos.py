"""Whole studies while coordinators and servers are killed at the worst moments, judged by tests/check_history.py."""

import itertools
import json
import shutil
import statistics
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests import check_history
from tests.conftest import Start
from tests.journal import Entry, read
from tests.server import DEADLINE, ROOT, SHORT, Program, Server, start_coordinator

LEASE = float(SHORT[1])
PATIENCE = 120.0
"""Seconds that a whole chaotic study may take."""
STUDY: dict[str, Any] = {
    "study": "run",
    "search_alg": "asha",
    "max_iterations": 27,
    "min_iterations": 9,
    "reduction_factor": 3,
    "seed": 1,
}


class Chaos:
    """Two coordinators and load processes on one server; whatever is killed starts again at once."""

    def __init__(self, server: Server, faults: Iterable[str] = (), module_path: Path = ROOT) -> None:
        """`faults` are dealt to the coordinators as they start, in order; those of `module_path` are run."""
        self.server = server
        self.folder = server.folder
        self.fault_journal = self.folder / "faults"
        self.fault_journal.touch()
        self._path = module_path
        self._faults = deque(faults)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._coordinators: set[Program] = set()
        self._loads: list[tuple[Program, Path]] = []
        self._threads: list[threading.Thread] = []
        self.failures: list[BaseException] = []

    def start(self, coordinators: int = 2) -> None:
        """Begin to keep the server and the coordinators alive."""
        keepers = [self._keep_server, *itertools.repeat(self._keep_coordinator, coordinators)]
        self._threads = [threading.Thread(target=self._guarded, args=(keep,)) for keep in keepers]
        for thread in self._threads:
            thread.start()

    def load(self, trainers: int, **study: Any) -> Program:
        """Start an operator with its trainers."""
        journal = self.folder / f"journal{len(self._loads)}"
        command = [sys.executable, "-P", "-m", "tests.load", "--url", self.server.url, "--journal", str(journal)]
        environment = {"PYTHONPATH": str(ROOT), "HPOPT_REPORT_DEADLINE": str(PATIENCE)}
        program = Program([*command, "--trainers", str(trainers), json.dumps({**STUDY, **study})], "", environment)
        self._loads.append((program, journal))
        return program

    def finish(self) -> list[Entry]:
        """Wait for the load to end well; what its journals say."""
        for program, _ in self._loads:
            assert program.wait(PATIENCE) == 0, program.output
        self.stop()
        assert not self.failures
        return read(journal for _, journal in self._loads)

    def stop(self) -> None:
        """End everything but the server."""
        with self._lock:
            self._over.set()
            programs = [*self._coordinators, *(program for program, _ in self._loads)]
        for program in programs:
            program.kill()
        self.server.kill()  # its keeper sees it end
        for thread in self._threads:
            thread.join(DEADLINE)
        self._threads = []
        self.server.start()

    def faults(self) -> list[Entry]:
        """The faults that have struck."""
        return read([self.fault_journal])

    def violations(self, journal: list[Entry]) -> list[str]:
        """What the checker finds."""
        return check_history.violations(journal, check_history.stored(self.server.redis, "default/run"))

    def _guarded(self, keep: Any) -> None:
        try:
            keep()
        except BaseException as error:  # noqa: BLE001 - the test tells it
            self.failures.append(error)

    def _keep_server(self) -> None:
        while not self._over.is_set():
            assert self.server.program is not None
            self.server.program.wait(PATIENCE)
            with self._lock:
                if not self._over.is_set():
                    self.server.start()

    def _keep_coordinator(self) -> None:
        while True:
            with self._lock:
                if self._over.is_set():
                    return
                program = self._start_coordinator()
                self._coordinators.add(program)
            program.wait(PATIENCE)
            self._coordinators.discard(program)

    def _start_coordinator(self) -> Program:
        mine = []
        while self._faults:
            mine.append(self._faults.popleft())
            if mine[-1].endswith("kill"):
                break
        planted = [word for fault in mine for word in ("--fault", fault)]
        environment = {
            "PYTHONPATH": f"{self._path}:{ROOT}",
            "HPOPT_TEST_FAULTS": str(self.fault_journal),
            "HPOPT_TEST_SERVER": str(self.server.pid_file),
        }
        command = [sys.executable, "-P", "-m", "tests.faulty_coordinator", *planted, "--url", self.server.url, *SHORT]
        return Program(command, "", environment)


@pytest.fixture
def chaos(server: Server) -> Iterable[Chaos]: ...
