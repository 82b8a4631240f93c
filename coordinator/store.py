"""Everything the coordinator says to Redis. The only asynchronous file that imports redis."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from importlib.resources import files
from typing import Any

import msgpack
from hiredis import pack_command
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff

from hpopt.core import keys as names
from hpopt.core.address import check_url, options_of, sentinels
from hpopt.core.curve import unpack
from hpopt.core.keys import StudyKeys
from hpopt.core.trial import Trial

CONNECTION_LOST = (exceptions.ConnectionError, exceptions.TimeoutError, OSError)
"""The server is away, or the connection is: come back later."""
SERVER_BUSY = (
    exceptions.BusyLoadingError, exceptions.ReadOnlyError, exceptions.OutOfMemoryError, exceptions.ResponseError,
)  # fmt: skip
"""The server answers, but does not do it now (loading, demoted, out of memory, disk full)."""
REFUSED = (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError)
"""The server knows us not, or does not let us."""
AWAY = (*CONNECTION_LOST, *SERVER_BUSY)

BATCH_EVENTS = 64
LOADED_AT_ONCE = 100
"""Trials whose curves are read and taken in before anything else gets its turn: a million points are 2 s of work."""
BLOCK = 5_000
"""Milliseconds for which a read of an inbox waits; a connection silent for longer than this by far is dead."""
COMMAND_TIMEOUT = 10.0
"""Seconds for which any other command may take."""

Entry = tuple[str, bytes]
"""Id and bytes of one event."""


class WrongTypeError(Exception):
    """Somebody else has written a key of the study."""


class LaterSchemaError(Exception):
    """What is stored was written by a later release, which alone can read it."""


class Store:
    """One coordinator's view of the server."""

    def __init__(self, url: str, owner: str) -> None:
        """`owner`: this coordinator's name in leases and fences."""
        options: dict[str, Any] = {"retry": Retry(NoBackoff(), 0), "protocol": 2, "socket_connect_timeout": 3}
        self.owner = owner
        url = check_url(url)
        with options_of(url):
            self._redis = _Redis.from_pool(_pool(url, socket_timeout=None, **options))
            self._links = _pool(url, socket_timeout=None, **options)
            self._links.make_connection()  # it is not connected
        self._commit = self._script("commit.lua")
        self._acquire = self._redis.register_script(self._script("acquire.lua"))
        self._renew = self._redis.register_script(self._script("renew.lua"))
        self._clock = 0.0

    @staticmethod
    def _script(name: str) -> str:
        return files("coordinator").joinpath(name).read_text(encoding="utf-8")

    async def close(self) -> None:
        """Drop every connection."""
        await self._redis.aclose()
        await self._links.aclose()

    # --- the server

    async def info(self) -> dict[str, Any]:
        """What INFO says."""
        found: dict[str, Any] = await self._redis.info()
        return found

    async def coordinators(self) -> bool:
        """Whether any coordinator is alive."""
        return bool(await self._redis.exists(names.COORDINATORS))

    async def announce(self, milliseconds: int) -> None:
        """Say that a coordinator is alive, and learn what time it is on the server."""
        await self._redis.set(names.COORDINATORS, self.owner, px=milliseconds)
        seconds, micros = await self._redis.time()
        self._clock = seconds + micros / 1e6 - time.monotonic()

    async def withdraw(self) -> None:
        """Take back `announce`, if it is ours."""
        await self._renew(keys=[names.COORDINATORS], args=[self.owner, 0])

    def now(self) -> float:
        """Server time in seconds, as of the last `announce`."""
        return self._clock + time.monotonic()

    # --- studies and their leases

    async def studies(self) -> set[str]:
        """Every "namespace/study" there is."""
        members = await self._redis.smembers(names.STUDIES)
        return {_text(member) for member in members}

    async def hint(self) -> None:
        """Have every coordinator look for studies now."""
        await self._redis.xadd(names.CREATED, {"s": ""}, maxlen=1000)

    async def created(self) -> AsyncIterator[None]:
        """Yields whenever there may be studies to be taken."""
        link = Link(self, self._links.make_connection())
        try:
            newest = await link.call("XREVRANGE", names.CREATED, "+", "-", "COUNT", 1)
            last = newest[0][0] if newest else "0"
            while True:  # the first look comes after `last` is known, so no hint falls between two looks
                yield
                reply = await link.call("XREAD", "BLOCK", BLOCK, "STREAMS", names.CREATED, last)
                last = reply[0][1][-1][0] if reply else last
        finally:
            await link.close()

    async def acquire(
        self, keys: StudyKeys, milliseconds: int, schema: int, *, alone: bool
    ) -> dict[bytes, bytes] | None:
        """The study's meta hash, if its lease is free or ours; None while another coordinator holds it.

        `schema`: the latest that can be read here. `alone`: there is no other coordinator, so a lease that is still
        there is a dead one's. Raises WrongTypeError or LaterSchemaError, and leaves the study untouched then.
        """
        arguments: list[str | int] = [self.owner, milliseconds, schema, int(alone)]
        with _refined():
            flat = await self._acquire(keys=[keys.lease, keys.meta, keys.inbox], args=arguments)
        return None if flat is None else dict(zip(flat[::2], flat[1::2], strict=True))

    async def renew(self, keys: StudyKeys, milliseconds: int) -> bool:
        """Keep the lease; False if another coordinator has it. 0 milliseconds give it up."""
        try:
            with _refined():
                return bool(await self._renew(keys=[keys.lease], args=[self.owner, milliseconds]))
        except WrongTypeError:
            return False

    async def fence(self, keys: StudyKeys) -> tuple[str, int]:
        """(owner, seq) as they stand: whether a commit with unknown outcome has landed."""
        owner, seq = await self._redis.hmget(keys.meta, "owner", "seq")
        return _text(owner or b""), int(seq or 0)

    async def load(self, keys: StudyKeys, uid: str) -> AsyncIterator[list[tuple[Trial, list[Any]]]]:
        """Every trial with its curve, by id, some at a time. Raises WrongTypeError."""
        with _refined():
            records = await self._redis.hgetall(keys.trials(uid))
        trials = sorted((Trial.from_wire(msgpack.unpackb(r)) for r in records.values()), key=lambda trial: trial.id)
        for start in range(0, len(trials), LOADED_AT_ONCE):
            part = trials[start : start + LOADED_AT_ONCE]
            wanted = [keys.curve(uid, trial.id) for trial in part]
            curves = await self._redis.mget(wanted)
            absent = [key for key, curve in zip(wanted, curves, strict=True) if curve is None]
            if absent and await self._redis.exists(*absent):  # MGET passes over what is no string
                raise WrongTypeError(f"{wanted[0]} or a later one")
            yield [(trial, list(unpack(_bytes(curve)))) for trial, curve in zip(part, curves, strict=True)]

    async def silent(self, watched: list[str]) -> set[str]:
        """Those of the heartbeat keys that are not there."""
        found = await self._redis.mget(watched)
        return {key for key, beat in zip(watched, found, strict=True) if beat is None}

    async def forget(self, keys: StudyKeys, uid: str, trials: int) -> None:
        """Drop the keys of a replaced incarnation, a few at a time."""
        for start in range(0, trials, 200):
            ids = range(start, min(start + 200, trials))
            await self._redis.unlink(*(key for i in ids for key in (keys.curve(uid, i), keys.verdicts(uid, i))))
        await self._redis.unlink(keys.trials(uid))

    def link(self, keys: StudyKeys) -> "StudyLink":
        """A connection of its own for one study."""
        return StudyLink(self, self._links.make_connection(), keys)

    async def load_script(self, link: "Link") -> str:
        """Make the commit script known to the server; its hash."""
        sha = await link.call("SCRIPT", "LOAD", self._commit)
        return str(sha.decode())


