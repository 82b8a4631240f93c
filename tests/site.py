"""A server and a coordinator of a test that can be taken away and put back while clients wait for them."""

import socket
from pathlib import Path

import redis

from hpopt.core.keys import COORDINATORS
from tests.server import Program, Server, start_coordinator

PASSWORD = "secret-of-this-test"  # noqa: S105 - of a server that lives for a minute


class Site:
    """A server on TCP and on a unix socket, with a password, and a coordinator."""

    def __init__(self, folder: Path) -> None:
        """Both run when this returns."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self.server = Server(folder, port=str(self.port), requirepass=PASSWORD)
        self.shown = f"redis://127.0.0.1:{self.port}"
        self.url = self.shown.replace("//", f"//:{PASSWORD}@")
        self.socket_url = f"{self.server.url}?password={PASSWORD}"
        self.redis = redis.Redis.from_url(self.url)
        self.coordinator: Program | None = None
        self.start()

    def start(self) -> None:
        """Put back what is not there."""
        if self.server.program is None:
            self.server.start()
        else:
            self.server.program.go_on()
        if self.coordinator is None:
            self.coordinator = start_coordinator(self.url, "--quick", module="tests.faulty_coordinator")
        self.coordinator.go_on()

    def kill_server(self) -> None:
        """Nobody answers any more."""
        self.server.kill()

    def pause_server(self) -> None:
        """It takes connections, and says nothing."""
        assert self.server.program is not None
        self.server.program.pause()

    def kill_coordinator(self) -> None:
        """The server answers, but no coordinator, and that can be seen at once."""
        if self.coordinator is not None:
            self.coordinator.kill()
            self.coordinator = None
        self.redis.delete(COORDINATORS)

    def pause_coordinator(self) -> None:
        """The same, but it is soon put back."""
        assert self.coordinator is not None
        self.coordinator.pause()
        self.redis.delete(COORDINATORS)

    def close(self) -> None:
        """End both."""
        self.start()
        self.kill_coordinator()
        self.redis.close()
        self.server.close()
