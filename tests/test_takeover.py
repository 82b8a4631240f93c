"""What a coordinator does when it takes a study over, before it serves it."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import msgpack

from coordinator.keeper import Keeper
from coordinator.store import Store
from coordinator.suggest import Suggester
from coordinator.timing import Timing
from hpopt.core.curve import unpack
from hpopt.core.keys import StudyKeys
from hpopt.core.trial import Trial
from tests.committed import snapshot
from tests.simulation import Simulation, created


class Shelf:
    """A store that holds a simulated study, and gives its trials out one at a time."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.keeper: Keeper | None = None
        self.taken_in: list[int] = []
        """How many trials had been taken in whenever others had their turn."""

    def link(self, keys: StudyKeys) -> Any:
        """No connection is needed before the study is served."""
        return SimpleNamespace(study=keys.path)

    async def load(self, keys: StudyKeys, uid: str) -> AsyncIterator[list[tuple[Trial, list[Any]]]]:
        """See Store."""
        del keys, uid
        committed = self.sim.committed
        for trial_id, record in sorted(committed.records.items()):
            assert self.keeper is not None
            self.taken_in.append(len(self.keeper.study.trials))
            curve = bytes(committed.curves.get(trial_id, b""))
            yield [(Trial.from_wire(msgpack.unpackb(record)), list(unpack(curve)))]


def test_others_have_their_turn_while_a_study_is_loaded() -> None:
    """Trials are taken in as they are read, not all at the end: the leases of other studies are renewed in between."""
    sim = created(early_stop="median_stop", max_iterations=4, num_trials=6, num_workers=2, num_init_trials=1)
    for quality in (0.5, 0.9, 0.1):
        trial = sim.sample()
        for step in range(4):
            sim.report(trial, quality + step)
    shelf = Shelf(sim)
    keeper = Keeper(cast("Store", shelf), StudyKeys("team", "run"), cast("Suggester", None), Timing())
    shelf.keeper = keeper
    meta = {b"seq": b"7", b"uid": sim.committed.uid.encode(), b"state": sim.committed.state}
    asyncio.run(keeper._load(meta))
    assert shelf.taken_in == [0, 1, 2]
    assert snapshot(keeper.study) == snapshot(sim.study)
