"""Which server to talk to, and this process's one client and heart for it."""

import os
import threading
from dataclasses import dataclass
from urllib.parse import urlsplit

from hpopt.client import Client, check_url, without_credentials
from hpopt.heartbeat import Heart

URL = "HPOPT_URL"
"""Environment variable: the server's URL, with credentials if it needs any."""


@dataclass(frozen=True, slots=True)
class Server:
    """One server, as this process knows it."""

    client: Client
    heart: Heart


_servers: dict[str, Server] = {}
_credentials: dict[str, str] = {}
"""URL without credentials -> URL with them, as given to `create` in this process."""
_lock = threading.Lock()


def connect(url: str | None) -> Server:
    """The server for a config's URL (without credentials), or for the environment's, which wins.

    Raises ValueError when neither says where the server is.
    """
    url = os.environ.get(URL) or url
    if not url:
        raise ValueError(f"the config names no server: set {URL} to the URL that the operator uses")
    return server_at(_credentials.get(url, url))


def server_at(url: str) -> Server:
    """The server at a full URL."""
    with _lock:
        server = _servers.get(url)
        if server is None:
            client = Client(check_url(url), _gone)
            server = _servers[url] = Server(client, Heart(client))
        return server


def _gone(url: str) -> bool:
    """Whether the operator of an embedded server has ended; asked only when the server is away."""
    from hpopt.embedded import closed_mark

    return closed_mark(url)


def remember_credentials(url: str) -> str | None:
    """The URL that may travel in a config: without credentials, or None if nothing is left to connect to."""
    shown = without_credentials(url)
    if shown != url:
        _credentials[shown] = url
    return shown if urlsplit(shown).netloc or urlsplit(shown).path else None


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - a lock that another thread held at the fork is never released in the child
    _lock = threading.Lock()
    for server in _servers.values():
        server.heart.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
