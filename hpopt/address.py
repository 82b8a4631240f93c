"""The URL of a server: which ones can be used, and how one is shown without its credentials."""

import re
from urllib.parse import parse_qs, urlsplit

_SECRETS = re.compile(r"(?<=[?&])(?:username|password)=[^&#]*&?")


def check_url(url: str) -> str:
    """The URL itself. Raises TypeError or ValueError, naming the remedy, when hpopt cannot use it."""
    if not isinstance(url, str):
        raise TypeError(f"url={url!r}: pass a str, such as redis://host:port")
    shown = without_credentials(url)
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # its text may hold a part of the password
        raise ValueError(f"url={shown!r} cannot be read: write what is special in a password as %XX") from None
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError(f"url={shown!r}: use redis://host:port, rediss://host:port or unix:///path")
    database = parts.path.strip("/") if parts.scheme != "unix" else ""
    if database not in ("", "0") or parse_qs(parts.query).get("db", ["0"]) != ["0"]:
        raise ValueError(f"url={shown!r}: hpopt uses database 0 only, separate teams by namespace=")
    return url


def without_credentials(url: str) -> str:
    """The URL as it may be shown, stored and sent; of a URL that cannot be read, rather too little than too much."""
    text = _SECRETS.sub("", url).rstrip("?&")
    start = text.find("://") + 3 if "://" in text else 0
    end = text.find("/", start) if text.startswith("unix:") else len(text)  # a path may hold an @
    return text[:start] + text[max(start, text.rfind("@", start, end) + 1) :]
