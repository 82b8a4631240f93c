import json
import logging
import os
import re
import signal
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import hpopt
from hpopt import api, client, contacts, outage
from hpopt.client import RESEND, Client
from hpopt.core.address import without_credentials
from hpopt.core.codec import VERSION
from hpopt.core.keys import COORDINATORS
from tests.conftest import InBackground
from tests.proxy import Proxy
from tests.server import Server, until
from tests.site import PASSWORD, Site
from tests.studies import SMALL, TRAINER, curve, run_python, sample, start_python, train

RUNNING, STOP = hpopt.Status.RUNNING, hpopt.Status.STOP
Config = dict[str, Any]


@pytest.fixture
def proxy(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy to the site, through which trainers go: HPOPT_URL names it, whatever the config says."""
    with Proxy(site.port) as its:
        monkeypatch.setenv("HPOPT_URL", site.url.replace(str(site.port), str(its.port)))
        yield its


def moved(config: Config) -> Config:
    """The config as if it came from another process, and from a server that is not there."""
    return {**config, "hpopt": {**config["hpopt"], "url": "redis://127.0.0.1:1"}}


def steps(hpo: hpopt.HpOpt) -> list[tuple[int, float | None]]:
    """Steps and scores of the only trial."""
    return [(point.step, point.score) for point in curve(hpo, 0)]


class Web(socketserver.StreamRequestHandler):
    """Answers as a web server does to what it does not understand."""

    def handle(self) -> None:
        self.wfile.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def refused(site: Site, tmp_path: Path, **changes: Any) -> hpopt.HpOpt:
    """hpopt.create, which is to fail."""
    return hpopt.create(**{**SMALL, "url": site.url, "save_path": tmp_path, "study": "refused", **changes})


# Between the trainer and the server


def test_lost_answers(hpo: hpopt.HpOpt, proxy: Proxy) -> None:
    """Reports whose answers are lost are sent again, no more often than every five seconds, and count once."""
    config = moved(sample(hpo))
    hpopt.report(config, 1)
    sent = len(proxy.events)
    proxy.lose = 2
    assert hpopt.report(config, 2) is RUNNING
    first, second, third = proxy.events[sent:]
    assert min(second - first, third - second) >= RESEND
    assert steps(hpo) == [(1, 1), (2, 2)]


def test_cut_connections(hpo: hpopt.HpOpt, proxy: Proxy) -> None:
    """A connection that is cut with a report on it is made anew at once; the report counts once."""
    config = moved(sample(hpo))
    began = time.monotonic()
    for step in range(1, 6):
        proxy.cut = step % 3
        assert hpopt.report(config, step) is RUNNING
    assert time.monotonic() - began < RESEND
    assert steps(hpo) == [(step, step) for step in range(1, 6)]


def test_half_open_connection(hpo: hpopt.HpOpt, proxy: Proxy) -> None:
    """A connection on which nothing comes through any more, without a word, is noticed within 15 seconds."""
    config = moved(sample(hpo))
    hpopt.report(config, 1)
    proxy.freeze()
    began = time.monotonic()
    assert hpopt.report(config, 2) is RUNNING
    assert time.monotonic() - began < 15
    assert steps(hpo) == [(1, 1), (2, 2)]


def test_interrupt_in_a_report(site: Site, hpo: hpopt.HpOpt, config: Config, in_background: InBackground) -> None:
    """Ctrl-C in a report drops the connection; the report may be repeated, and counts once."""
    site.pause_coordinator()
    inbox = hpo._keys.inbox
    before = site.redis.xlen(inbox)

    def interrupt() -> None:
        until(lambda: site.redis.xlen(inbox) > before, "the report in the inbox")
        os.kill(os.getpid(), signal.SIGINT)

    in_background(interrupt)
    with pytest.raises(KeyboardInterrupt):
        hpopt.report(config, 2)
    contact = contacts.contact(config)
    assert not contact.client._local.connection.is_connected
    assert not contact.lock._is_owned()  # type: ignore[attr-defined]
    site.start()
    assert hpopt.report(config, 2) is RUNNING
    assert hpopt.report(config, 3) is RUNNING
    assert steps(hpo) == [(1, 1), (2, 2), (3, 3)]


def test_interrupt_while_connecting(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection whose login was interrupted is not used: its answers would be taken for those of what comes next."""
    client = Client(site.url)
    with monkeypatch.context() as patch:
        patch.setattr("redis.connection.Connection.read_response", lambda *_, **__: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            client.get("PING")
    assert client.get("ECHO", "x") == b"x"


# Which server


def test_environment_beats_config(site: Site, hpo: hpopt.HpOpt, monkeypatch: pytest.MonkeyPatch) -> None:
    """HPOPT_URL says where the server is, whatever the config says."""
    config = moved(sample(hpo))
    monkeypatch.setenv("HPOPT_URL", f"unix://{site.server.folder}/nothing")
    monkeypatch.setenv(outage.DEADLINE, "0.1")
    with pytest.raises(hpopt.HpoptUnavailable, match="nothing is unreachable"):
        hpopt.report(config, 1)
    monkeypatch.delenv(outage.DEADLINE)
    contacts._contacts.clear()
    monkeypatch.setenv("HPOPT_URL", site.socket_url)
    assert hpopt.report(config, 1) is RUNNING


def test_no_server(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A create at an address where nobody listens fails within 15 seconds, and says what to look at."""
    assert api.UNREACHABLE_AFTER <= 12
    monkeypatch.setattr(api, "UNREACHABLE_AFTER", 0.5)
    for url in ("redis://127.0.0.1:1", f"unix://{tmp_path}/nothing", "redis://no-such-host.invalid"):
        words = rf"{re.escape(url)} is unreachable .* 0\.5 s: is the server up, and is HPOPT_URL right\?"
        with pytest.raises(hpopt.HpoptUnavailable, match=words):
            refused(site, tmp_path, url=url)
    with pytest.raises(hpopt.HpoptUnavailable, match="is unreachable"):
        hpopt.join("study", "redis://127.0.0.1:1")


def test_server_of_another_kind(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What answers in another language is waited for no longer than nobody."""
    monkeypatch.setattr(api, "UNREACHABLE_AFTER", 0.5)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Web) as web:
        threading.Thread(target=web.serve_forever).start()
        with pytest.raises(hpopt.HpoptUnavailable, match="is unreachable"):
            refused(site, tmp_path, url=f"redis://127.0.0.1:{web.server_address[1]}")
        web.shutdown()


@pytest.fixture
def nosy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shim looks soon whether a coordinator is there."""
    monkeypatch.setattr(client, "ASK_WHO_IS_THERE", 0.1)
    monkeypatch.setattr(outage, "BLOCK", 0.1)


@pytest.mark.usefixtures("nosy")
def test_no_coordinator(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A create on a server without a coordinator says so."""
    monkeypatch.setattr(api, "UNREACHABLE_AFTER", 0.5)
    words = r"no coordinator is running on unix:.* 0\.5 s: start one with `hpopt-coordinator --url"
    with pytest.raises(hpopt.NoCoordinator, match=words):
        hpopt.create(**SMALL, url=server.url, save_path=tmp_path)


@pytest.mark.usefixtures("nosy")
def test_coordinator_of_another_version(server: Server, tmp_path: Path) -> None:
    """A coordinator that cannot understand us is told from one that is slow."""
    server.redis.set(COORDINATORS, f"host-1-abc protocol {VERSION + 1}-{VERSION + 2}")
    words = f"understands protocols {VERSION + 1} to {VERSION + 2}, this process speaks {VERSION}: upgrade the older"
    with pytest.raises(hpopt.VersionSkew, match=words):
        hpopt.create(**SMALL, url=server.url, save_path=tmp_path)


def test_config_of_another_version() -> None:
    """A config of a protocol that we do not know is refused before anything is sent; that of the next one is not."""
    identity = {"namespace": "n", "study": "s", "uid": "u", "trial": 0, "attempt": 1, "url": "http://unusable"}
    for version, error in ((VERSION + 2, hpopt.VersionSkew), (0, hpopt.VersionSkew), (VERSION + 1, ValueError)):
        with pytest.raises(error, match=f"protocol {version}" if error is hpopt.VersionSkew else "use redis://"):
            hpopt.report({"hpopt": {**identity, "version": version}}, 0.5)


def test_unknown_study(hpo: hpopt.HpOpt, config: Config) -> None:
    """A study that is not there is an error at once, for trainers and operators."""
    unknown = {**config, "hpopt": {**config["hpopt"], "study": "unknown"}}
    began = time.monotonic()
    for call in (lambda: hpopt.report(unknown, 1), lambda: hpopt.finalize_trial(unknown)):
        with pytest.raises(
            hpopt.UnknownStudy, match=r"no study 'default/unknown' on .*: check study=, namespace= and HPOPT_URL"
        ):
            call()
    with pytest.raises(hpopt.UnknownStudy, match="no study 'default/unknown'"):
        hpopt.join("unknown", hpo.url)
    assert time.monotonic() - began < 1


def test_unknown_trial(config: Config) -> None:
    """A trial of a study that has been replaced, or that never was, is to stop."""
    for change in ({"uid": "another"}, {"trial": 99}, {"attempt": 7}):
        assert hpopt.report({**config, "hpopt": {**config["hpopt"], **change}}, 1) is STOP


def test_unknown_attempts_disturb_no_real_one(site: Site, tmp_path: Path) -> None:
    """Whoever reports for an attempt or a trial that is not there yet is to stop; those that are there go on."""
    hpo = hpopt.create(**SMALL, url=site.url, save_path=tmp_path, study="disturbed")
    config = sample(hpo)
    assert hpopt.report(config, 1) is RUNNING
    later = {**config, "hpopt": {**config["hpopt"], "trial": config["trial_id"] + 1}}
    for change in ({"attempt": 2}, {"attempt": 3}):
        assert hpopt.report({**config, "hpopt": {**config["hpopt"], **change}}, 1) is STOP
    said, answer = run_python(TRAINER, later, environment={"HPOPT_URL": hpo.url})
    assert said.startswith("hpopt: nothing is reported for trial 1, attempt 1: unknown trial")
    assert answer == "STOP"
    assert hpopt.report(config, 1) is RUNNING
    following = hpo.get_next_sample()
    assert following is not None
    assert following["trial_id"] == later["hpopt"]["trial"]
    assert hpopt.report(following, 1) is RUNNING
    hpo.close()


# Credentials


@pytest.mark.parametrize("credentials", ["", ":wrong@", "nobody:wrong@"])
def test_wrong_credentials(site: Site, tmp_path: Path, credentials: str) -> None:
    """A server that refuses us is an error at once, which names HPOPT_URL and no password."""
    url = site.shown.replace("//", f"//{credentials}")
    words = rf"{site.shown} refuses us \(.*\): check the credentials in HPOPT_URL"
    for call in (partial(refused, site, tmp_path, url=url), partial(hpopt.join, "refused", url)):
        with pytest.raises(hpopt.HpoptUnavailable, match=words) as caught:
            call()
        assert "wrong" not in str(caught.value)


@pytest.mark.parametrize("name", ["url", "socket_url"])
def test_credentials_stay_where_they_are(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Neither configs nor files nor logs nor errors nor what is stored hold the password; this process knows it."""
    monkeypatch.delenv("HPOPT_URL", raising=False)
    with caplog.at_level(logging.DEBUG, "hpopt"):
        hpo = hpopt.create(**SMALL, url=getattr(site, name), save_path=tmp_path, study=tmp_path.name)
        config = sample(hpo)
        assert hpopt.report(config, 1) is RUNNING
        site.kill_server()
        monkeypatch.setenv(outage.DEADLINE, "0.1")
        with pytest.raises(hpopt.HpoptUnavailable) as caught:
            hpopt.report(config, 2)
        site.start()
        monkeypatch.delenv(outage.DEADLINE)
        hpo.close()
    contact = contacts.contact(config)
    shown = [json.dumps(config), repr(hpo), repr(contact.client), repr(hpo._server), str(caught.value), caplog.text]
    assert not [text for text in shown if PASSWORD in text]
    assert config["hpopt"]["url"] == without_credentials(getattr(site, name))
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()]


def test_url_cannot_change_how_we_wait(server: Server) -> None:
    """Options of the URL that would break the protocol are overruled."""
    client = Client(f"{server.url}?socket_timeout=0.001&decode_responses=true&protocol=3&retry_on_timeout=true")
    assert client.call(("SET", "a", "b"), ("GET", "a"), ("XREAD", "BLOCK", 50, "STREAMS", "s", "0")) == [
        b"OK",
        b"b",
        None,
    ]


# The operator's end


def test_operator_that_is_gone(tmp_path: Path) -> None:
    """When the operator of an embedded server has been killed, its trainers fail within 10 seconds."""
    program = """
import json, sys, time
import hpopt
save_path, small = map(json.loads, sys.argv[1:])
space = {"x": hpopt.search_space("uniform", [0, 1])}
hpo = hpopt.create(save_path=save_path, search_space=space, **{**small, "max_iterations": 10**6})
print(json.dumps(hpo.get_next_sample()), flush=True)
time.sleep(60)
"""
    small = {name: value for name, value in SMALL.items() if name != "search_space"}
    operator = start_python(program, str(tmp_path), small)
    config = json.loads(operator.wait_for('^{"'))
    assert hpopt.report(config, 1) is RUNNING
    operator.kill()
    began = time.monotonic()
    with pytest.raises(hpopt.HpoptUnavailable, match=r"the operator that ran unix:.* has ended"):
        train({**config, "iterations": sys.maxsize}, lambda _, step: step)
    assert time.monotonic() - began < 10
