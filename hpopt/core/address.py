"""The URL of a server: which ones can be used, and how one is shown without its credentials."""

import contextlib
import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

SENTINEL = "redis+sentinel"
SENTINEL_PORT = 26379

_SECRETS = re.compile(r"(?<=[?&])(?:username|password)=[^&#]*&?")


def check_url(url: str) -> str:
    """The URL, its scheme in small letters. Raises TypeError or ValueError, naming the remedy, for one of no use."""
    if not isinstance(url, str):
        raise TypeError(f"url={url!r}: pass a str, such as redis://host:port")
    scheme, colon, rest = url.strip().partition(":")
    url = scheme.lower() + colon + rest
    shown = without_credentials(url)
    if not _has_port(url):
        quote, port = "write what is special in a password as %XX", "its port is no number up to 65535"
        remedy = quote if _has_port(shown) else port
        raise ValueError(f"url={shown!r} cannot be read: {remedy}")
    parts = urlsplit(url)
    if parts.scheme == SENTINEL:
        return _check_sentinels(url, parts, shown)
    if parts.scheme not in ("redis", "rediss", "unix") or (parts.scheme == "unix" and not parts.path):
        known = "redis://host:port, rediss://host:port, unix:///path or redis+sentinel://host:port,host:port/service"
        raise ValueError(f"url={shown!r}: use {known}")
    database = parts.path.strip("/") if parts.scheme != "unix" else ""
    if database not in ("", "0") or parse_qs(parts.query).get("db", ["0"]) != ["0"]:
        raise ValueError(f"url={shown!r}: hpopt uses database 0 only, separate teams by namespace=")
    return url


def _has_port(url: str) -> bool:
    """Whether a port can be read from the URL, if it has one; urllib's own words may hold a part of the password."""
    try:
        parts = urlsplit(url)
        _ = parts.port if parts.scheme != SENTINEL else None
    except ValueError:
        return False
    return True


@contextlib.contextmanager
def options_of(url: str) -> Iterator[None]:
    """What is done within makes connections for the URL; raises ValueError when its options are none of redis-py's."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - redis-py raises many kinds for them, its own too; nothing else is done
        remedy = "use those of redis.Redis.from_url, and rediss:// with those of TLS"
        raise ValueError(f"url={without_credentials(url)!r} has options of no use ({error}): {remedy}") from None


def in_words(error: Exception) -> str:
    """What redis-py says, without the insides of its objects."""
    return str(error).partition(" : <redis")[0]


class Sentinels(NamedTuple):
    """Who knows where the primary of a service is, and the credentials for that primary."""

    hosts: list[tuple[str, int]]
    service: str
    credentials: dict[str, str]


def sentinels(url: str) -> Sentinels | None:
    """What redis+sentinel://user:password@host:port,host:port/service says; None for a URL of another kind."""
    parts = urlsplit(url)
    if parts.scheme != SENTINEL:
        return None
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    named = {"username": unquote(user), "password": unquote(password)}
    found = [host.rpartition(":") if ":" in host else (host, "", str(SENTINEL_PORT)) for host in hosts.split(",")]
    addresses = [(name, int(port)) for name, _, port in found]
    return Sentinels(addresses, parts.path.strip("/"), {key: value for key, value in named.items() if value})


def _check_sentinels(url: str, parts: SplitResult, shown: str) -> str:
    ports = [host.rpartition(":")[2] for host in parts.netloc.rpartition("@")[2].split(",") if ":" in host]
    if not parts.path.strip("/") or not all(port.isdecimal() and int(port) < 2**16 for port in ports):
        raise ValueError(f"url={shown!r}: name sentinels and service: redis+sentinel://host:26379,host:26379/mymaster")
    if parts.query:
        raise ValueError(f"url={shown!r}: sentinels take no options; leave out what follows the question mark")
    return url


def without_credentials(url: str) -> str:
    """The URL as it may be shown, stored and sent; of a URL that cannot be read, rather too little than too much."""
    text = _SECRETS.sub("", url).rstrip("?&")
    start = text.find("://") + 3 if "://" in text else 0
    end = f"{text}/".find("/", start) if text.startswith("unix:") else len(text)  # a path may hold an @
    return text[:start] + text[max(start, text.rfind("@", start, end) + 1) :]
