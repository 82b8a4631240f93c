"""The process that fits surrogates, and what happens to studies when it fails.

One that dies or hangs in the middle of a request, and its single BLAS thread, are in test_pitfalls.py.
"""

import asyncio
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import pytest

import hpopt
from coordinator.suggest import Suggester
from hpopt.core.space import Space
from hpopt.core.suggest_request import Observation, SuggestRequest
from hpopt.samplers.base import suggest
from tests.conftest import Create, Start
from tests.server import Program, until
from tests.simulation import Simulation
from tests.studies import SPACE, accuracy, run_all, sample, train

WITHOUT = "model failed, suggesting without it"
looks_into_proc = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture(scope="module")
def suggester() -> Iterator[Suggester]:
    """A fitting process, the only child of this process that multiprocessing has started."""
    its = Suggester()
    yield its
    its.close()


def modelled(**changes: Any) -> SuggestRequest:
    """A request that the model answers."""
    spec = Simulation(seed=7).spec(search_space=Space(SPACE), num_trials=50, max_iterations=10, **changes)
    points = suggest(SuggestRequest(spec, 0, 20), model=False)
    results = (Observation(each, accuracy({"params": each}, 9), 9, complete=True) for each in points)
    return SuggestRequest(spec, 20, 2, tuple(results))


def fails_with_a_model() -> SuggestRequest:
    """A request whose kappa cannot be calculated with."""
    request = modelled(acquisition="ucb")
    return replace(request, spec=replace(request.spec, kappa="wide"))  # type: ignore[arg-type]


def own_process() -> multiprocessing.process.BaseProcess:
    """The suggester's."""
    (process,) = multiprocessing.active_children()
    return process


def fitting_process(coordinator: Program) -> int:
    """The process id of the coordinator's only fitting process, as soon as it is there."""
    found: list[int] = []

    def look() -> bool:
        tasks = Path(f"/proc/{coordinator.pid}/task").glob("*/children")
        children = [int(pid) for task in tasks for pid in task.read_text(encoding="ascii").split()]
        found[:] = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        return bool(found)

    until(look, "a fitting process")
    return found[0]


# --- alone


def test_a_model_that_raises(suggester: Suggester, caplog: pytest.LogCaptureFixture) -> None:
    """It costs a warning and a suggestion without a model; the process stays."""
    request = fails_with_a_model()
    asyncio.run(suggester.suggest(modelled()))
    before = own_process().pid
    assert asyncio.run(suggester.suggest(request)) == suggest(request, model=False)
    (record,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert (record.name, record.levelname, record.message) == ("hpopt.coordinator", "WARNING", WITHOUT)
    assert own_process().pid == before


def test_a_request_without_an_answer(suggester: Suggester) -> None:
    """What fails without a model too is raised; the next request is answered."""
    request = modelled()
    with pytest.raises(ValueError, match="seed"):
        asyncio.run(suggester.suggest(replace(request, spec=replace(request.spec, seed=None))))
    assert asyncio.run(suggester.suggest(request)) == suggest(request)


def test_a_request_that_is_given_up(suggester: Suggester) -> None:
    """When a study is dropped while it waits for a suggestion, the other studies' requests are answered as before."""
    request = modelled()

    async def given_up() -> list[dict[str, Any]]:
        task = asyncio.create_task(suggester.suggest(modelled(seed=8)))
        await asyncio.sleep(0)  # it has been sent
        task.cancel()
        return await suggester.suggest(request)

    assert asyncio.run(given_up()) == suggest(request)


def test_a_process_that_cannot_be_started(suggester: Suggester, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the machine has no room for another process, requests fail; later they are answered as before."""
    request = modelled()

    def refused(_process: SpawnProcess) -> None:
        raise BlockingIOError("no more processes")

    asyncio.run(suggester.suggest(request))
    with monkeypatch.context() as full:
        full.setattr(SpawnProcess, "start", refused)
        process = own_process()
        process.kill()
        process.join()
        for _ in range(2):
            with pytest.raises(BlockingIOError):
                asyncio.run(suggester.suggest(request))
    assert asyncio.run(suggester.suggest(request)) == suggest(request, model=False)  # it found the process missing
    assert asyncio.run(suggester.suggest(request)) == suggest(request)


# --- in a study


@looks_into_proc
def test_a_study_outlives_its_fitting_process(start: Start, study: Create) -> None:
    """While a fit hangs, prepared suggestions are handed out and reports answered; its death costs one warning."""
    coordinator = start()
    hpo = study(num_init_trials=2, num_trials=10, num_workers=4)
    for config in [sample(hpo), sample(hpo)]:
        train(config)
    configs = [sample(hpo)]  # from the model, which has prepared one for each worker
    process = fitting_process(coordinator)
    os.kill(process, signal.SIGSTOP)
    configs += [sample(hpo) for _ in range(3)]
    assert [hpopt.report(config, 0.5) for config in configs] == [hpopt.Status.RUNNING] * 4
    train(configs[0])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(sample, hpo)
        os.kill(process, signal.SIGKILL)
        configs.append(waiting.result())
    coordinator.wait_for(WITHOUT)
    for config in configs[1:]:
        train(config)
    run_all(hpo)
    assert [trial.state for trial in hpo.trials()] == ["completed"] * 10
    assert coordinator.output.count(WITHOUT) == 1
    assert "Traceback" not in coordinator.output


@looks_into_proc
def test_no_fitting_process_without_its_coordinator(start: Start) -> None:
    """It ends with the coordinator, also when that is killed."""
    coordinator = start()
    stat = Path(f"/proc/{fitting_process(coordinator)}/stat")
    coordinator.kill()
    until(lambda: not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z", "its end")
