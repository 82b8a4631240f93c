import asyncio
import multiprocessing
import os
import pickle
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import hpopt
from hpopt import contacts, server
from hpopt.embedded import EmbeddedServer
from tests.conftest import Create
from tests.studies import TRAINER, curve, run_python, sample, states, train

# Python 3.12 and later warn of a fork in a process with threads. The shim has threads, and users fork (a DataLoader
# does): that a child works all the same, whatever those threads held at that moment, is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

RUNNING, STOP = hpopt.Status.RUNNING, hpopt.Status.STOP


def number(config: dict[str, Any], step: int) -> float:
    """A score that no other report has."""
    return float(1000 * config["trial_id"] + step)


def expect(hpo: hpopt.HpOpt, config: dict[str, Any]) -> None:
    """Every step of the trial is committed once, with the score of its own."""
    found = [(point.step, point.score) for point in curve(hpo, config["trial_id"])]
    assert found == [(step, number(config, step)) for step in range(1, config["iterations"] + 1)]


def forked(work: Callable[[], object]) -> Callable[[], None]:
    """Do some work in a forked child; call the result to wait for its good end."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(status)

    def join() -> None:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    return join


# Threads


def test_threads_with_a_trial_each(create: Create) -> None:
    """Eight threads report for eight trials at once; each gets its own answers."""
    hpo = create(num_trials=8, num_init_trials=8, max_iterations=20)
    configs = hpo.get_next_samples()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda config: train(config, number), configs))
    assert answers == [[RUNNING] * 19 + [STOP]] * 8
    for config in configs:
        expect(hpo, config)


def test_threads_with_one_trial(create: Create) -> None:
    """Two threads that report for the same trial get a step each for every report."""
    hpo = create(num_trials=1, max_iterations=20)
    config = sample(hpo)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda score: hpopt.report(config, score), range(20)))
    points = curve(hpo, 0)
    assert [point.step for point in points] == list(range(1, 21))
    assert {point.score for point in points} == set(range(20))
    assert answers.count(STOP) == 1


def test_threads_that_wait_for_samples(create: Create) -> None:
    """Of six threads that ask and train, two at a time get a trial; every trial is handed out once."""
    hpo = create(num_trials=12, num_init_trials=1, num_workers=2, max_iterations=2)
    trials: list[int] = []

    def work(_: int) -> None:
        while (config := hpo.get_next_sample()) is not None:
            trials.append(config["trial_id"])
            train(config, number)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert sorted(trials) == list(range(12))
    assert states(hpo) == ["completed"] * 12


def test_nothing_is_left_of_ended_threads(create: Create, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many threads have come and gone, no thread, descriptor or contact stays behind."""
    monkeypatch.setattr(contacts, "REMEMBERED", 16)
    hpo = create(search_alg="asha", min_iterations=1, num_trials=150, max_iterations=1)
    left = []
    while (config := hpo.get_next_sample()) is not None:
        thread = threading.Thread(target=train, args=(config, number))
        thread.start()
        thread.join()
        left.append((threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))))
    assert states(hpo) == ["completed"] * 150
    threads, descriptors = map(max, zip(*left[20:], strict=True))
    assert (threads, descriptors) <= (left[20][0], left[20][1] + 5), "but for the files that the mirror writes"
    assert sum(key[1] == hpo.uid for key in contacts._contacts) <= 17


def test_inside_a_running_event_loop(create: Create) -> None:
    """The shim is synchronous, and works in a coroutine as anywhere."""
    hpo = create(num_trials=1, max_iterations=3)

    async def main() -> list[hpopt.Status]:
        config = sample(hpo)
        return [hpopt.report(config, 0.5), await asyncio.to_thread(hpopt.report, config, 0.5), hpopt.report(config, 1)]

    assert asyncio.run(main()) == [RUNNING, RUNNING, STOP]


# Processes


def test_forked_child_and_parent_report_at_once(create: Create) -> None:
    """A thousand calls of a child and its parent, each for a trial of its own, do not get into each other's way."""
    hpo = create(num_trials=2, max_iterations=500)
    mine, its = hpo.get_next_samples()
    hpopt.report(mine, number(mine, 1))  # the parent is connected
    join = forked(lambda: train(its, number))
    for step in range(2, 501):
        hpopt.report(mine, number(mine, step))
    join()
    expect(hpo, mine)
    expect(hpo, its)


def test_fork_while_every_lock_is_held(create: Create) -> None:
    """What other threads of the parent held at the fork does not hold up the child."""
    hpo = create(num_trials=2)
    mine, its = hpo.get_next_samples()
    hpopt.report(mine, 0.5)
    contact = contacts.contact(mine)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with contact.lock, contact.heart._lock, contacts._lock, server._lock:
            held.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    join = forked(lambda: (train(its, number), hpopt.report(mine, 0.5), contacts.contact(dict(its))))
    done.set()
    join()
    holder.join()
    expect(hpo, its)
    assert hpopt.report(mine, 0.5) is RUNNING  # step 2 again: the first one wins
    assert [point.step for point in curve(hpo, mine["trial_id"])] == [1, 2]


