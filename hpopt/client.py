"""The synchronous Redis client: send an event, wait for its answer. The only synchronous file that imports redis."""

import logging
import os
import random
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

from redis import exceptions
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool
from redis.retry import Retry

from hpopt.core import keys as names
from hpopt.core.messages import VERSION, DecodeError, WrongVersionError, decode, encode
from hpopt.errors import HpoptUnavailable, NoCoordinator, UnknownStudy, VersionSkew

BLOCK = 2.0
"""Seconds for which one read waits on the server."""
RESEND = 5.0
"""Seconds without an answer after which an event is sent again, with the same identity."""
ASK_WHO_IS_THERE = 3.0
"""Seconds without an answer after which the client looks whether any coordinator is alive."""
SLACK = ASK_WHO_IS_THERE + 3 * BLOCK
"""Seconds by which an answer may be later than an outage may last, so that an outage is told as what it is."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
"""Seconds between two attempts to reach a server that is away."""

_REFUSED = (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError)
_AWAY = (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.BusyLoadingError, OSError)

log = logging.getLogger("hpopt")
T = TypeVar("T")


@dataclass(slots=True)
class Inquiry:
    """An event on its way, and the stream on which its answer will stand."""

    inbox: str
    event: Any
    stream: str
    last: bytes | str = "0"
    """The newest entry of the stream that was read already."""
    extra: tuple[tuple[Any, ...], ...] = ()
    """Commands that go along with the event."""
    make: bool = False
    """The event may make the inbox; else a missing inbox means that there is no such study."""
    listen_first: bool = False
    """Send the event only if the answer is not there without it."""
    study: str = ""


@dataclass(slots=True)
class Patience:
    """How long to wait: `answer` seconds in all (None: for ever), `outage` seconds without server or coordinator."""

    answer: float | None
    outage: float
    started: float = field(default_factory=time.monotonic)
    out_since: float | None = None
    logged: bool = False

    @property
    def over(self) -> bool:
        """Whether the answer is overdue."""
        return self.answer is not None and time.monotonic() - self.started >= self.answer

    def out(self) -> bool:
        """An outage is going on; whether it has gone on for too long."""
        self.out_since = self.out_since or time.monotonic()
        return time.monotonic() - self.out_since >= self.outage

    def back(self, where: str) -> None:
        """The outage, if there was one, has ended."""
        if self.logged:
            log.warning("hpopt: %s answers again", where)
        self.out_since, self.logged = None, False

    def block(self) -> int:
        """Milliseconds for the next read."""
        left = BLOCK if self.answer is None else min(BLOCK, self.started + self.answer - time.monotonic())
        return max(1, int(1000 * left))


class Client:
    """One server, for all threads of this process: each has its own connection. Forked children make new ones."""

    def __init__(self, url: str, gone: Callable[[str], bool] | None = None) -> None:
        """`gone(url)`: whether the server at the URL has ended for good. Nothing is connected yet.

        Raises ValueError when the URL cannot be used.
        """
        self.url = check_url(url)
        self.shown = without_credentials(url)
        self._gone = gone
        self._local = threading.local()
        self._pool = ConnectionPool.from_url(url, **_options(url))
        _CLIENTS.add(self)

    def __repr__(self) -> str:
        return f"Client({self.shown!r})"

    def call(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Send commands in one write; their answers, errors among them as values.

        Raises a connection error when the server is away. Whatever interrupts the call, the connection is dropped
        then: a late answer can never be taken for that of another call.
        """
        connection = self._connection()
        try:
            connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            return [_receive(connection) for _ in commands]
        except BaseException:
            connection.disconnect()
            raise

    def get(self, *command: Any) -> Any:
        """One command that must succeed, and its answer."""
        (answer,) = self.call(command)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def ask(self, inquiry: Inquiry, accept: Callable[[Any], T | None], patience: Patience) -> T:
        """Send the event until `accept` makes something of an answer on the stream.

        Raises TimeoutError when the answer is overdue, HpoptUnavailable or NoCoordinator when the outage lasts too
        long, UnknownStudy when there is no such study, VersionSkew when the two sides do not understand each other.
        """
        sent = time.monotonic() if inquiry.listen_first else -RESEND
        pause = FIRST_PAUSE
        while True:
            send = time.monotonic() - sent >= RESEND
            try:
                entries = self._exchange(inquiry, patience, send=send)
            except _REFUSED as error:
                remedy = "check the credentials in HPOPT_URL"
                raise HpoptUnavailable(f"{self.shown} refuses us ({error}): {remedy}") from None
            except (*_AWAY, exceptions.ResponseError) as error:
                self._wait_for_server(error, patience, pause)
                inquiry.last, sent, pause = "0", -RESEND, min(2 * pause, LONGEST_PAUSE)
                continue
            sent = time.monotonic() if send else sent
            pause = FIRST_PAUSE
            for entry_id, message in entries:
                inquiry.last = entry_id
                answer = accept(_understood(message))
                if answer is not None:
                    patience.back(self.shown)
                    return answer
            if patience.over:
                raise TimeoutError(f"no answer within {patience.answer:g} s")
            if time.monotonic() - patience.started >= ASK_WHO_IS_THERE:
                self._look_for_coordinator(patience)

    # --- one round trip

    def _exchange(self, inquiry: Inquiry, patience: Patience, *, send: bool) -> Iterator[tuple[bytes, bytes]]:
        read = ("XREAD", "BLOCK", patience.block(), "STREAMS", inquiry.stream, inquiry.last)
        if not send:
            return _entries(self.get(*read))
        make = () if inquiry.make else ("NOMKSTREAM",)
        add = ("XADD", inquiry.inbox, *make, "*", "e", encode(inquiry.event))
        added, *_, answer = answers = self.call(add, *inquiry.extra, read)
        for each in answers:
            if isinstance(each, Exception):
                raise each
        if added is None:
            raise UnknownStudy(
                f"there is no study {inquiry.study!r} on {self.shown}: check study=, namespace= and HPOPT_URL "
                "(if it was there before, the server has lost its data)"
            )
        return _entries(answer)

    def _wait_for_server(self, error: Exception, patience: Patience, pause: float) -> None:
        if self._gone is not None and self._gone(self.url):
            raise HpoptUnavailable(f"the operator that ran {self.shown} has ended") from None
        if patience.out():
            remedy = "is the server up, and is HPOPT_URL right?"
            raise HpoptUnavailable(f"{self.shown} is unreachable: {error}: {remedy}") from None
        if patience.over:
            raise TimeoutError(f"no answer within {patience.answer:g} s")
        if not patience.logged:
            patience.logged = True
            log.warning("hpopt: %s is unreachable (%s): waiting for it up to %g s", self.shown, error, patience.outage)
        time.sleep(pause * random.uniform(0.5, 1.0))

    def _look_for_coordinator(self, patience: Patience) -> None:
        """Tell "no coordinator is running" and "of another version" from "slow"."""
        try:
            found = self.get("GET", names.COORDINATORS)
        except (*_AWAY, exceptions.ResponseError):
            return  # the next round trip deals with that
        if found is not None:
            patience.back("the coordinator")
            check_versions(found.decode())
            return
        if patience.out():
            remedy = "start one with `hpopt-coordinator --url ...`"
            raise NoCoordinator(f"no coordinator is running on {self.shown}: {remedy}")
        if not patience.logged:
            patience.logged = True
            log.warning("hpopt: no coordinator is running on %s: waiting up to %g s", self.shown, patience.outage)

    # --- connections

    def _connection(self) -> Any:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._pool.make_connection()
        connection.connect()  # does nothing when it is connected
        return connection

    def forget_connections(self) -> None:
        """After a fork: the sockets belong to the parent."""
        self._local = threading.local()


