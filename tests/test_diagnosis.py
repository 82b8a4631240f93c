"""What coordinators and clients say when something is wrong, or when they are asked."""

import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import hpopt
from coordinator.__main__ import main
from coordinator.store import BLOCK
from hpopt import api
from hpopt.core.keys import COORDINATORS, StudyKeys
from tests.conftest import Create, Quick, Start
from tests.server import Server, start_coordinator, until
from tests.site import Site
from tests.studies import sample, train

KEYS = StudyKeys("default", "run")
QUICK = "tests.faulty_coordinator"
REFUSED = 2
LINE = re.compile(r'\d{4}-\d\d-\d\dT[\d:.]+Z (DEBUG|INFO|WARNING|ERROR) [a-z ]+( \w+=("([^"\\]|\\.)*"|[\w./:+-]+))*')


# --- what is said


def test_check(server: Server, start: Start, quick: Quick) -> None:
    """--check says whether server and coordinator are there, as its exit status too."""
    without = start("--check")
    assert (without.wait(), without.output) == (1, "unhealthy: the server answers, but no coordinator is running")
    quick()
    with_one = start("--check")
    assert (with_one.wait(), with_one.output) == (0, "healthy")
    server.kill()
    dead = start("--check")
    assert dead.wait() == 1
    assert dead.output.startswith("unhealthy: the server does not answer: ")


def test_check_after_a_kill(start: Start, quick: Quick) -> None:
    """A coordinator that was killed counts as alive for a few seconds, and no longer."""
    quick().kill()

    def status() -> int:
        return start("--check").wait()

    until(lambda: status() == 1, "the dead coordinator is noticed")


def test_held_up_for_longer_than_a_short_lease(server: Server, quick: Quick, study: Create) -> None:
    """A coordinator that a busy machine holds up loses a lease of a second, and is not said to be missing."""
    coordinator = quick()
    hpo = study()
    until(lambda: bool(server.redis.exists(KEYS.lease)), "the study is kept")
    coordinator.signal(signal.SIGSTOP)
    until(lambda: not server.redis.exists(KEYS.lease), "the lease has run out")
    assert server.redis.exists(COORDINATORS)
    coordinator.signal(signal.SIGCONT)
    train(sample(hpo))


@pytest.mark.parametrize("url", ["here", "http://here", "redis://here:port", "redis://here/1", "unix://"])
def test_bad_urls(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A URL that cannot be used is an error of the command line."""
    with pytest.raises(SystemExit) as ended:
        main(["--url", url])
    assert ended.value.code == REFUSED
    assert "hpopt-coordinator: error: url=" in capsys.readouterr().err


def test_log(tmp_path: Path, study: Create) -> None:
    """Every line of the log can be read by a program, and none of them has the password in it."""
    server = Server(tmp_path / "server", requirepass="s3cret").start()
    url = server.url.replace("unix://", "unix://:s3cret@")
    coordinator = start_coordinator(url, "--quick", module=QUICK)
    try:
        coordinator.wait_for("coordinator ready")
        hpo = study(url=url, num_trials=2)
        train(sample(hpo))
        server.restart()
        train(sample(hpo))
        hpo.close()
        server.kill()
        coordinator.wait_for("server not reachable")
        coordinator.signal(signal.SIGTERM)
        assert coordinator.wait() == 0
    finally:
        coordinator.kill()
        server.close()
    assert len(coordinator.lines) > 8
    assert [line for line in coordinator.lines if not LINE.fullmatch(line)] == []
    assert "s3cret" not in coordinator.output
    assert re.search(r"INFO trial completed study=default/run trial=0 detail=\"", coordinator.output)


def test_wrong_credentials(site: Site) -> None:
    """A coordinator that the server refuses ends, and says what to check; no password is shown."""
    coordinator = start_coordinator(f"redis://:wr0ng@127.0.0.1:{site.port}")
    assert coordinator.wait() == REFUSED
    (line,) = coordinator.lines
    assert f'ERROR server refused detail="{site.shown} refuses us (' in line
    assert "check the credentials in --url or HPOPT_URL" in line
    assert "wr0ng" not in line


def test_a_coordinator_that_never_got_to_its_server(server: Server) -> None:
    """It says which server it waits for, and does not claim to be ready when it is asked to end."""
    server.kill()
    coordinator = start_coordinator(server.url)
    coordinator.wait_for(f"WARNING server not reachable server={server.url} ")
    coordinator.signal(signal.SIGTERM)
    assert coordinator.wait() == 0
    assert "ready" not in coordinator.output


def test_an_outage_is_told_once(server: Server, quick: Quick, study: Create) -> None:
    """While the server is away a coordinator does not fill its log."""
    coordinator = quick()
    study(study="one"), study(study="two")
    server.kill()
    coordinator.wait_for("server not reachable", count=5)
    assert coordinator.output.count("study dropped from memory") == 2
    server.start()
    coordinator.wait_for("study loaded", count=2)


# --- what clients say


def test_no_coordinator(server: Server, quick: Quick, study: Create, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any coordinator trainers and operators say so, after the time they are to wait."""
    coordinator = quick()
    config = sample(study())
    coordinator.signal(signal.SIGTERM)
    assert coordinator.wait() == 0
    monkeypatch.setenv("HPOPT_REPORT_DEADLINE", "1")
    monkeypatch.setattr(api, "UNREACHABLE_AFTER", 1.0)
    began = time.monotonic()
    with pytest.raises(hpopt.NoCoordinator, match="no coordinator is running on unix:"):
        hpopt.report(config, 0.1)
    with pytest.raises(hpopt.NoCoordinator, match="start one with"):
        study(study="another")
    assert time.monotonic() - began < 15
    assert server.redis.exists(KEYS.meta)


def test_no_server(study: Create, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is not there is named, without its credentials, and so is the remedy."""
    monkeypatch.setattr(api, "UNREACHABLE_AFTER", 1.0)
    with pytest.raises(hpopt.HpoptUnavailable, match="is the server up, and is HPOPT_URL right") as caught:
        study(url=f"unix://:s3cret@{tmp_path}/nobody")
    assert "s3cret" not in str(caught.value)


def test_unknown_study(server: Server, quick: Quick, study: Create) -> None:
    """A study that does not exist is an error at once, not a wait."""
    quick()
    config = sample(study())
    config["hpopt"]["study"] = "nowhere"
    began = time.monotonic()
    with pytest.raises(hpopt.UnknownStudy, match="'default/nowhere'"):
        hpopt.report(config, 0.1)
    with pytest.raises(hpopt.UnknownStudy, match="'default/nowhere'"):
        hpopt.join("nowhere", url=server.url)
    assert time.monotonic() - began < BLOCK / 1000


def test_another_version(server: Server, quick: Quick, study: Create) -> None:
    """A coordinator that speaks another protocol is named as the cause."""
    coordinator = quick()
    config = sample(study())
    coordinator.kill()
    server.redis.set(COORDINATORS, "someone protocol 7-9")
    with pytest.raises(hpopt.VersionSkew, match="protocols 7 to 9, this process speaks 1"):
        hpopt.report(config, 0.1)
    found: Any = server.redis.get(KEYS.curve(config["hpopt"]["uid"], 0))
    assert found is None
