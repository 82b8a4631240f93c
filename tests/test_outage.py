import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import hpopt
from hpopt import client, contacts, outage, trainer
from hpopt import hpo as operator
from hpopt.contact import UNSENT
from hpopt.core.codec import decode
from hpopt.core.curve import Point
from hpopt.core.messages import Close, Release
from tests.conftest import InBackground
from tests.server import until
from tests.site import Site
from tests.studies import curve, sample, states
from workers.link import RELEASED
from workers.runner import train_one

RUNNING, STOP = hpopt.Status.RUNNING, hpopt.Status.STOP
Config = dict[str, Any]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outages are waited out for half a second only."""
    monkeypatch.setenv(outage.DEADLINE, "0.5")


def scores(points: list[Point]) -> list[tuple[int, float | None]]:
    """Steps with their scores."""
    return [(point.step, point.score) for point in points]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The shim's warnings."""
    return [record.message for record in caplog.records if record.name == "hpopt" and record.levelname == "WARNING"]


def put_back(site: Site, caplog: pytest.LogCaptureFixture, words: str) -> Callable[[], None]:
    """To be done beside the test: when the shim has said these words, put back what is not there."""

    def work() -> None:
        try:
            until(lambda: any(words in line for line in said(caplog)), words)
        finally:
            site.start()

    return work


# Waited out


@pytest.mark.parametrize(
    ("kill", "begins"),
    [(Site.kill_coordinator, "no coordinator is running"), (Site.kill_server, "unreachable")],
    ids=["coordinator", "server"],
)
def test_outage_is_waited_out(
    site: Site,
    hpo: hpopt.HpOpt,
    config: Config,
    caplog: pytest.LogCaptureFixture,
    *,
    in_background: InBackground,
    kill: Callable[[Site], None],
    begins: str,
) -> None:
    """A report waits for server and coordinator, is committed once, and says once when the waiting begins and ends."""
    caplog.clear()
    kill(site)
    in_background(put_back(site, caplog, begins))
    assert hpopt.report(config, 2) is RUNNING
    assert hpopt.report(config, 3) is RUNNING
    first, last = said(caplog)
    assert begins in first
    assert "waiting for up to HPOPT_REPORT_DEADLINE=600 s" in first
    assert last.endswith("answers again")
    assert scores(curve(hpo, 0)) == [(1, 1), (2, 2), (3, 3)]


def test_samples_and_results_wait_too(
    site: Site, hpo: hpopt.HpOpt, caplog: pytest.LogCaptureFixture, in_background: InBackground
) -> None:
    """An operator need not know that the server was away."""
    calls: list[tuple[Callable[[], object], object]] = [
        (hpo.trials, []),
        (hpo.get_best_config, None),
        (lambda: hpo.get_next_samples()[0]["trial_id"], 0),
    ]
    for call, answer in calls:
        caplog.clear()
        site.kill_server()
        in_background(put_back(site, caplog, "unreachable"))
        assert call() == answer


def test_timeout_is_a_timeout_in_an_outage(site: Site, hpo: hpopt.HpOpt) -> None:
    """What the caller allows for is kept to, and the reason is told; the next call gets what this one would have."""
    site.kill_server()
    with pytest.raises(TimeoutError, match=r"timeout=0\.2 s: .* is unreachable"):
        hpo.get_next_sample(timeout=0.2)
    site.start()
    found = sample(hpo)
    assert found["trial_id"] == 0


