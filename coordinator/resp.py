"""As much of a Redis client as the supervisor needs, on the standard library: send one command, read one reply."""

import socket
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

Reply: TypeAlias = "str | int | list[Reply] | None"

_TIMEOUT = 5.0
"""Seconds; the server is on this machine."""


class ServerSaysNo(Exception):
    """The server answered with an error; its text is the message."""


class Resp:
    """One connection to the server at a unix socket. Every failure to talk is an OSError."""

    def __init__(self, path: Path, password: str | None = None) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_TIMEOUT)
        try:
            self._socket.connect(str(path))
            self._lines = self._socket.makefile("rb")
            if password is not None:
                self.call("AUTH", password)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lines.close()
        self._socket.close()

    def call(self, *words: str) -> Reply:
        """Send a command and return its reply. Raises ServerSaysNo for an error reply."""
        encoded = [word.encode(errors="surrogateescape") for word in words]
        parts = [b"*%d\r\n" % len(encoded), *(b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded)]
        self._socket.sendall(b"".join(parts))
        return self._read()

    def _read(self) -> Reply:
        line = self._lines.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("the server closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise ServerSaysNo(_text(rest))
        if kind == b"+":
            return _text(rest)
        size = int(rest)
        if kind == b":":
            return size
        if size < 0:
            return None
        if kind == b"*":
            return [self._read() for _ in range(size)]
        return _text(self._lines.read(size + 2)[:-2])


def _text(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")
