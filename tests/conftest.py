"""Fixtures that several test files use."""

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from threadpoolctl import threadpool_limits

import hpopt
from hpopt.embedded import EmbeddedServer
from tests.server import SHORT, Program, Server, start_coordinator
from tests.site import Site
from tests.studies import SMALL, sample

# A shell starts background jobs with SIGINT ignored, and what ignores it cannot be interrupted, as some tests want.
signal.signal(signal.SIGINT, signal.default_int_handler)

Start = Callable[..., Program]
Create = Callable[..., hpopt.HpOpt]
InBackground = Callable[[Callable[[], object]], None]
Quick = Callable[..., Program]


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """As where suggestions are made: the matrices are small, and a second BLAS thread makes them many times slower."""
    with threadpool_limits(1):
        yield


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A private server that loses nothing, running."""
    its = Server(tmp_path)
    try:
        yield its.start()
    finally:
        its.close()


@pytest.fixture
def start(server: Server) -> Iterator[Start]:
    """Starts coordinators of the private server; they are killed when the test ends."""
    started: list[Program] = []

    def begin(*options: str, **others: Any) -> Program:
        program = start_coordinator(server.url, *options, **others)
        started.append(program)
        return program

    yield begin
    for program in started:
        program.kill()


@pytest.fixture
def quick(start: Start) -> Quick:
    """Starts coordinators that need no second process for suggestions, and waits until they are ready."""

    def begin(*options: str, **others: Any) -> Program:
        program = start("--quick", *options, module="tests.faulty_coordinator", **others)
        program.wait_for("coordinator ready")
        return program

    return begin


@pytest.fixture
def study(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Create]:
    """hpopt.create for a study called "run" on the private server, unless something else is asked for."""
    monkeypatch.setenv("HPOPT_REPORT_DEADLINE", "30")  # a test that fails does not wait for ten minutes
    made: list[hpopt.HpOpt] = []

    def begin(**changes: Any) -> hpopt.HpOpt:
        where = {"url": server.url, "save_path": tmp_path / "out", "study": "run"}
        made.append(hpopt.create(**{**SMALL, **where, **changes}))
        return made[-1]

    yield begin
    for hpo in made:
        hpo.close()


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One embedded server with short times; every test has studies of its own on it."""
    with EmbeddedServer.start(tmp_path_factory.mktemp("embedded"), extra_args=SHORT) as its:
        yield its


@pytest.fixture
def create(embedded: EmbeddedServer, tmp_path: Path) -> Iterator[Create]:
    """hpopt.create for a small study on the embedded server; the sessions are closed when the test ends."""
    made: list[hpopt.HpOpt] = []

    def begin(**changes: Any) -> hpopt.HpOpt:
        where = {"url": embedded.url, "save_path": tmp_path, "study": tmp_path.name[:60]}
        made.append(hpopt.create(**{**SMALL, **where, **changes}))
        return made[-1]

    yield begin
    for hpo in made:
        hpo.close()


@pytest.fixture(scope="session")
def whole_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One site for the tests that take parts of it away."""
    its = Site(tmp_path_factory.mktemp("site"))
    yield its
    its.close()


@pytest.fixture
def site(whole_site: Site) -> Iterator[Site]:
    """The site, with everything in its place before and after the test."""
    yield whole_site
    whole_site.start()


@pytest.fixture
def hpo(site: Site, tmp_path: Path) -> Iterator[hpopt.HpOpt]:
    """A study of one trial of ten iterations, at the site."""
    changes = {"url": site.url, "save_path": tmp_path, "study": tmp_path.name, "num_trials": 1, "max_iterations": 10}
    with hpopt.create(**{**SMALL, **changes}) as its:
        yield its
        site.start()


@pytest.fixture
def config(hpo: hpopt.HpOpt) -> dict[str, Any]:
    """Its trial, which has reported score 1 at step 1."""
    found = sample(hpo)
    hpopt.report(found, 1)
    return found


@pytest.fixture
def in_background() -> Iterator[InBackground]:
    """Does something beside the test, which ends when that has ended."""
    threads: list[threading.Thread] = []

    def begin(work: Callable[[], object]) -> None:
        threads.append(threading.Thread(target=work))
        threads[-1].start()

    yield begin
    for thread in threads:
        thread.join()