def test_child_that_ends_by_itself_disturbs_nobody(create: Create) -> None:
    """A forked child that exits with all its handlers leaves the parent's session, connection and heartbeat alone."""
    hpo = create(num_trials=2)
    program = """
import json, os, sys
import hpopt
study, url = map(json.loads, sys.argv[1:])
hpo = hpopt.join(study, url)
config = hpo.get_next_sample()
hpopt.report(config, 0.5)
if os.fork() == 0:
    sys.exit()
print(os.waitstatus_to_exitcode(os.wait()[1]), hpopt.report(config, 0.6).name, hpo.get_next_sample()["trial_id"])
"""
    assert run_python(program, hpo.study, hpo.url) == ["0 RUNNING 1"]
    assert states(hpo)[0] == "waiting", "only the end of the operator's own process gives its trial back"


def test_child_that_goes_on_with_the_parents_trial_has_its_own_heartbeat(create: Create) -> None:
    """The heartbeat does not depend on the parent, which may have ended."""
    hpo = create()
    config = sample(hpo)
    hpopt.report(config, 0.5)

    def go_on() -> None:
        assert hpopt.report(config, 0.6) is RUNNING
        contact = contacts.contact(config)
        assert contact.heart._keys == {contact.alive_key}
        assert contact.heart._thread is not None
        assert contact.heart._thread.is_alive()

    forked(go_on)()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_pool_of_processes(create: Create, embedded: EmbeddedServer, method: str) -> None:
    """Trials can be trained in a pool, however it makes its processes."""
    hpo = create(num_trials=4)
    configs = hpo.get_next_samples()
    hpopt.report(configs[0], 0.5)
    with multiprocessing.get_context(method).Pool(2) as pool:
        answers = pool.map(train, configs[1:])
    assert answers == [[RUNNING] * 3 + [STOP]] * 3
    assert train(configs[0])[-1] is STOP
    assert states(hpo) == ["completed"] * 4
    assert embedded.pid


def test_data_loader_with_workers(create: Create) -> None:
    """The children of a DataLoader come and go between reports."""
    hpo = create(num_trials=1)
    config = sample(hpo)
    dataset = hpopt.createHpoDataset(TensorDataset(torch.arange(20.0)), config)
    for _ in range(config["iterations"]):
        loaded = DataLoader(dataset, batch_size=5, num_workers=2, multiprocessing_context="fork")
        hpopt.report(config, sum(batch.sum() for (batch,) in loaded))
    assert [point.score for point in curve(hpo, 0)] == [190.0] * 4


def test_second_process_of_an_attempt_cannot_end_it(create: Create) -> None:
    """Whoever comes second to an attempt is told to stop; finalizing it then says nothing about the first."""
    hpo = create(num_trials=1)
    config = sample(hpo)
    hpopt.report(config, 0.5)
    program = f"{TRAINER}\nhpopt.finalize_trial(config, crashed=True)\nhpopt.reportOOM(config)"
    assert run_python(program, config) == ["STOP"]
    assert states(hpo) == ["running"]
    assert hpopt.report(config, 0.6) is RUNNING


def test_operator_stays_in_its_process(create: Create) -> None:
    """An HpOpt cannot be pickled, and does nothing in a forked child."""
    hpo = create()
    with pytest.raises(TypeError, match="an HpOpt cannot be pickled: pass configs"):
        pickle.dumps(hpo)

    def misuse() -> None:
        for call in (hpo.get_next_sample, hpo.get_next_samples, hpo.trials):
            with pytest.raises(ValueError, match="belongs to the process that created it"):
                call()
        hpo.close()

    forked(misuse)()
    assert hpo.get_next_sample() is not None


# Requests that were given up


def test_given_up_requests_are_not_mixed_up(create: Create) -> None:
    """To wait for the end in vain, and then to ask for a sample, are two requests; and the other way round."""
    hpo = create(num_trials=2, num_init_trials=1)
    first = sample(hpo)
    for _ in range(2):
        for wait in (partial(hpo.get_best_config, wait=True, timeout=0.05), partial(hpo.get_next_sample, timeout=0)):
            with pytest.raises(TimeoutError, match="num_workers=1, and under way are the trials 0"):
                wait()
    forked(partial(train, first, number))()
    second = sample(hpo)
    assert second["trial_id"] == 1
    forked(partial(train, second, number))()
    assert hpo.get_next_sample() is None
    assert hpo.get_best_config(wait=True) is not None


def test_samples_of_an_interrupted_call_are_handed_out_by_the_next(
    create: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in get_next_samples() loses none of the samples that it had already."""
    hpo = create(num_trials=3, num_init_trials=3)
    ask = hpo._session.ask
    answers: list[object] = []

    def interrupted(mode: str, timeout: float | None = None) -> object:
        if len(answers) == 2:
            raise KeyboardInterrupt
        answers.append(ask(mode, timeout))
        return answers[-1]

    with monkeypatch.context() as patch:
        patch.setattr(hpo._session, "ask", interrupted)
        with pytest.raises(KeyboardInterrupt):
            hpo.get_next_samples()
    assert [config["trial_id"] for config in hpo.get_next_samples()] == [0, 1, 2]
