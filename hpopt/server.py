"""Which server to talk to, and this process's one client and heart for it."""

import os
import threading
from dataclasses import dataclass
from urllib.parse import urlsplit

from hpopt.client import Client
from hpopt.core.address import without_credentials
from hpopt.heartbeat import Heart

URL = "HPOPT_URL"
"""Environment variable: the server's URL, with credentials if it needs any."""


@dataclass(frozen=True, slots=True)
class Server:
    """One server, as this process knows it."""

    client: Client
    heart: Heart


_servers: dict[str, Server] = {}
_given: dict[str, str] = {}
"""URL without credentials -> URL as it was given to `create` or `join` in this process."""
_lock = threading.Lock()


def connect(url: str | None) -> Server:
    """The server for a config's URL (without credentials), or for the environment's, which wins.

    In the process that called `create(url=...)`, its configs belong to that server, whatever the environment says.

    Raises ValueError when nothing says where the server is.
    """
    given = _given.get(url or "")
    url = given or os.environ.get(URL) or url
    if not url:
        raise ValueError(f"the config names no server: set {URL} to the URL that the operator uses")
    return server_at(url)


def server_at(url: str) -> Server:
    """The server at a full URL."""
    with _lock:
        server = _servers.get(url)
        if server is None:
            client = Client(url, _gone)
            server = _servers[url] = Server(client, Heart(client))
        return server


def _gone(url: str) -> str:
    """Why an embedded server has ended for good, "" if it has not; asked only when the server is away."""
    from hpopt.embedded import why_ended

    return why_ended(url)


def remember(url: str) -> str | None:
    """The URL that may travel in a config: without credentials, or None if nothing is left to connect to."""
    shown = without_credentials(url)
    _given[shown] = url
    return shown if urlsplit(shown).netloc or urlsplit(shown).path else None


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - a lock that another thread held at the fork is never released in the child
    _lock = threading.Lock()
    for server in _servers.values():
        server.heart.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