def check_url(url: str) -> str:
    """The URL itself. Raises ValueError, naming the remedy, when hpopt cannot use it."""
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError(f"url={without_credentials(url)!r}: use redis://host:port, rediss://host:port or unix:///path")
    database = parts.path.strip("/") if parts.scheme != "unix" else ""
    if database not in ("", "0") or "db=" in parts.query.replace("db=0", ""):
        raise ValueError(f"url={without_credentials(url)!r}: hpopt uses database 0 only, separate teams by namespace=")
    return url


def without_credentials(url: str) -> str:
    """The URL as it may be shown, stored and sent."""
    parts = urlsplit(url)
    netloc = parts.netloc.rpartition("@")[2]
    return url if netloc == parts.netloc else url.replace(parts.netloc, netloc, 1)


def check_versions(coordinator: str) -> None:
    """`coordinator`: what a coordinator says of itself, ending in "protocol 1-2". Raises VersionSkew."""
    low, _, high = coordinator.rpartition(" ")[2].partition("-")
    if low.isdigit() and high.isdigit() and not int(low) <= VERSION <= int(high):
        sides = f"the coordinator understands protocols {low} to {high}, this process speaks {VERSION}"
        raise VersionSkew(f"{sides}: upgrade the older of the two")


def _options(url: str) -> dict[str, Any]:
    options: dict[str, Any] = {
        "retry": Retry(NoBackoff(), 0),  # a silent retry would send an event twice; we retry with its identity
        "protocol": 2,
        "socket_timeout": BLOCK + 3,
        "decode_responses": False,
    }
    if urlsplit(url).scheme != "unix":
        options |= {"socket_connect_timeout": 3, "socket_keepalive": True}
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            options["socket_keepalive_options"] = {socket.TCP_USER_TIMEOUT: 10_000}
    return options


def _receive(connection: Any) -> Any:
    try:
        return connection.read_response(disable_decoding=True)
    except exceptions.ResponseError as error:
        return error


def _entries(answer: Any) -> Iterator[tuple[bytes, bytes]]:
    return iter([(entry_id, fields[1]) for entry_id, fields in answer[0][1]] if answer else [])


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
