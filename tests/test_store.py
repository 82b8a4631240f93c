import asyncio

import pytest
from redis import exceptions

from coordinator import store as stores
from coordinator.store import Store
from tests.commits import KEYS
from tests.server import Server


def test_commands_can_be_cancelled(server: Server) -> None:
    """A task that is cancelled ends, at whatever point of a command it is: who waits for its end waits in vain else."""

    async def ask_forever(store: Store) -> None:
        while True:
            await store.studies()

    async def scenario() -> list[int]:
        store, stuck = Store(server.url, "me"), []
        for steps in range(1, 60):
            task = asyncio.create_task(ask_forever(store))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task}, timeout=0.5)
            if not task.done():
                stuck.append(steps)
                task.cancel()
        await store.close()
        return stuck

    assert asyncio.run(scenario()) == []


def test_a_server_that_does_not_answer(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command is given up in time, and its connection with it: the next one gets its own answer."""
    monkeypatch.setattr(stores, "COMMAND_TIMEOUT", 0.1)
    assert server.program is not None
    program = server.program

    async def scenario() -> set[str]:
        store = Store(server.url, "me")
        await store.announce(1_000)
        program.pause()
        with pytest.raises(exceptions.TimeoutError, match="has not answered in time"):
            await store.info()
        program.go_on()
        found = await store.studies()
        await store.close()
        return found

    assert asyncio.run(scenario()) == set()


def test_silent(server: Server) -> None:
    """Of the heartbeats those that are not there are named."""
    server.redis.set(KEYS.session("a"), 1)

    async def scenario() -> set[str]:
        store = Store(server.url, "me")
        found = await store.silent([KEYS.session(name) for name in "abc"])
        await store.close()
        return found

    assert asyncio.run(scenario()) == {KEYS.session("b"), KEYS.session("c")}
