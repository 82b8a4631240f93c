"""Hosts of their own on this machine, and a study on a fleet of them; see tests/hosts.py and tests/multihost.py."""

import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import fleet_history
from tests.hosts import Host, Network, why_not
from tests.multihost import SMALL, Outcome, run
from tests.server import ROOT, Program, until

SERVE = "import socket, sys; at = socket.create_server(('', 80)); print('up', flush=True)\nwhile True: at.accept()"
CALL = "import socket, sys; socket.create_connection((sys.argv[1], 80), 1); print(socket.gethostname())"
ABANDONED = """
import time
from tests.hosts import Network

network = Network()
host = network.host("left")
print(host.program(["sleep", "1000"]).pid, flush=True)
time.sleep(1000)
"""


@pytest.fixture(scope="module", autouse=True)
def allowed() -> None:
    """Nothing here can be tested where the system does not allow it: without root, or without `ip`, for two."""
    if missing := why_not():
        pytest.skip(f"no hosts of their own here: {missing}")


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts; something listens on the first one."""
    with Network() as network:
        server, client = network.host("server"), network.host("client")
        server.program([sys.executable, "-c", SERVE]).wait_for("up")
        yield server, client


def called(host: Host, to: Host) -> str:
    """The last words of a process on a host that has called another one."""
    program = host.program([sys.executable, "-c", CALL, to.address])
    program.wait()
    return program.lines[-1]


def test_a_host_has_an_address_and_a_name(hosts: tuple[Host, Host]) -> None:
    """One reaches another over the network, until it is unplugged; then nobody answers, and nobody refuses either."""
    server, client = hosts
    assert called(client, server) == "client"
    server.unplug()
    assert called(client, server) == "TimeoutError: timed out"
    server.plug()
    assert called(client, server) == "client"


def test_a_host_that_crashes_takes_everything_along(hosts: tuple[Host, Host]) -> None:
    """What runs there is killed, what runs elsewhere is not."""
    server, client = hosts
    there, elsewhere = client.program(["sleep", "1000"]), server.program(["sleep", "1000"])
    client.crash()
    assert there.wait() == -signal.SIGKILL
    assert elsewhere.returncode is None
    elsewhere.signal(signal.SIGTERM)
    assert elsewhere.wait() == -signal.SIGTERM


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_of_hosts(end: signal.Signals) -> None:
    """However a program ends that has made hosts, they end with it."""
    program = Program([sys.executable, "-P", "-c", ABANDONED], environment={"PYTHONPATH": str(ROOT)})
    pid = int(program.wait_for(r"^\d+$"))
    os.kill(pid, 0)
    program.signal(end)
    program.wait()
    until(lambda: not Path(f"/proc/{pid}").exists(), "the host has ended")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A study whose hosts die, are cut off and are preempted."""
    return run(tmp_path_factory.mktemp("fleet"), SMALL)


def test_a_fleet_loses_and_doubles_nothing(outcome: Outcome) -> None:
    """Whatever happens to its hosts, each trial is trained to its end, and each acknowledged report is there, once."""
    assert outcome.violations == [], "\n".join(outcome.report())
    assert len(outcome.stored.trials) == SMALL.trials
    assert len(outcome.report()) > 20


def lost_report(outcome: Outcome) -> None:
    """A report that was acknowledged is not there."""
    last = next(entry for entry in reversed(outcome.journal) if entry.get("status") == "RUNNING")
    outcome.journal.append({**last, "step": last["step"] + 1})


def lost_trial(outcome: Outcome) -> None:
    """A trial is not in the results."""
    path = outcome.folder / "results.json"
    results = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**results, "trials": results["trials"][:-1]}), encoding="utf-8")


def lost_point(outcome: Outcome) -> None:
    """A score is not in the curves."""
    path = outcome.folder / "curves.csv"
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")


def handed_out_twice(outcome: Outcome) -> None:
    """Two hosts were handed one attempt."""
    first = next(entry for entry in outcome.journal if entry["op"] == "ask")
    outcome.journal.append({**first, "host": "worker9", "session": "worker9-1"})


@pytest.mark.parametrize("harm", [lost_report, lost_trial, lost_point, handed_out_twice])
def test_the_check_would_notice(outcome: Outcome, harm: Callable[[Outcome], None]) -> None:
    """Of the same study with one thing that is wrong it says so."""
    files = {name: (outcome.folder / name).read_bytes() for name in ("results.json", "curves.csv")}
    harmed = dataclasses.replace(outcome, journal=list(outcome.journal))
    try:
        harm(harmed)
        assert fleet_history.violations(harmed.journal, outcome.stored, outcome.folder) != []
    finally:
        for name, content in files.items():
            (outcome.folder / name).write_bytes(content)
