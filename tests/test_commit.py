import asyncio
import math
from typing import Any

import msgpack
import pytest
from redis import exceptions

from coordinator.batch import Batch
from coordinator.keeper import FencedError, Keeper
from coordinator.store import Store, StudyLink, WrongTypeError
from coordinator.timing import Timing
from hpopt.core.codec import decode
from hpopt.core.curve import Point, unpack
from hpopt.core.effects import PointAdded, Replied, TrialChanged, VerdictGiven
from hpopt.core.messages import Nothing, Verdict
from hpopt.core.trial import Trial
from tests.commits import KEYS, UID, VERDICT, WRITTEN, acquire, by, commit, everything, full_batch
from tests.server import Server, until

# --- the commit


def test_everything_lands(server: Server) -> None:
    """A commit writes the trial, its curve, the verdict, the answer, the dead letter and the fields of meta."""
    acquire(server, "me")
    assert commit(server, "me", 1, full_batch(), cursor="5-0", state=b"\x00\xff") == "OK"
    found = server.redis
    meta: Any = found.hgetall(KEYS.meta)
    assert (meta[b"cursor"], meta[b"state"], meta[b"seq"]) == (b"5-0", b"\x00\xff", b"2")
    records: Any = found.hgetall(KEYS.trials(UID))
    assert Trial.from_wire(msgpack.unpackb(records[b"3"])) == Trial(3, {"lr": 0.1})
    curve: Any = found.get(KEYS.curve(UID, 3))
    assert list(unpack(curve)) == [Point(1, 7, 0.5), Point(1, 8, None)]
    verdicts: Any = found.xrange(KEYS.verdicts(UID, 3))
    assert [decode(fields[b"v"]) for _, fields in verdicts] == [VERDICT]
    replies: Any = found.xrange(KEYS.replies("session"))
    assert [decode(fields[b"r"]) for _, fields in replies] == [Nothing(4, done=True)]
    dead: Any = found.xrange(KEYS.dead)
    assert [fields for _, fields in dead] == [{b"reason": b"no message", b"head": b"\xc1" * 1024}]
    assert found.ttl(KEYS.verdicts(UID, 3)) > 3000
    assert found.ttl(KEYS.replies("session")) > 3000


def test_a_later_commit_adds(server: Server) -> None:
    """Points are appended, and of the verdicts only the newest is kept; that of a live trial does not expire."""
    acquire(server, "me")
    commit(server, "me", 1, full_batch())
    batch = Batch(KEYS, UID)
    batch.add([PointAdded(3, Point(2, 1, math.pi)), VerdictGiven(UID, 4, VERDICT, ended=False)])
    newer = Verdict(2, "other", 0, 1, None)
    batch.add([VerdictGiven(UID, 3, newer, ended=True)])
    assert commit(server, "me", 2, batch) == "OK"
    curve: Any = server.redis.get(KEYS.curve(UID, 3))
    assert list(unpack(curve))[-1] == Point(2, 1, math.pi)
    verdicts: Any = server.redis.xrange(KEYS.verdicts(UID, 3))
    assert [decode(fields[b"v"]) for _, fields in verdicts] == [newer]
    assert server.redis.ttl(KEYS.verdicts(UID, 4)) == -1


def test_all_answers_of_a_commit_are_there_to_be_read(server: Server) -> None:
    """A session in which many threads wait gets many at once; of those before, which were read, some go."""
    acquire(server, "me")
    for seq, count in ((1, 200), (2, 3)):
        batch = Batch(KEYS, UID)
        batch.add([Replied("session", Nothing(n, done=True)) for n in range(count)])
        batch.add([Replied("other", Nothing(7, done=True))])
        assert commit(server, "me", seq, batch) == "OK"
        replies: Any = server.redis.xrange(KEYS.replies("session"))
        numbers = [decode(fields[b"r"]).n for _, fields in replies]
        assert numbers[-count:] == list(range(count))
        assert len(numbers) == max(64, count)