def test_ids_that_have_gone_back(hpo: hpopt.HpOpt, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer is found even if the server's ids are lower than those seen before, as after a failover."""
    monkeypatch.setattr(client, "RESEND", 0.1)
    monkeypatch.setattr(outage, "BLOCK", 0.1)
    contacts.contact(config)._last = b"99999999999999-0"
    assert hpopt.report(config, 2) is RUNNING
    assert scores(curve(hpo, 0)) == [(1, 1), (2, 2)]


# Not waited out


@pytest.mark.parametrize(
    ("kill", "error", "words"),
    [
        (Site.kill_server, hpopt.HpoptUnavailable, r"unreachable .*HPOPT_REPORT_DEADLINE=0\.5 s: is the server up"),
        (
            Site.pause_coordinator,
            hpopt.NoCoordinator,
            r"HPOPT_REPORT_DEADLINE=0\.5 s: start one with `hpopt-coordinator",
        ),
    ],
    ids=["server", "coordinator"],
)
def test_deadline(
    site: Site,
    hpo: hpopt.HpOpt,
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    *,
    kill: Callable[[Site], None],
    error: type[Exception],
    words: str,
) -> None:
    """At the deadline an error names it, and the remedy; the same report may be tried again, and counts once."""
    kill(site)
    monkeypatch.setenv(outage.DEADLINE, "0.5")
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(error, match=words):
            hpopt.report(config, 2)
        assert 0.5 <= time.monotonic() - began < 4
    site.start()
    monkeypatch.delenv(outage.DEADLINE)
    assert hpopt.report(config, 2) is RUNNING
    assert scores(curve(hpo, 0)) == [(1, 1), (2, 2)]


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon", "1 s"])
def test_bad_deadline(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deadline that is no number of seconds is a ValueError that names the variable."""
    monkeypatch.setenv(outage.DEADLINE, text)
    with pytest.raises(ValueError, match=f"HPOPT_REPORT_DEADLINE='{text}': set it to a number of seconds above 0"):
        outage.deadline()


@pytest.mark.parametrize("name", [outage.DEADLINE, outage.ON_OUTAGE])
def test_bad_settings_are_told_before_the_outage(config: Config, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A report with a bad setting is a ValueError, even if all is well."""
    monkeypatch.setenv(name, "whatever")
    with pytest.raises(ValueError, match=f"{name}='whatever': set it to"):
        hpopt.report(config, 2)


@pytest.mark.usefixtures("impatient")
def test_trial_that_cannot_be_told_of_its_end(site: Site, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaving a trial's block because of an outage does not wait for another deadline."""
    contact = contacts.contact(config)

    def train() -> None:
        with hpopt.trial(config) as trial:
            trial.report(2)

    site.kill_server()
    with monkeypatch.context() as patch:
        patch.setattr(contact, "say", None)
        with pytest.raises(hpopt.HpoptUnavailable):
            train()
    assert not contact.stopped


def test_event_is_sent_again_less_and_less_often(
    site: Site, hpo: hpopt.HpOpt, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A coordinator that comes back after a long time does not find its inbox full of the same."""
    monkeypatch.setattr(client, "RESEND", 0.1)
    monkeypatch.setattr(outage, "BLOCK", 0.02)
    monkeypatch.setenv(outage.DEADLINE, "1.4")
    site.pause_coordinator()
    before = site.redis.xlen(hpo._keys.inbox)
    with pytest.raises(hpopt.NoCoordinator):
        hpopt.report(config, 2)
    assert 2 <= site.redis.xlen(hpo._keys.inbox) - before <= 5, "at 0.0, 0.1, 0.3, 0.7 and 1.5 seconds"


def test_close_in_an_outage(
    site: Site, hpo: hpopt.HpOpt, config: Config, in_background: InBackground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session can be closed although the server is away and a thread waits for it."""
    monkeypatch.setattr(operator, "CLOSE_WITHIN", 0.5)
    waiting = threading.Event()
    contact = contacts.contact(config)
    site.kill_server()

    def report() -> None:
        with contact.lock:
            waiting.set()
            hpopt.report(config, 2)

    in_background(report)
    waiting.wait()
    began = time.monotonic()
    hpo.close()
    assert time.monotonic() - began < 5
    site.start()


def test_close_beside_a_server_that_hangs(
    site: Site, hpo: hpopt.HpOpt, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that takes connections and never answers holds up the end once, not once for each thing to be said."""
    hpopt.report(config, 2)
    monkeypatch.setattr(operator, "CLOSE_WITHIN", 1.0)
    site.pause_server()
    began = time.monotonic()
    hpo.close()
    assert time.monotonic() - began < client._FIXED["socket_timeout"] + 3
    assert not hpo._server.heart._keys
    site.start()


def test_interruption_in_an_outage(
    site: Site, config: Config, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who interrupts a training does not wait for the deadline of reports: the trial falls silent."""
    monkeypatch.setattr(trainer, "INTERRUPTED_WITHIN", 0.3)
    site.kill_server()
    caplog.clear()
    with pytest.raises(KeyboardInterrupt), hpopt.trial(config):
        raise KeyboardInterrupt
    assert "trial 0 is not given back now, but when its silence is noticed" in said(caplog)[-1]
    contact = contacts.contact(config)
    assert contact.alive_key not in contact.heart._keys
    site.start()


def test_close_without_a_coordinator(
    site: Site, hpo: hpopt.HpOpt, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server answers, so it is told of the end: the coordinator that comes back finds it in the inbox."""
    hpopt.report(config, 2)
    monkeypatch.setattr(operator, "CLOSE_WITHIN", 0.6)
    site.kill_coordinator()
    hpo.close()
    last: Any = site.redis.xrevrange(hpo._keys.inbox, count=2)
    assert [type(decode(fields[b"e"])) for _, fields in last] == [Close, Release]
    site.start()


def test_interruption_where_the_study_is_gone(site: Site, config: Config) -> None:
    """What cannot be told does not take the place of the interruption."""
    with hpopt.trial(config) as interrupted:
        site.redis.flushall()
        interrupted.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    contact = contacts.contact(config)
    assert contact.alive_key not in contact.heart._keys


def test_interrupted_runner_in_an_outage(
    site: Site, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's training that is interrupted ends as soon: what it says next is not said, and raises nothing."""
    monkeypatch.setattr(trainer, "INTERRUPTED_WITHIN", 0.3)
    site.kill_server()

    def interrupted(_config: Config) -> None:
        raise KeyboardInterrupt("SIGTERM")

    began = time.monotonic()
    ending = train_one(interrupted, config, str(tmp_path / "log"), SimpleNamespace(seen=True))  # type: ignore[arg-type]
    assert ending == (RELEASED, "interrupted by SIGTERM")
    assert time.monotonic() - began < client._FIXED["socket_timeout"]
    site.start()


# Not waited for


def test_training_goes_on(
    site: Site, hpo: hpopt.HpOpt, config: Config, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With HPOPT_ON_OUTAGE=continue a report returns at the deadline; it is sent with the next ones, in order."""
    monkeypatch.setenv(outage.ON_OUTAGE, "continue")
    monkeypatch.setenv(outage.DEADLINE, "0.2")
    caplog.clear()
    site.kill_server()
    assert [hpopt.report(config, score) for score in (2, 3, 4)] == [RUNNING] * 3
    site.start()
    monkeypatch.delenv(outage.DEADLINE)
    assert hpopt.report(config, 5) is RUNNING
    assert hpopt.report(config, 6) is RUNNING
    assert scores(curve(hpo, 0)) == [(step, step) for step in range(1, 7)]
    away, goes_on, back = said(caplog)
    assert "unreachable" in away
    assert "trial 0 goes on, and its reports are kept: " in goes_on
    assert "answers again" in back


def test_training_goes_on_without_coordinator(
    site: Site, hpo: hpopt.HpOpt, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the server has taken is not sent again and again; the coordinator finds all of it."""
    monkeypatch.setenv(outage.ON_OUTAGE, "continue")
    monkeypatch.setenv(outage.DEADLINE, "0.2")
    site.pause_coordinator()
    before = site.redis.xlen(hpo._keys.inbox)
    assert [hpopt.report(config, score) for score in (2, 3, 4)] == [RUNNING] * 3
    assert site.redis.xlen(hpo._keys.inbox) == before + 3
    monkeypatch.delenv(outage.DEADLINE)
    site.start()
    hpopt.finalize_trial(config)
    assert scores(curve(hpo, 0)) == [(step, step) for step in range(1, 5)]
    assert states(hpo) == ["stopped"]


def test_unsent_reports_are_bounded(
    site: Site, hpo: hpopt.HpOpt, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of more reports than are kept, the newest are; the end of the trial brings them along."""
    contact = contacts.contact(config)
    assert contact.unsent.maxlen == UNSENT == 1024
    monkeypatch.setenv(outage.ON_OUTAGE, "continue")
    monkeypatch.setenv(outage.DEADLINE, "0.05")
    contact.unsent = type(contact.unsent)(maxlen=2)
    site.kill_server()
    for score in (2, 3, 4, 5):
        hpopt.report(config, score)
    site.start()
    monkeypatch.delenv(outage.DEADLINE)
    hpopt.finalize_trial(config)
    assert scores(curve(hpo, 0)) == [(1, 1), (4, 4), (5, 5)]
    assert not contact.unsent


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("variables", [{"WORLD_SIZE": "2"}, {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}])
def test_one_of_many_ranks_does_not_go_on(
    site: Site, config: Config, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    """Where other ranks wait for the same answer, nobody goes on without it."""
    monkeypatch.setenv(outage.ON_OUTAGE, "continue")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    site.kill_server()
    with pytest.raises(hpopt.HpoptUnavailable):
        hpopt.report(config, 2)
