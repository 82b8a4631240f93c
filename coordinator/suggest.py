"""The process that fits surrogates, so that the event loop never waits for one."""

import asyncio
import logging
import multiprocessing
import os
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing.connection import wait
from typing import Any

from hpopt.core.suggest_request import Observation, SuggestRequest

TIMEOUT = 60.0
"""Seconds a suggestion may take before its process is given up."""
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")

Known = tuple[dict[str, Any], float | None, int, bool, tuple[tuple[int, float], ...]]
"""The fields of an Observation."""

log = logging.getLogger("hpopt.coordinator")


class Suggester:
    """Computes suggestions in a process of its own, with one BLAS thread; a crash or a hang costs a new process."""

    def __init__(self) -> None:
        """Starts the process at once: its imports take a second."""
        self._pool = self._start()
        self._turn = asyncio.Lock()
        """One request at a time: of what kills or hangs the process, no other study's request is a victim."""
        self._work: Future[list[dict[str, Any]]] | None = None
        """The latest request: still computed, if who asked does not wait any more."""

    async def suggest(self, request: SuggestRequest) -> list[dict[str, Any]]:
        """The suggestions asked for; without a model, and a line in the log, if the model fails.

        Raises RuntimeError when the process died or hung again; it has been replaced then.
        """
        try:
            return await self._run(request, model=True)
        except Exception as error:  # noqa: BLE001 - whatever a fit dies of, the study goes on with its initial design
            log.warning("model failed, suggesting without it", extra={"detail": f"{type(error).__name__}: {error}"})
            return await self._run(request, model=False)

    async def _run(self, request: SuggestRequest, *, model: bool) -> list[dict[str, Any]]:
        async with self._turn:
            if self._work is not None and not self._work.done():
                self._replace()  # it would be waited for, and what takes long may never end
            try:
                self._work = self._pool.submit(_suggest, *_plain(request), model)
                async with asyncio.timeout(TIMEOUT):
                    return await asyncio.wrap_future(self._work)
            except (BrokenProcessPool, TimeoutError) as error:
                self._replace()
                what = "died" if isinstance(error, BrokenProcessPool) else "hung"
                raise RuntimeError(f"the fitting process {what}") from error

    def _replace(self) -> None:
        self.close()
        self._pool, self._work = self._start(), None

    def close(self) -> None:
        """End the process, whatever it is doing."""
        for process in multiprocessing.active_children():
            process.kill()
        self._pool.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    def _start() -> ProcessPoolExecutor:
        for name in THREADS:  # read by the libraries when the new process imports them
            os.environ[name] = "1"
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(1, mp_context=context, initializer=_prepare)
        pool.submit(_warm_up)
        return pool


def _prepare() -> None:
    """Runs first in the new process: it must not outlive its parent, however that dies."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()


def _die_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(0)


def _warm_up() -> None:
    import hpopt.samplers.base  # noqa: F401 - the import is the work


def _plain(request: SuggestRequest) -> tuple[SuggestRequest, list[Known], list[Known]]:
    """The request without its observations, and these, ended and running, as tuples.

    Pickling a thousand instances holds up the coordinator's other threads, and with them every report, for 2 ms.
    """
    return replace(request, observations=(), running=()), _tuples(request.observations), _tuples(request.running)


def _tuples(observations: Iterable[Observation]) -> list[Known]:
    return [(each.params, each.score, each.steps, each.complete, each.marks) for each in observations]


def _suggest(request: SuggestRequest, ended: list[Known], running: list[Known], model: bool) -> list[dict[str, Any]]:
    from hpopt.samplers.base import suggest  # numpy and scipy stay out of the coordinator itself

    observations, others = (tuple(Observation(*each) for each in known) for known in (ended, running))
    return suggest(replace(request, observations=observations, running=others), model=model)
