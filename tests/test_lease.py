import pytest

from coordinator.batch import SCHEMA, Batch
from coordinator.store import LaterSchemaError, WrongTypeError
from tests.commits import KEYS, UID, acquire, commit, everything, full_batch, renew
from tests.server import Server


def test_a_free_lease(server: Server) -> None:
    """Taking a lease makes its owner known, raises seq, and counts the start."""
    assert acquire(server, "me") == {b"owner": b"me", b"seq": b"1", b"starts": b"1"}
    assert server.redis.get(KEYS.lease) == b"me"
    assert 0 < server.redis.pttl(KEYS.lease) <= 60_000


def test_a_lease_of_another(server: Server) -> None:
    """While one coordinator holds the lease another one does not get it, and changes nothing."""
    acquire(server, "first")
    before = everything(server)
    assert acquire(server, "second") is None
    assert everything(server) == before


def test_ones_own_lease(server: Server) -> None:
    """A coordinator may load a study again: what it still has under way from before is fenced."""
    acquire(server, "me")
    again = acquire(server, "me")
    assert again is not None
    assert (again[b"seq"], again[b"starts"]) == (b"2", b"2")
    assert commit(server, "me", 1, full_batch()) == "FENCED"


def test_the_only_coordinator_does_not_wait(server: Server) -> None:
    """Where there never is a second coordinator, the lease of a dead one is taken at once."""
    acquire(server, "dead")
    taken = acquire(server, "me", alone=True)
    assert taken is not None
    assert taken[b"owner"] == b"me"
    assert commit(server, "dead", 1, full_batch()) == "FENCED"


def test_a_later_schema(server: Server) -> None:
    """What a later release has written is not taken, so its own coordinator can go on with it."""
    acquire(server, "later")
    commit(server, "later", 1, Batch(KEYS, UID), schema=SCHEMA + 1)
    server.redis.delete(KEYS.lease)
    before = everything(server)
    with pytest.raises(LaterSchemaError, match=f"schema {SCHEMA + 1}"):
        acquire(server, "me")
    assert everything(server) == before


@pytest.mark.parametrize("key", [KEYS.lease, KEYS.meta, KEYS.inbox])
def test_a_study_with_a_key_of_another_type_is_not_taken(server: Server, key: str) -> None:
    """It is named, and left as it is."""
    server.redis.sadd(key, "not ours")
    with pytest.raises(WrongTypeError, match=key.replace("{", r"\{")):
        acquire(server, "me")
    assert server.keys("*") == [key]


def test_renewal(server: Server) -> None:
    """One's own lease is kept, and so is one that ran out and that nobody took; another's is not touched."""
    acquire(server, "me")
    server.redis.pexpire(KEYS.lease, 5_000)
    assert renew(server, "me")
    assert server.redis.pttl(KEYS.lease) > 5_000
    server.redis.delete(KEYS.lease)
    assert renew(server, "me")
    assert not renew(server, "other")
    assert not renew(server, "other", 0)
    assert server.redis.get(KEYS.lease) == b"me"


def test_giving_up(server: Server) -> None:
    """A lease that is given up can be taken at once."""
    acquire(server, "me")
    assert renew(server, "me", 0)
    assert acquire(server, "other") is not None


def test_a_lease_of_another_type_is_lost(server: Server) -> None:
    """It cannot be renewed; the other leases go on."""
    server.redis.sadd(KEYS.lease, "not ours")
    assert not renew(server, "me")
