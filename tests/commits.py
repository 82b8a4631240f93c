"""What single coordinators do to one study on a server: take its lease, renew it, commit."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from coordinator.batch import SCHEMA, Batch
from coordinator.store import Store, StudyLink
from hpopt.core.curve import Point
from hpopt.core.effects import PointAdded, Replied, StudyChanged, TrialChanged, VerdictGiven
from hpopt.core.keys import StudyKeys
from hpopt.core.messages import Nothing, Verdict
from hpopt.core.trial import Trial
from tests.server import Server

KEYS = StudyKeys("team", "run")
UID = "u1"
WRITTEN = {
    "meta": KEYS.meta,
    "trials": KEYS.trials(UID),
    "curve": KEYS.curve(UID, 3),
    "verdicts": KEYS.verdicts(UID, 3),
    "replies": KEYS.replies("session"),
    "dead": KEYS.dead,
}
"""Every kind of key that the commit script writes."""
VERDICT = Verdict(1, "life", 0, 7, None)
T = TypeVar("T")


def by(owner: str, server: Server, action: Callable[[Store, StudyLink], Awaitable[T]]) -> T:
    """What a coordinator of that name does on the server."""

    async def scenario() -> T:
        store = Store(server.url, owner)
        link = store.link(KEYS)
        try:
            return await action(store, link)
        finally:
            await link.close()
            await store.close()

    return asyncio.run(scenario())


def acquire(server: Server, owner: str, *, schema: int = SCHEMA, alone: bool = False) -> dict[bytes, bytes] | None:
    """Try to take the lease of the study."""
    return by(owner, server, lambda store, _: store.acquire(KEYS, 60_000, schema, alone=alone))


def renew(server: Server, owner: str, milliseconds: int = 60_000) -> bool:
    """Try to keep the lease, or give it up."""
    return by(owner, server, lambda store, _: store.renew(KEYS, milliseconds))


def commit(server: Server, owner: str, seq: int, batch: Batch, **meta: Any) -> str:
    """Try to commit a batch."""
    return by(owner, server, lambda _, link: link.commit(*batch.command(owner, seq, UID, meta)))


def full_batch() -> Batch:
    """A batch that writes every kind of key."""
    batch = Batch(KEYS, UID)
    batch.add([TrialChanged(Trial(3, {"lr": 0.1})), PointAdded(3, Point(1, 7, 0.5)), PointAdded(3, Point(1, 8, None))])
    batch.add([VerdictGiven(UID, 3, VERDICT, ended=True), Replied("session", Nothing(4, done=True)), StudyChanged()])
    batch.refuse("no message", b"\xc1" * 2000)
    return batch


def everything(server: Server) -> dict[str, Any]:
    """All that is stored, in a form that can be compared."""
    keys = server.keys("*")
    return {key: server.redis.dump(key) for key in keys}
