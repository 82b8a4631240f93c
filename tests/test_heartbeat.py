import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

import hpopt
from coordinator.timing import EMBEDDED, SERVED, Silence, Timing
from hpopt import contacts
from hpopt.client import Client
from hpopt.contact import Contact
from hpopt.embedded import EmbeddedServer
from hpopt.heartbeat import Heart, interval_for
from tests.conftest import Create
from tests.server import SHORT, Server, until
from tests.studies import sample, states, train

RUNNING, STOP = hpopt.Status.RUNNING, hpopt.Status.STOP
GRACE, TICK = float(SHORT[3]), float(SHORT[7])


@pytest.fixture
def raw(embedded: EmbeddedServer) -> Iterator[redis.Redis]:
    """The embedded server, as it is."""
    with redis.Redis.from_url(embedded.url) as client:
        yield client


@pytest.fixture
def heart(server: Server, monkeypatch: pytest.MonkeyPatch) -> Heart:
    """A heart for the private server that beats fast."""
    monkeypatch.setattr("hpopt.heartbeat.interval_for", lambda _: 0.05)
    return Heart(Client(server.url))


def test_beats_are_rarer_on_a_shared_server() -> None:
    """Every 2 seconds on this machine, every 15 seconds over the network."""
    assert [interval_for(url) for url in ("unix:///run/s", "redis://:x@127.0.0.1:7000", "redis://[::1]")] == [2] * 3
    assert [interval_for(url) for url in ("rediss://host", "redis+sentinel://127.0.0.1:1/service")] == [15] * 2


@pytest.mark.parametrize(
    ("timing", "url"),
    [
        (EMBEDDED, "unix:///run/s"),
        (SERVED, "redis://localhost:7000"),
        (SERVED, "redis://through.a.tunnel:7000"),
        (Timing(), "redis://host"),
    ],
)
def test_hearts_beat_often_enough(timing: Timing, url: str) -> None:
    """A beat that is missed once loses no trial, and who has died is given up before his successor is refused."""
    heart = Heart(Client(url))
    assert timing.grace >= 2 * heart.interval
    assert timing.takeover > heart.expiry / 1000 + timing.tick


def test_key_is_refreshed_and_let_go(server: Server, heart: Heart) -> None:
    """The expiry of a key is put off again and again, without writing it anew; what is removed is gone at once."""
    heart.add("a")
    heart.add("b")
    until(lambda: server.keys("*") == ["a", "b"], "two keys")
    server.redis.set("a", "as it was", px=100_000)
    until(lambda: 0 < server.redis.pttl("a") <= heart.expiry, "a new expiry")
    assert server.redis.get("a") == b"as it was"
    heart.remove("a")
    heart.remove("a")
    assert server.keys("*") == ["b"]


def test_key_comes_back(server: Server, heart: Heart) -> None:
    """A key that a restart of the server has lost is set again, without anybody's doing."""
    server.settings["appendonly"] = "no"
    server.restart()
    heart.add("a")
    until(lambda: server.keys("*") == ["a"], "the key")
    server.restart()
    until(lambda: server.keys("*") == ["a"], "the key again")


def test_thread_ends_with_the_last_key(heart: Heart) -> None:
    """A heart without keys has no thread; one that is needed again has a new one."""
    for _ in range(2):
        heart.add("a")
        thread = heart._thread
        assert thread is not None
        heart.remove("a")
        until(lambda thread=thread: not thread.is_alive(), "the end of the thread")  # type: ignore[misc]
        assert heart._thread is None


def test_heart_of_a_trial(create: Create, raw: redis.Redis) -> None:
    """A trial has a heartbeat from its first contact until its end, a session until it is closed."""
    hpo = create(num_trials=1)
    config = sample(hpo)
    key = contacts.contact(config).alive_key
    assert not raw.exists(key)
    hpopt.report(config, 0.5)
    until(lambda: bool(raw.exists(key)), "the heartbeat")
    assert train(config)[-1] is STOP
    assert not raw.exists(key)
    session = hpo._keys.session(hpo.session)
    assert raw.exists(session)
    hpo.close()
    assert not raw.exists(session)


def test_heart_of_a_trial_that_was_left_behind(create: Create) -> None:
    """When a trial was finalized because its training returned early, its heartbeat ends as well."""
    hpo = create(num_trials=6, num_init_trials=2)
    while (config := hpo.get_next_sample()) is not None:
        hpopt.report(config, 0.5)
    assert states(hpo) == ["stopped"] * 6
    keys = hpo._server.heart._keys
    assert [key for key in keys if hpo._keys.prefix in key] == [hpo._keys.session(hpo.session)]


def test_silent_trial_is_handed_out_again(create: Create) -> None:
    """A trial without a heartbeat is lost, and begun again once; its first trainer is told to stop."""
    hpo = create(num_trials=1)
    config = sample(hpo)
    hpopt.report(config, 0.9)
    contacts.contact(config).fall_silent()
    until(lambda: states(hpo) == ["lost"], "the loss")
    again = sample(hpo)
    assert (again["trial_id"], again["attempt"], again["params"]) == (0, 2, config["params"])
    assert hpopt.report(config, 1.0) is STOP
    hpopt.report(again, 0.5)
    contacts.contact(again).fall_silent()
    until(lambda: states(hpo) == ["failed"], "the second loss")
    assert [trial.score for trial in hpo.trials()] == [0.9], "what came too late does not count"
    assert hpo.get_next_sample() is None


def come_back(create: Create) -> tuple[hpopt.HpOpt, dict[str, Any], Contact]:
    """A study whose only trial was lost, and is trained again by the process that had it."""
    hpo = create(num_trials=1)
    config = sample(hpo)
    hpopt.report(config, 0.5)
    contact = contacts.contact(config)
    contact.fall_silent()
    until(lambda: states(hpo) == ["lost"], "the loss")
    assert hpopt.report(config, 0.6) is RUNNING
    return hpo, config, contact


def test_silent_trial_that_comes_back(create: Create) -> None:
    """Until it is handed out again, a lost trial goes on where it was, with its heartbeat."""
    hpo, config, contact = come_back(create)
    assert states(hpo) == ["running"]
    assert contact.alive_key in contact.heart._keys
    assert train(config)[-1] is STOP
    assert states(hpo) == ["completed"]


def test_trial_that_came_back_is_not_lost_at_once(create: Create) -> None:
    """A trainer that comes back has the whole grace period again for its next beat; a second loss is the last."""
    hpo, _, contact = come_back(create)
    contact.fall_silent()
    back = time.monotonic()
    until(lambda: states(hpo) == ["failed"], "the second loss")
    assert time.monotonic() - back > GRACE - TICK


def test_silence_that_was_acted_on_is_over() -> None:
    """Who is missing again, after having come back unseen between two looks, is newly silent."""
    silence = Silence()
    for now in (0.0, 5.0, 10.0):
        silence.update({"a", "b"}, now)
    assert silence.lasting(10, 10.0) == {"a", "b"}
    silence.forget({"a"})
    silence.update({"a", "b"}, 11.0)
    assert silence.lasting(10, 11.0) == {"b"}
    assert silence.lasting(10, 21.0) == {"a", "b"}


def test_forked_child_has_a_heart_of_its_own(heart: Heart) -> None:
    """After a fork the child beats for none of the parent's keys, and for its own in a thread of its own."""
    heart.add("a")
    before = heart._thread
    heart.after_fork()
    assert heart._keys == set()
    heart.add("b")
    assert heart._thread is not before
    assert heart._keys == {"b"}