class _Redis(Redis):
    """redis-py's client, with a time limit of our own.

    redis-py keeps its `socket_timeout` with asyncio.wait_for, which (before Python 3.12) may swallow the cancellation
    of the task that waits: a task that was told to end would go on, and whoever waits for its end would do so for ever.
    """

    async def execute_command(self, *command: Any, **options: Any) -> Any:
        """See redis-py."""
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT):
                return await super().execute_command(*command, **options)  # type: ignore[no-untyped-call]
        except TimeoutError:
            raise exceptions.TimeoutError("the server has not answered in time") from None


class Link:
    """One raw connection: redis-py's connection object, without the cost of its commands."""

    def __init__(self, store: Store, connection: AbstractConnection) -> None:
        """`connection` is not connected yet."""
        self.store = store
        self.connection = connection

    async def call(self, *command: Any) -> Any:
        """One command and its answer."""
        await self.send(command)
        return await self.receive()

    async def send(self, *commands: tuple[Any, ...]) -> None:
        """Send commands in one write."""
        if not self.connection.is_connected:
            await self.connection.connect()
        packed = b"".join(map(pack_command, commands))  # in C: redis-py's own packing costs more than deciding does
        await self.connection.send_packed_command(packed, check_health=False)

    async def receive(self) -> Any:
        """The answer to the next command; raises what the server answers as an error."""
        with _refined():
            return await self.connection.read_response(disable_decoding=True)

    async def close(self) -> None:
        """Drop the connection; whatever waits on it fails."""
        await self.connection.disconnect(nowait=True)


