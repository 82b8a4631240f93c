"""What goes wrong with the server, and how coordinators and clients say so."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import hpopt
from hpopt.core.codec import encode
from hpopt.core.keys import COORDINATORS, CREATED, STUDIES, StudyKeys
from hpopt.core.messages import Finalize, Report
from tests.check_history import stored
from tests.conftest import Create, Quick
from tests.server import Server, start_coordinator, until
from tests.studies import curve, run_all, sample, train

KEYS = StudyKeys("default", "run")
QUICK = "tests.faulty_coordinator"
REFUSED = 2


def steps(server: Server, hpo: hpopt.HpOpt) -> int:
    """How many points are committed of trial 0."""
    length: Any = server.redis.strlen(KEYS.curve(hpo.uid, 0))
    return int(length // 14)


# --- a server that fails


def test_restart_of_the_server(server: Server, quick: Quick, study: Create) -> None:
    """Whoever waits when the server is killed goes on when it is there again, and nothing has happened twice."""
    quick()
    hpo = study(num_workers=1, num_init_trials=1, max_iterations=50)
    config = sample(hpo)
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(hpo.get_next_sample)
        answers = pool.submit(train, config)
        for count in (10, 20, 30):
            until(lambda count=count: steps(server, hpo) >= count, f"{count} reports are acknowledged")  # type: ignore[misc]
            server.restart()
        assert answers.result()[-1] is hpopt.Status.STOP
        following = waiting.result()
    assert [step for _, step, _ in stored(server.redis, KEYS.path).trials[0].points] == list(range(1, 51))
    assert following is not None
    assert following["trial_id"] == 1


def test_out_of_memory(server: Server, quick: Quick, study: Create) -> None:
    """While the server is out of memory nobody is given up and nothing is lost; with room again all goes on."""
    coordinator = quick()
    hpo = study()
    config = sample(hpo)
    hpopt.report(config, 0.1)
    server.redis.config_set("maxmemory", 1)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(hpopt.report, config, 0.2)
        coordinator.wait_for("leases not renewed")
        assert not answer.done()
        server.redis.config_set("maxmemory", 0)
        assert answer.result() is hpopt.Status.RUNNING
    assert [point.step for point in curve(hpo, 0)] == [1, 2]
    assert "handed out again" not in coordinator.output
    assert "Traceback" not in coordinator.output


def test_a_server_that_lost_everything(server: Server, quick: Quick, study: Create) -> None:
    """Trainers and operators are told that their study is gone; nobody makes it anew by himself."""
    coordinator = quick()
    hpo = study()
    config = sample(hpo)
    server.redis.flushall()
    with pytest.raises(hpopt.UnknownStudy, match="lost its data"):
        hpopt.report(config, 0.1)
    with pytest.raises(hpopt.UnknownStudy):
        hpo.get_next_sample()
    again = study()
    assert again.uid != hpo.uid
    assert len(run_all(again)) == 6
    assert "Traceback" not in coordinator.output


@pytest.mark.parametrize("key", [KEYS.meta, KEYS.lease, KEYS.inbox, "curve", "trials", "verdicts"])
def test_a_key_of_a_neighbour(server: Server, quick: Quick, study: Create, key: str) -> None:
    """A study of which somebody else has overwritten a key is set aside, and the other studies go on."""
    coordinator = quick()
    hpo, other = study(), study(study="other")
    sample(hpo)
    server.redis.xadd(KEYS.inbox, {"e": encode(Report(hpo.uid, 0, 1, "life", 1, 0.1))})
    until(lambda: steps(server, hpo) == 1, "the study is at work")
    named = {"curve": KEYS.curve(hpo.uid, 0), "trials": KEYS.trials(hpo.uid), "verdicts": KEYS.verdicts(hpo.uid, 0)}
    name = named.get(key, key)
    server.redis.delete(name)
    server.redis.sadd(name, "a neighbour's")
    if name != KEYS.inbox:
        server.redis.xadd(KEYS.inbox, {"e": encode(Report(hpo.uid, 0, 1, "life", 2, 0.2))})
        server.redis.xadd(KEYS.inbox, {"e": encode(Finalize(hpo.uid, 0, 1))})
    coordinator.wait_for("study set aside study=default/run .*another program writes under this prefix")
    assert train(sample(other))[-1] is hpopt.Status.STOP
    assert "Traceback" not in coordinator.output
    assert coordinator.output.count("study set aside") == 1


@pytest.mark.parametrize("key", [STUDIES, CREATED, COORDINATORS])
def test_common_keys_of_a_neighbour(server: Server, quick: Quick, study: Create, key: str) -> None:
    """Even the keys that all studies share may be overwritten: what goes on is not disturbed."""
    coordinator = quick()
    hpo = study()
    server.redis.delete(key)
    server.redis.hset(key, "a neighbour's", 1)
    assert len(run_all(hpo)) == 6
    server.redis.delete(key)
    assert len(run_all(study(study="another"))) == 6
    assert coordinator.returncode is None


def test_members_that_are_no_studies(server: Server, quick: Quick, study: Create) -> None:
    """Whatever else stands among the studies is named, and passed over."""
    server.redis.sadd(STUDIES, b"\xff\xfe", "no slash", "a/b/c", "")
    coordinator = quick()
    assert len(run_all(study())) == 6
    assert coordinator.output.count("not a study") == 4


# --- servers that will not do


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"maxmemory_policy": "allkeys-lru"}, "maxmemory-policy is allkeys-lru: set it to noeviction"),
        ({"appendonly": "no"}, "the append-only file is off: set appendonly yes"),
        ({"replicaof": "127.0.0.1 1"}, "the server is a replica: give the URL of the primary"),
    ],
)
def test_unfit_servers(tmp_path: Path, settings: dict[str, str], words: str) -> None:
    """A server that would lose studies is refused, with the remedy; at one's own risk most are taken."""
    server = Server(tmp_path, **settings).start()
    try:
        refused = start_coordinator(server.url, "--quick", module=QUICK)
        assert refused.wait() == REFUSED
        assert words in refused.output
        allowed = start_coordinator(server.url, "--quick", module=QUICK, environment={"HPOPT_ALLOW_VOLATILE": "1"})
        if "replicaof" in settings:
            assert allowed.wait() == REFUSED
        else:
            allowed.wait_for("coordinator ready")
            assert words in allowed.wait_for("server is volatile")
        allowed.kill()
    finally:
        server.close()
