"""The contacts of this process: one for each attempt that it trains, or speaks of."""

import os
import threading
from collections.abc import Mapping
from typing import Any

from hpopt.config import Identity
from hpopt.contact import Contact
from hpopt.server import connect

REMEMBERED = 1024
"""Ended attempts of which this process still knows that they have ended."""

_Key = tuple[str, str, int, int]
_contacts: dict[_Key, Contact] = {}
_lock = threading.Lock()


def contact(config: Mapping[str, Any]) -> Contact:
    """The contact for a config's attempt; the same one for every call."""
    identity = Identity.of(config)
    key = (identity.keys.path, identity.uid, identity.trial, identity.attempt)
    found = _contacts.get(key)
    if found is None:
        server = connect(identity.url)
        with _lock:
            found = _contacts.setdefault(key, Contact(identity, server.client, server.heart))
            for old in [old for old, each in _contacts.items() if each.stopped][:-REMEMBERED]:
                del _contacts[old]
    return found


def trained_here(path: str, uid: str) -> list[Contact]:
    """The attempts of this study that the calling thread trained last, ended or not, the oldest first."""
    thread = threading.get_ident()
    return [each for key, each in list(_contacts.items()) if key[:2] == (path, uid) and each.trainer == thread]


def open_contacts(path: str, uid: str) -> list[Contact]:
    """The attempts of this study that this process has begun and not ended."""
    return [
        each for key, each in list(_contacts.items()) if key[:2] == (path, uid) and each.started and not each.stopped
    ]


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - a lock that another thread held at the fork is never released in the child
    _lock = threading.Lock()
    for each in _contacts.values():
        each.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
