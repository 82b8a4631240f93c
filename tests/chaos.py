"""Whole studies on one server while coordinators and the server itself are killed, and start again at once."""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests import check_history
from tests.journal import Entry, read
from tests.load import start_load
from tests.server import DEADLINE, ROOT, Program, Server, start_coordinator

FAULTY = "tests.faulty_coordinator"
PATIENCE = 120.0
"""Seconds that a whole study may take."""
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

    def __init__(self, server: Server) -> None:
        """Nothing happens before `start`."""
        self.server = server
        self.folder = server.folder
        self._fault_journal = self.folder / "faults"
        self._fault_journal.touch()
        self.path = ROOT
        """Where the packages of the coordinators are."""
        self._faults: deque[str] = deque()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._coordinators: list[Program] = []
        self._loads: list[tuple[Program, Path]] = []
        self._threads: list[threading.Thread] = []
        self._failures: list[BaseException] = []

    @property
    def log(self) -> list[str]:
        """What all coordinators have said."""
        return [line for program in self._coordinators for line in program.lines]

    def deal(self, faults: Iterable[str]) -> None:
        """Faults for the coordinators to come: each gets its share, up to the one that kills it."""
        self._faults.extend(faults)

    def start(self) -> None:
        """Begin to keep the server and two coordinators alive."""
        keepers = [self._keep_server, self._keep_coordinator, self._keep_coordinator]
        self._threads = [threading.Thread(target=self._guarded, args=(keep,)) for keep in keepers]
        for thread in self._threads:
            thread.start()

    def coordinator(self, *faults: str) -> Program:
        """Start a coordinator that nobody keeps alive."""
        planted = [word for fault in faults for word in ("--fault", fault)]
        environment = {"HPOPT_TEST_FAULTS": str(self._fault_journal), "HPOPT_TEST_SERVER": str(self.server.pid_file)}
        program = start_coordinator(
            self.server.url, "--quick", *planted, module=FAULTY, path=self.path, environment=environment
        )
        self._coordinators.append(program)
        return program

    def load(self, trainers: int, **study: Any) -> Program:
        """Start an operator with its trainers."""
        journal = self.folder / f"journal{len(self._loads)}"
        deadline = {"HPOPT_REPORT_DEADLINE": str(PATIENCE)}
        program = start_load(self.server.url, journal, trainers, {**STUDY, **study}, **deadline)
        self._loads.append((program, journal))
        return program

    def finish(self) -> list[Entry]:
        """Wait for the load to end well; what its journals say."""
        for program, _ in self._loads:
            assert program.wait(PATIENCE) == 0, program.output
        self.stop()
        assert not self._failures
        return read(journal for _, journal in self._loads)

    def stop(self) -> None:
        """End everything but the server."""
        with self._lock:
            self._over.set()
            programs = [*self._coordinators, *(program for program, _ in self._loads)]
        for program in programs:
            program.kill()
        self.server.kill()  # for the last time: what is checked is what survives that
        for thread in self._threads:
            thread.join(DEADLINE)
        self._threads = []
        self.server.start()

    def faults(self) -> list[Entry]:
        """The faults that have struck."""
        return read([self._fault_journal])

    def violations(self, journal: list[Entry]) -> list[str]:
        """What the checker finds."""
        return check_history.violations(journal, check_history.stored(self.server.redis, "default/run"))

    def _guarded(self, keep: Callable[[], None]) -> None:
        try:
            keep()
        except BaseException as error:  # noqa: BLE001 - the test tells it
            self._failures.append(error)

    def _keep_server(self) -> None:
        while not self._over.is_set():
            assert self.server.program is not None
            self.server.program.wait(None)
            with self._lock:
                if not self._over.is_set():
                    self.server.start()

    def _keep_coordinator(self) -> None:
        while True:
            with self._lock:
                if self._over.is_set():
                    return
                program = self.coordinator(*self._share())
            program.wait(None)

    def _share(self) -> list[str]:
        """The faults of the next coordinator, up to the one that kills it."""
        mine: list[str] = []
        while self._faults and not (mine and mine[-1].endswith("kill")):
            mine.append(self._faults.popleft())
        return mine
