"""Fixtures that several test files use."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hpopt
from hpopt.embedded import EmbeddedServer
from tests.server import SHORT, Program, Server, start_coordinator
from tests.studies import SMALL

Start = Callable[..., Program]
Create = Callable[..., hpopt.HpOpt]


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
