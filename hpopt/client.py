"""The synchronous Redis client: send an event, wait for its answer."""

import functools
import os
import random
import socket
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from redis import exceptions
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from hpopt.core import keys as names
from hpopt.core.address import check_url, in_words, options_of, sentinels, without_credentials
from hpopt.core.codec import VERSION, DecodeError, WrongVersionError, decode, encode
from hpopt.errors import HpoptUnavailable, NoCoordinator, UnknownStudy, VersionSkew
from hpopt.outage import BLOCK, Patience

RESEND, LONGEST_RESEND = 5.0, 60.0
"""Seconds without an answer after which an event is sent again, with the same identity; doubles up to the second."""
ASK_WHO_IS_THERE = 3.0
"""Seconds without an answer after which the client looks whether any coordinator is alive."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
"""Seconds between two attempts to reach a server that is away."""

FAILED = (exceptions.RedisError, OSError)
"""The server is away, or does not do what it was told now."""
_REFUSED = (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError)

T = TypeVar("T")
Entry = tuple[bytes, bytes]
"""Id and message of an entry of a stream."""


@dataclass(slots=True)
class Inquiry:
    """An event on its way, and the stream on which its answer will stand."""

    inbox: str
    event: Any
    stream: str
    last: bytes | str = "0"
    """The newest entry of the stream that was read already."""
    before: tuple[Any, ...] = ()
    """Events of earlier inquiries that have to arrive before this one."""
    extra: tuple[tuple[Any, ...], ...] = ()
    """Commands that go along with the event."""
    make: bool = False
    """The event may make the inbox; else a missing inbox means that there is no such study."""
    listen_first: bool = False
    """Send the event only if the answer is not there without it."""
    study: str = ""
    arrived: bool = False
    """The server has the event; whether a coordinator has handled it is another question."""


class Client:
    """One server, for all threads of this process: each has its own connection. Forked children make new ones."""

    def __init__(self, url: str, gone: Callable[[str], str] | None = None) -> None:
        """`gone(url)`: why the server at the URL has ended for good, "" if it has not. Nothing is connected yet.

        Raises ValueError when the URL cannot be used.
        """
        self.url = check_url(url)
        self.shown = without_credentials(self.url)
        self._gone = gone
        self._local = threading.local()
        with options_of(self.url):
            self._pool = pool = _pool(self.url)  # makes no connections: it would count those of ended threads
            kind, options = pool.connection_class, {**pool.connection_kwargs, **_FIXED}
            self._make: Callable[[], Any] = functools.partial(kind, **options)
            self._make()  # it is not connected
        _CLIENTS.add(self)

    def __repr__(self) -> str:
        return f"Client({self.shown!r})"

    def call(self, *commands: tuple[Any, ...], vital: bool = False) -> list[Any]:
        """Send commands in one write; their answers, errors among them as values.

        With `vital`, an answer before the last that is an error, or nothing, is the last one that is waited for.

        Raises a connection error when the server is away. Whatever interrupts the call, the connection is dropped
        then: a late answer can never be taken for that of another call.
        """
        connection = self._connection()
        try:
            connection.connect()  # does nothing when it is connected
            connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            return _receive_all(connection, len(commands), vital=vital)
        except BaseException:
            connection.disconnect()
            raise

    def get(self, *command: Any) -> Any:
        """One command that must succeed, and its answer."""
        (answer,) = self.call(command)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def newest(self, stream: str) -> Any:
        """The message of the last entry of a stream that is kept short; None if there is none."""
        entries = _entries(self.get("XREAD", "STREAMS", stream, "0"))
        return _understood(entries[-1][1]) if entries else None

    def outlast(self, read: Callable[[], T], patience: Patience) -> T:
        """What `read` returns, tried again for as long as the server is away. Raises as `ask` does."""
        pause = FIRST_PAUSE
        while True:
            try:
                found = read()
            except FAILED as error:
                pause = self._wait_for_server(error, patience, pause)
            else:
                patience.well(self.shown)
                return found

    def ask(self, inquiry: Inquiry, accept: Callable[[Any], T | None], patience: Patience) -> T:
        """Send the event until `accept` makes something of an answer on the stream.

        Raises TimeoutError when the answer is overdue, HpoptUnavailable or NoCoordinator when the outage lasts too
        long, UnknownStudy when there is no such study, VersionSkew when the two sides do not understand each other.
        """
        due, interval, pause = time.monotonic(), RESEND, FIRST_PAUSE
        if inquiry.listen_first:
            due += interval
        while True:
            patience.check()
            send = time.monotonic() >= due
            if send and patience.waited >= RESEND:
                inquiry.last = "0"  # the answer may stand where nobody looks, if ids have gone back
            try:
                entries = self._exchange(inquiry, patience, send=send)
            except FAILED as error:
                pause = self._wait_for_server(error, patience, pause)
                inquiry.last = "0"
                continue
            pause = FIRST_PAUSE
            for entry_id, message in entries:
                inquiry.last = entry_id
                answer = accept(_understood(message))
                if answer is not None:
                    patience.well(self.shown)
                    return answer
            if send:
                due, interval = time.monotonic() + interval, min(2 * interval, LONGEST_RESEND)
            self._stay(patience)

    # --- one round trip

    def _exchange(self, inquiry: Inquiry, patience: Patience, *, send: bool) -> list[Entry]:
        read = ("XREAD", "BLOCK", patience.block(), "STREAMS", inquiry.stream, inquiry.last)
        if not send:
            return _entries(self.get(*read))
        make = () if inquiry.make else ("NOMKSTREAM",)
        events = (*inquiry.before, inquiry.event)
        adds = [("XADD", inquiry.inbox, *make, "*", "e", encode(event)) for event in events]
        answers = self.call(*adds, *inquiry.extra, read, vital=True)
        for each in answers:
            if isinstance(each, Exception):
                raise each
        if answers[-1] is None and len(answers) <= len(adds):
            raise UnknownStudy(
                f"there is no study {inquiry.study!r} on {self.shown}: check study=, namespace= and HPOPT_URL "
                "(if it was there before, the server has lost its data)"
            )
        inquiry.arrived = True
        return _entries(answers[-1])

    def _wait_for_server(self, error: Exception, patience: Patience, pause: float) -> float:
        """Pause after a failure, and return the next pause; raise if it is no use, or too late."""
        patience.check()
        if isinstance(error, _REFUSED):
            remedy = "check the credentials in HPOPT_URL"
            raise HpoptUnavailable(f"{self.shown} refuses us ({in_words(error)}): {remedy}") from None
        if self._gone is not None and (why := self._gone(self.url)):
            raise HpoptUnavailable(why) from None
        how = "does not serve us now" if isinstance(error, exceptions.ResponseError) else "is unreachable"
        remedy = "is the server up, and is HPOPT_URL right?"
        self._connection().disconnect()  # the name may lead to another server by now, one that is not a replica
        patience.endure(HpoptUnavailable, f"{self.shown} {how} ({in_words(error)})", remedy)
        patience.nap(pause * random.uniform(0.5, 1.0))
        return min(2 * pause, LONGEST_PAUSE)

    def _stay(self, patience: Patience) -> None:
        """The server answers, but not the coordinator: wait on, unless it is too late."""
        if patience.over or patience.waited >= ASK_WHO_IS_THERE:
            self._look_for_coordinator(patience)
        if patience.over:
            raise TimeoutError(f"no answer within {patience.answer:g} s")

    def _look_for_coordinator(self, patience: Patience) -> None:
        """Tell "no coordinator is running" and "of another version" from "slow"."""
        try:
            found = self.get("GET", names.COORDINATORS)
        except FAILED:
            return  # the next round trip deals with that
        if found is None:
            remedy = "start one with `hpopt-coordinator --url ...`"
            patience.endure(NoCoordinator, f"no coordinator is running on {self.shown}", remedy)
        else:
            check_versions(found.decode())
            patience.well("the coordinator")
            patience.stay()

    # --- connections

    def _connection(self) -> Any:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._make()
        return connection

    def forget_connections(self) -> None:
        """Make new ones: the old ones are those of the parent, after a fork, or lead to a server that is gone."""
        self._local = threading.local()


def check_versions(coordinator: str) -> None:
    """`coordinator`: what a coordinator says of itself, ending in "protocol 1-2". Raises VersionSkew."""
    low, _, high = coordinator.rpartition(" ")[2].partition("-")
    if low.isdigit() and high.isdigit() and not int(low) <= VERSION <= int(high):
        sides = f"the coordinator understands protocols {low} to {high}, this process speaks {VERSION}"
        raise VersionSkew(f"{sides}: upgrade the older of the two")


_FIXED: dict[str, Any] = {
    "retry": Retry(NoBackoff(), 0),  # a silent retry would send an event twice; we retry with its identity
    "protocol": 2,
    "socket_timeout": BLOCK + 3,
    "decode_responses": False,
}
"""What the URL cannot change."""


def _pool(url: str) -> ConnectionPool:
    """What knows how to make a connection for the URL."""
    found = sentinels(url)
    if found is None:
        return ConnectionPool.from_url(url, **_defaults(url))
    manager = Sentinel(found.hosts, socket_timeout=3, socket_connect_timeout=3)
    return SentinelConnectionPool(found.service, manager, **found.credentials, **_defaults(url))


def _defaults(url: str) -> dict[str, Any]:
    if urlsplit(url).scheme == "unix":
        return {"protocol": 2}
    options: dict[str, Any] = {"protocol": 2, "socket_connect_timeout": 3, "socket_keepalive": True}
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        options["socket_keepalive_options"] = {socket.TCP_USER_TIMEOUT: 10_000}
    return options


def _receive_all(connection: Any, count: int, *, vital: bool) -> list[Any]:
    answers: list[Any] = []
    while len(answers) < count:
        answers.append(_receive(connection))
        if vital and len(answers) < count and (answers[-1] is None or isinstance(answers[-1], Exception)):
            connection.disconnect()
            break
    return answers


def _receive(connection: Any) -> Any:
    try:
        return connection.read_response(disable_decoding=True)
    except exceptions.ResponseError as error:
        return error


def _entries(answer: Any) -> list[Entry]:
    return [(entry_id, fields[1]) for entry_id, fields in answer[0][1]] if answer else []


def _understood(message: bytes) -> Any:
    try:
        return decode(message)
    except WrongVersionError as error:
        raise VersionSkew(f"{error}: upgrade hpopt in this process") from None
    except DecodeError as error:
        raise HpoptUnavailable(f"the coordinator's answer cannot be read: {error}") from None


_CLIENTS: "weakref.WeakSet[Client]" = weakref.WeakSet()


def _after_fork() -> None:
    for client in list(_CLIENTS):
        client.forget_connections()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
