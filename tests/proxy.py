"""A TCP proxy on loopback that can lose, hold back and cut what goes through it."""

import contextlib
import socket
import threading
import time
from typing import Self


class Proxy:
    """Between clients and a server on a port of this machine: passes everything on until it is told otherwise."""

    def __init__(self, port: int) -> None:
        """`port`: where the server listens."""
        self.lose = 0
        """For so many events the server's answers are lost, on that connection for good."""
        self.cut = 0
        """After so many events their connections are cut."""
        self.events: list[float] = []
        """When each XADD passed (monotonic seconds)."""
        self._port = port
        self._lock = threading.Lock()
        self._links: list[_Link] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        """Hold back everything on the connections that are there now, in both directions, without a word."""
        for link in self._links:
            link.frozen = True

    def connections(self) -> int:
        """How many connections are open."""
        return sum(not link.closed for link in self._links)

    def close(self) -> None:
        """Cut all connections, and take no more."""
        self._listener.close()
        for link in self._links:
            link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                self._links.append(_Link(client, socket.create_connection(("127.0.0.1", self._port))))
                for answers in (False, True):
                    threading.Thread(target=self._pump, args=(self._links[-1], answers), daemon=True).start()

    def _pump(self, link: "_Link", answers: bool) -> None:
        source, sink = (link.server, link.client) if answers else (link.client, link.server)
        with contextlib.suppress(OSError):  # one of the two is gone
            while data := source.recv(65536):
                if not answers and b"XADD" in data:
                    self._event(link)
                if not (link.frozen or (answers and link.lossy)):
                    sink.sendall(data)
                if link.cut:
                    break
        link.close()

    def _event(self, link: "_Link") -> None:
        with self._lock:
            self.events.append(time.monotonic())
            if self.lose:
                self.lose, link.lossy = self.lose - 1, True
            elif self.cut:
                self.cut, link.cut = self.cut - 1, True


class _Link:
    """One connection through the proxy."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.frozen = self.lossy = self.cut = self.closed = False

    def close(self) -> None:
        self.closed = True
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