@pytest.mark.parametrize(("owner", "seq"), [("other", 1), ("me", 0), ("me", 2)])
def test_fenced(server: Server, owner: str, seq: int) -> None:
    """Whoever is not the owner, or believes in another state than the stored one, writes nothing."""
    acquire(server, "me")
    before = everything(server)
    assert commit(server, owner, seq, full_batch()) == "FENCED"
    assert everything(server) == before


def test_a_study_that_is_gone_is_fenced(server: Server) -> None:
    """After a loss of all data the owner is told, and writes nothing."""
    acquire(server, "me")
    server.redis.flushall()
    assert commit(server, "me", 1, full_batch()) == "FENCED"
    assert everything(server) == {}


def test_a_paused_owner_is_fenced_by_its_successor(server: Server) -> None:
    """Taking a study over is enough to refuse what its former owner still sends, lease or no lease."""
    acquire(server, "first")
    server.redis.delete(KEYS.lease)  # as if it had run out
    taken = acquire(server, "second")
    assert taken is not None
    assert taken[b"seq"] == b"2"
    assert commit(server, "first", 1, full_batch()) == "FENCED"
    assert commit(server, "first", 2, full_batch()) == "FENCED"
    assert commit(server, "second", 2, full_batch()) == "OK"


@pytest.mark.parametrize("which", [name for name in WRITTEN if name != "meta"])
def test_a_key_of_another_type(server: Server, which: str) -> None:
    """A key that somebody else has written is named, and nothing at all is written."""
    acquire(server, "me")
    server.redis.sadd(WRITTEN[which], "not ours")
    before = everything(server)
    with pytest.raises(WrongTypeError, match=WRITTEN[which].replace("{", r"\{")):
        commit(server, "me", 1, full_batch())
    assert everything(server) == before


def test_meta_of_another_type(server: Server) -> None:
    """Even the key of the fence itself may be written by somebody else."""
    server.redis.set(KEYS.meta, "not ours")
    with pytest.raises(WrongTypeError):
        commit(server, "me", 1, full_batch())
    assert server.keys("*") == [KEYS.meta]


def test_out_of_memory(server: Server) -> None:
    """A server over its limit refuses a commit before the first write; with room again it is accepted."""
    acquire(server, "me")
    before = everything(server)
    server.redis.config_set("maxmemory", 1)
    with pytest.raises(exceptions.OutOfMemoryError):
        commit(server, "me", 1, full_batch())
    assert everything(server) == before
    server.redis.config_set("maxmemory", 0)
    assert commit(server, "me", 1, full_batch()) == "OK"


def test_a_large_batch(server: Server) -> None:
    """More arguments than Lua can unpack at once are no problem."""
    acquire(server, "me")
    batch = Batch(KEYS, UID)
    for trial in range(3_000):
        batch.add([TrialChanged(Trial(trial, {"x": trial})), PointAdded(trial, Point(1, 1, float(trial)))])
    keys, arguments = batch.command("me", 1, UID, {})
    assert len(arguments) > 20_000
    assert by("me", server, lambda _, link: link.commit(keys, arguments)) == "OK"
    assert server.redis.hlen(KEYS.trials(UID)) == 3_000
    assert len(server.keys("*:curve:*")) == 3_000


def test_the_next_read_leaves_with_the_commit(server: Server) -> None:
    """With `read`, the events behind the cursor are under way when the commit is answered."""
    acquire(server, "me")
    first, second = (server.redis.xadd(KEYS.inbox, {"e": each}) for each in (b"one", b"two"))

    async def scenario(_: Store, link: StudyLink) -> Any:
        cursor = first.decode()  # type: ignore[union-attr]
        answer = await link.commit(*Batch(KEYS, UID).command("me", 1, UID, {"cursor": cursor}), read=(cursor, 64))
        assert link.reading_since > 0
        return answer, await link.read(cursor)

    assert by("me", server, scenario) == ("OK", [(second.decode(), b"two")])  # type: ignore[union-attr]


