"""Heartbeats: keys with an expiry that one daemon thread per server keeps refreshing."""

import logging
import threading
from urllib.parse import urlsplit

from hpopt.client import FAILED, Client

AT_HAND = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names of this machine."""

log = logging.getLogger("hpopt")


def interval_for(url: str) -> float:
    """Seconds between two beats: often where the server is at hand, rarely where many share it."""
    parts = urlsplit(url)
    here = parts.scheme in ("redis", "rediss") and parts.hostname in AT_HAND  # sentinels say nothing of the primary
    return 2.0 if parts.scheme == "unix" or here else 15.0


class Heart:
    """Beats for every key that was added, until it is removed. Threads do not survive a fork: the child starts anew."""

    def __init__(self, client: Client) -> None:
        """Nothing beats before the first key is added."""
        self.client = client
        self.interval = interval_for(client.url)
        self.expiry = int(4 * self.interval * 1000)
        self._keys: set[str] = set()
        self._changed = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, key: str) -> None:
        """Beat for the key from now on."""
        with self._lock:
            if key in self._keys and self._thread is not None and self._thread.is_alive():
                return
            self._keys.add(key)
            self._changed.set()
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._beat_on, name="hpopt-heartbeat", daemon=True)
                self._thread.start()

    def drop(self, key: str) -> bool:
        """Stop beating for the key, which runs out by itself; False if it did not beat."""
        with self._lock:
            beating = key in self._keys
            self._keys.discard(key)
            return beating

    def remove(self, key: str) -> None:
        """Stop beating for the key, and let it go at once: silence is meant."""
        if not self.drop(key):
            return
        try:
            self.client.call(("UNLINK", key))
        except FAILED as error:
            log.debug("hpopt: heartbeat %s runs out by itself: %s", key, error)

    def after_fork(self) -> None:
        """The parent goes on beating for its keys; the child has none yet."""
        self._keys = set()
        self._changed = threading.Event()
        self._lock = threading.Lock()
        self._thread = None

    def _beat_on(self) -> None:
        """The thread: ends when there is nothing to beat for."""
        while True:
            self._changed.clear()
            with self._lock:
                keys = sorted(self._keys)
                if not keys:
                    self._thread = None
                    return
            try:
                self._beat(keys)
            except FAILED as error:
                log.debug("hpopt: no heartbeat: %s", error)  # whoever needs the server says so aloud
            self._changed.wait(self.interval)

    def _beat(self, keys: list[str]) -> None:
        """PEXPIRE, which a server that is out of memory still does; SET only for a key that is not there."""
        found = self.client.call(*(("PEXPIRE", key, self.expiry) for key in keys))
        missing = [key for key, answer in zip(keys, found, strict=True) if answer == 0 and key in self._keys]
        if missing:
            self.client.call(*(("SET", key, "1", "PX", self.expiry) for key in missing))
