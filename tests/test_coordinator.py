"""Coordinator processes: who owns a study, how it changes hands, and what a bad event does to it."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgpack
import pytest

import hpopt
from hpopt.core.codec import MAX_BYTES, VERSION, decode, encode
from hpopt.core.keys import StudyKeys
from hpopt.core.messages import Ask, Finalize, Verdict
from tests.check_history import stored, violations
from tests.conftest import Create, Quick
from tests.journal import read
from tests.load import start_load
from tests.server import SHORT, Server, until
from tests.studies import curve, run_all, sample, train

LEASE = float(SHORT[1])


def steps(hpo: hpopt.HpOpt, trial: int = 0) -> list[int]:
    """The steps of a trial that are committed, in the order in which they were."""
    return [point.step for point in curve(hpo, trial)]


# --- one of two


def test_a_dead_owner_is_replaced(quick: Quick, study: Create) -> None:
    """When a coordinator is killed another one goes on with its study, at the latest two seconds after its lease."""
    first = quick()
    hpo = study()
    second = quick()
    config = sample(hpo)
    hpopt.report(config, 0.1)
    first.kill()
    began = time.monotonic()
    assert hpopt.report(config, 0.2) is hpopt.Status.RUNNING
    assert time.monotonic() - began < LEASE + 2
    second.wait_for("study loaded")
    assert steps(hpo) == [1, 2]


def test_a_paused_owner_is_fenced(quick: Quick, study: Create) -> None:
    """A coordinator that stood still while another one took over writes nothing when it wakes up, and starts anew."""
    first = quick()
    hpo = study()
    config = sample(hpo)
    hpopt.report(config, 0.1)
    first.pause()
    second = quick()
    second.wait_for("study loaded")
    hpopt.report(config, 0.2)
    first.go_on()
    first.wait_for("study dropped from memory|lease lost")
    hpopt.report(config, 0.3)
    assert steps(hpo) == [1, 2, 3]
    second.kill()
    hpopt.report(config, 0.4)
    first.wait_for("study loaded")
    assert steps(hpo) == [1, 2, 3, 4]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_drained_owner_hands_over_at_once(quick: Quick, study: Create, number: int) -> None:
    """A coordinator that is asked to end gives its leases back: others need not wait for them to run out."""
    first = quick(times=("--lease", "30"))
    hpo = study()
    config = sample(hpo)
    second = quick(times=("--lease", "30"))
    first.signal(number)
    began = time.monotonic()
    second.wait_for("study loaded")
    assert time.monotonic() - began < 1
    assert first.wait() == 0
    first.wait_for("coordinator drained")
    assert train(config)[-1] is hpopt.Status.STOP


def test_a_drained_owner_finishes_what_it_has_read(quick: Quick, study: Create) -> None:
    """Reports that are under way while one coordinator replaces another are each counted once."""
    owner = quick()
    hpo = study(max_iterations=100, num_workers=4)
    configs = [sample(hpo) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        trained = [pool.submit(train, config) for config in configs]
        for _ in range(3):
            successor = quick()
            owner.signal(signal.SIGTERM)
            assert owner.wait() == 0
            owner = successor
        assert all(future.result()[-1] is hpopt.Status.STOP for future in trained)
    assert [steps(hpo, trial) for trial in range(4)] == [list(range(1, 101))] * 4


def test_only_coordinator(server: Server, quick: Quick, study: Create) -> None:
    """An embedded coordinator takes the lease of its dead predecessor at once."""
    first = quick("--embedded", times=("--lease", "30"))
    hpo = study()
    config = sample(hpo)
    first.kill()
    assert server.redis.exists(StudyKeys("default", "run").lease)
    quick("--embedded", times=("--lease", "30"))
    began = time.monotonic()
    hpopt.report(config, 0.1)
    assert time.monotonic() - began < 2


def test_many_studies(quick: Quick, study: Create) -> None:
    """A coordinator keeps many studies at once, and so does the one that takes all of them over."""
    first = quick()
    second = quick()
    hpos = [study(study=f"run{i}", num_trials=2) for i in range(30)]
    first.kill()
    with ThreadPoolExecutor(len(hpos)) as pool:
        finished = list(pool.map(run_all, hpos))
    assert [len(configs) for configs in finished] == [2] * len(hpos)
    assert "Traceback" not in second.output


# --- trainers that die


def test_trials_of_a_dead_operator(server: Server, quick: Quick, tmp_path: Path) -> None:
    """What an operator and its trainers were doing when they were killed is done again, by another operator."""
    quick()
    arguments = {"study": "run", "num_trials": 24, "num_workers": 8, "max_iterations": 20}
    journals = [tmp_path / "first", tmp_path / "second"]
    first = start_load(server.url, journals[0], 4, arguments)
    until(lambda: sum('"done"' in line for line in journals[0].read_text().splitlines()) > 50, "it is at work")
    first.kill()
    signs_of_life = server.keys("hpopt:*:alive:*") + server.keys("hpopt:*:session:*")
    assert len(signs_of_life) >= 2
    server.redis.unlink(*signs_of_life)  # as if they had run out
    second = start_load(server.url, journals[1], 4, arguments)
    assert second.wait(60) == 0, second.output
    study = stored(server.redis, "default/run")
    killed = frozenset(entry["session"] for entry in read(journals[:1]))
    assert violations(read(journals), study, killed) == []
    assert any(trial.attempt == 2 for trial in study.trials)


# --- bad events


BAD = {
    "no msgpack": b"\xc1",
    "no list": msgpack.packb({"t": 1}),
    "empty": b"",
    "an answer": encode(Verdict(1, "", 0, 0)),
    "another version": msgpack.packb([VERSION + 2, 1, "u", "s", 0]),
    "unknown type": msgpack.packb([VERSION, 99]),
    "missing field": msgpack.packb([VERSION, 1, "u"]),
    "wrong field": msgpack.packb([VERSION, 1, "u", "s", "many"]),
    "broken spec": msgpack.packb([VERSION, 0, "u", "s", {"search_space": [[]]}]),
    "a bomb": b"\xdd\x7f\xff\xff\xff",
    "nested": b"\x91" * 1000,
    "too long": b"\x00" * (MAX_BYTES + 1),
}


def test_dead_letters(server: Server, quick: Quick, study: Create) -> None:
    """What is no event is put aside with the reason, and the events around it are handled."""
    coordinator = quick()
    hpo = study()
    config = sample(hpo)
    keys = StudyKeys("default", "run")
    for payload in BAD.values():
        server.redis.xadd(keys.inbox, {"e": payload})
    server.redis.xadd(keys.inbox, {"other": "field"})
    assert hpopt.report(config, 0.5) is hpopt.Status.RUNNING
    letters: Any = server.redis.xrange(keys.dead)
    assert [fields[b"head"] for _, fields in letters] == [payload[:1024] for payload in [*BAD.values(), b""]]
    assert all(fields[b"reason"] for _, fields in letters)
    assert coordinator.output.count("message refused") == len(BAD) + 1
    assert "Traceback" not in coordinator.output


def test_a_poisoned_event(server: Server, quick: Quick, study: Create) -> None:
    """An event that the coordinator cannot handle is put aside after some tries, and its sender is told to stop."""
    coordinator = quick("--fault", "poison:1:report")
    hpo = study(num_workers=2)
    good, bad = sample(hpo), sample(hpo)
    hpopt.report(good, 0.1)
    with ThreadPoolExecutor(2) as pool:
        refused, accepted = pool.submit(hpopt.report, bad, 0.2), pool.submit(hpopt.report, good, 0.3)
        assert refused.result() is hpopt.Status.STOP
        assert accepted.result() is hpopt.Status.RUNNING
    coordinator.wait_for("event put aside")
    assert hpopt.report(good, 0.4) is hpopt.Status.RUNNING
    assert (steps(hpo, 0), steps(hpo, 1)) == ([1, 2, 3], [])
    letters: Any = server.redis.xrange(StudyKeys("default", "run").dead)
    assert len(letters) == 1


def test_a_poisoned_event_kills_nobody_else(quick: Quick, study: Create) -> None:
    """While one study stumbles over an event, another one goes on without a pause."""
    coordinator = quick("--fault", "poison:1:report")
    hpo, other = study(num_workers=2), study(study="other", num_workers=1)
    config = sample(other)
    _, bad = sample(hpo), sample(hpo)
    with ThreadPoolExecutor(1) as pool:
        refused = pool.submit(hpopt.report, bad, 0.2)
        train(config)
        assert refused.result() is hpopt.Status.STOP
    assert "study=default/other" not in "\n".join(line for line in coordinator.lines if "dropped" in line)


def test_progress_clears_the_suspicion(server: Server, quick: Quick, study: Create) -> None:
    """After a few deaths without progress events are tried one by one; when that has gone well, in batches again."""
    first = quick()
    hpo = study(max_iterations=100)
    config = sample(hpo)
    first.kill()
    keys = StudyKeys("default", "run")
    server.redis.hset(keys.meta, "starts", 7)
    quick()
    hpopt.report(config, 0.1)
    assert server.redis.hget(keys.meta, "marks") == b"1"
    assert server.redis.hget(keys.meta, "starts") == b"0"
    train(config)
    suspect: Any = server.redis.hget(keys.meta, "suspect")
    cursor: Any = server.redis.hget(keys.meta, "cursor")
    assert suspect < cursor


def test_events_of_nobody(server: Server, quick: Quick, study: Create) -> None:
    """Events of trials, sessions or incarnations that do not exist are answered, and change nothing."""
    quick()
    hpo = study()
    keys = StudyKeys("default", "run")
    server.redis.xadd(keys.inbox, {"e": encode(Finalize("another", 0, 1))})
    server.redis.xadd(keys.inbox, {"e": encode(Finalize(hpo.uid, 77, 1))})
    server.redis.xadd(keys.inbox, {"e": encode(Ask("another", "nobody", 0))})
    sample(hpo)
    refusals: Any = server.redis.xrange(keys.replies("nobody"))
    assert [decode(fields[b"r"]).code for _, fields in refusals] == ["replaced"]
    assert len(hpo.trials()) == 1