def test_a_flushed_script_cache(server: Server) -> None:
    """A script that the server has forgotten is an error of the moment: the next commit teaches it again."""
    acquire(server, "me")

    async def scenario(_: Store, link: StudyLink) -> tuple[str, str]:
        first = await link.commit(*Batch(KEYS, UID).command("me", 1, UID, {}))
        server.redis.script_flush()
        with pytest.raises(exceptions.NoScriptError):
            await link.commit(*Batch(KEYS, UID).command("me", 2, UID, {}))
        return first, await link.commit(*Batch(KEYS, UID).command("me", 2, UID, {}))

    assert by("me", server, scenario) == ("OK", "OK")


# --- unknown outcomes


def keeper(store: Store, seq: int) -> Keeper:
    """A keeper whose study is at `seq`; it never fits a surrogate."""
    its = Keeper(store, KEYS, None, Timing())  # type: ignore[arg-type]
    its.seq = seq
    return its


def test_a_lost_answer_to_a_commit_that_landed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection breaks between write and answer: the fence tells that it landed, and it is not repeated."""
    acquire(server, "me")

    async def scenario(store: Store, link: StudyLink) -> int:
        its = keeper(store, 1)
        await its._run(link, *Batch(KEYS, UID).command("me", its.seq, UID, {}), None)

        async def cut() -> Any:
            until(lambda: server.redis.hget(KEYS.meta, "seq") == b"3", "the commit lands")
            raise exceptions.ConnectionError("cut")

        monkeypatch.setattr(link, "receive", cut)
        await its._run(link, *full_batch().command("me", its.seq, UID, {}), None)
        monkeypatch.undo()
        await its._run(link, *Batch(KEYS, UID).command("me", its.seq, UID, {}), None)
        return its.seq

    assert by("me", server, scenario) == 4
    assert server.redis.strlen(KEYS.curve(UID, 3)) == 28  # two points, once


def test_a_commit_that_never_left(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection breaks before the write: the study is to be loaded again, and nothing was written."""
    acquire(server, "me")
    before = everything(server)

    async def scenario(store: Store, link: StudyLink) -> None:
        async def cut(*_: Any) -> None:
            raise exceptions.ConnectionError("cut")

        monkeypatch.setattr(link, "send", cut)
        with pytest.raises(exceptions.ConnectionError):
            await keeper(store, 1)._run(link, *full_batch().command("me", 1, UID, {}), None)

    by("me", server, scenario)
    assert everything(server) == before


def test_a_lost_answer_and_a_successor(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """If another coordinator has the study by the time the fence is read, the commit does not count as landed."""
    acquire(server, "first")

    async def scenario(store: Store, link: StudyLink) -> None:
        async def cut(*_: Any) -> None:
            server.redis.delete(KEYS.lease)
            await asyncio.to_thread(acquire, server, "second")
            raise exceptions.ConnectionError("cut")

        monkeypatch.setattr(link, "send", cut)
        with pytest.raises(exceptions.ConnectionError):
            await keeper(store, 1)._run(link, *full_batch().command("first", 1, UID, {}), None)

    by("first", server, scenario)
    assert server.redis.hget(KEYS.meta, "owner") == b"second"


def test_fenced_is_an_error_of_the_keeper(server: Server) -> None:
    """A keeper that is fenced raises, so that its study is dropped from memory."""
    acquire(server, "other")

    async def scenario(store: Store, link: StudyLink) -> None:
        with pytest.raises(FencedError):
            await keeper(store, 1)._run(link, *full_batch().command("me", 1, UID, {}), None)

    by("me", server, scenario)


def test_room_is_made_when_memory_is_out(server: Server) -> None:
    """A commit that is refused for want of memory has the inbox trimmed up to what is committed, and no further."""
    acquire(server, "me")
    ids: list[Any] = [server.redis.xadd(KEYS.inbox, {"e": b"x"}) for _ in range(3)]
    server.redis.config_set("maxmemory", 1)

    async def scenario(store: Store, link: StudyLink) -> None:
        its = keeper(store, 1)
        its.cursor = ids[1].decode()
        with pytest.raises(exceptions.OutOfMemoryError):
            await its._run(link, *full_batch().command("me", 1, UID, {}), None)

    by("me", server, scenario)
    left: Any = server.redis.xrange(KEYS.inbox)
    assert [entry_id for entry_id, _ in left] == ids[1:]