class StudyLink(Link):
    """The connection on which one study is read and committed."""

    def __init__(self, store: Store, connection: AbstractConnection, keys: StudyKeys) -> None:
        """See Store.link."""
        super().__init__(store, connection)
        self.keys = keys
        self.reading_since = 0.0
        """When the read that is under way began (monotonic seconds); 0 when there is none."""
        self._sha = ""

    async def read(self, cursor: str, count: int = BATCH_EVENTS) -> list[Entry]:
        """The next events behind the cursor; [] if none came for a while."""
        if not self.reading_since:
            await self.send(self._read(cursor, count))
        return await self.received()

    async def received(self) -> list[Entry]:
        """The events of the read that is under way."""
        self.reading_since = self.reading_since or time.monotonic()
        reply = await self.receive()
        self.reading_since = 0.0
        entries = reply[0][1] if reply else []
        return [(entry_id.decode(), _payload(fields)) for entry_id, fields in entries]

    async def commit(self, script_keys: list[str], arguments: list[Any], read: tuple[str, int] | None = None) -> str:
        """Run the commit script; with `read` (cursor, count), begin the next read in the same write.

        The answer: OK or FENCED. Raises WrongTypeError when a key of the study is not ours.
        """
        if not self._sha or not self.connection.is_connected:
            self._sha = await self.store.load_script(self)
        commands = [("EVALSHA", self._sha, len(script_keys), *script_keys, *arguments)]
        if read is not None:
            commands.append(self._read(*read))
        await self.send(*commands)
        try:
            answer = (await self.receive()).decode()
        except exceptions.NoScriptError:
            self._sha = ""
            raise
        if read is not None:
            self.reading_since = time.monotonic()
        if answer.startswith("WRONGTYPE"):
            raise WrongTypeError(answer.partition(" ")[2])
        return str(answer)

    async def trim(self, cursor: str) -> None:
        """Drop the events that are committed."""
        await self.store._redis.xtrim(self.keys.inbox, minid=cursor, approximate=False)  # noqa: SLF001 - one file

    async def close(self) -> None:
        """See Link."""
        self.reading_since = 0.0
        await super().close()

    def _read(self, cursor: str, count: int) -> tuple[Any, ...]:
        return ("XREAD", "COUNT", count, "BLOCK", BLOCK, "STREAMS", self.keys.inbox, cursor)


@contextlib.contextmanager
def _refined() -> Iterator[None]:
    """Errors of the server that will not go away by trying again, as our own."""
    try:
        yield
    except exceptions.ResponseError as error:
        code, _, detail = str(error).partition(" ")
        if code == "WRONGTYPE":
            raise WrongTypeError(detail if detail.startswith("hpopt:") else "of the study") from None
        if code == "SCHEMA":
            raise LaterSchemaError(f"schema {detail}") from None
        raise


def _pool(url: str, **options: Any) -> ConnectionPool:
    """Makes connections for the URL; with sentinels, each of them to whoever is the primary at the time."""
    found = sentinels(url)
    if found is None:
        return ConnectionPool.from_url(url, **options)
    manager = Sentinel(found.hosts, socket_timeout=3, socket_connect_timeout=3)
    return SentinelConnectionPool(found.service, manager, **found.credentials, **options)


def _bytes(answer: bytes | str | None) -> bytes:
    """redis-py's types allow for decoded answers, which we never ask for."""
    return answer if isinstance(answer, bytes) else b""


def _text(answer: bytes | str) -> str:
    return answer.decode(errors="replace") if isinstance(answer, bytes) else answer


def _payload(fields: list[bytes]) -> bytes:
    """The value of field `e`; empty (and so refused later) if the entry has none."""
    pairs = dict(zip(fields[::2], fields[1::2], strict=False))
    return pairs.get(b"e", b"")
