"""A private Valkey server and coordinators of a test: started, killed, stopped, and started again on the same data."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from coordinator.valkey import find_server

ROOT = Path(__file__).resolve().parents[1]
DEADLINE = 20.0
"""Seconds that anything here may take before the test fails."""
SHORT = ("--lease", "1", "--grace", "3", "--takeover", "4", "--tick", "0.3")
"""Times of a coordinator under test: its lease runs out within a second."""
SETTINGS = {
    "port": "0",
    "appendonly": "yes",
    "appendfsync": "always",
    "save": '""',
    "maxmemory-policy": "noeviction",
    "databases": "1",
}


class Program:
    """A child process whose output can be waited for."""

    def __init__(
        self,
        command: list[str],
        stdin: str = "",
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        """Starts it in `folder`; `environment` is added to ours."""
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            cwd=folder,
            env={**os.environ, **(environment or {})},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._process.stdin is not None
        with self._process.stdin as pipe:
            pipe.write(stdin)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    @property
    def output(self) -> str:
        """Everything it has said so far."""
        return "\n".join(self.lines)

    def wait_for(self, pattern: str, count: int = 1, seconds: float = DEADLINE) -> str:
        """The `count`-th line that the pattern is found in; fails if it does not come in so many seconds."""
        found: list[str] = []

        def enough() -> bool:
            found[:] = [line for line in self.lines if re.search(pattern, line)]
            return len(found) >= count or self._ended

        with self._news:
            self._news.wait_for(enough, seconds)
        if len(found) < count:
            raise AssertionError(f"{pattern!r} was not said {count} times:\n{self.output}")
        return found[count - 1]

    def signal(self, number: int) -> None:
        """Send a signal; a process that has ended is left alone."""
        self._process.send_signal(number)

    def pause(self) -> None:
        """Stop the process in its tracks; returns when it stands still."""
        self.signal(signal.SIGSTOP)
        self.wait_paused()

    def wait_paused(self) -> None:
        """Return when the process stands still, whoever stopped it."""
        until(lambda: os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG) is not None, f"a pause:\n{self.output}")

    def go_on(self) -> None:
        """Let a paused process run again."""
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill -9, and wait for the end."""
        self.signal(signal.SIGKILL)
        self.wait()

    def wait(self, seconds: float | None = DEADLINE) -> int:
        """The exit status, when it has ended and all its output is here."""
        status = self._process.wait(seconds)
        self._reader.join(DEADLINE)
        return status

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as pipe:
            for line in pipe:
                with self._news:
                    self.lines.append(line.rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


class Server:
    """A Valkey server on a unix socket, with its data in `folder`."""

    def __init__(self, folder: Path, **settings: str) -> None:
        """Nothing runs before `start`. `settings`: of the server, with _ for -."""
        self.folder = folder
        self.socket = folder / "s"
        self.url = f"unix://{self.socket}"
        self.settings = {**SETTINGS, **{name.replace("_", "-"): value for name, value in settings.items()}}
        self.begin: Callable[..., Program] = Program
        """Starts the process."""
        self.program: Program | None = None
        self.pid_file = folder / "server.pid"
        retry: Any = Retry(NoBackoff(), 0)
        self.redis = redis.Redis.from_url(self.url, retry=retry, socket_timeout=DEADLINE)

    def start(self) -> Self:
        """Start it, on what it has stored before; returns when it answers."""
        self.folder.mkdir(exist_ok=True)
        settings = {**self.settings, "dir": str(self.folder), "unixsocket": str(self.socket)}
        text = "".join(f"{name} {value}\n" for name, value in settings.items())
        self.program = self.begin([find_server(), "-"], stdin=text)
        self.pid_file.write_text(str(self.program.pid))
        self.program.wait_for(r"eady to accept connections|The server is now ready")
        return self

    def kill(self) -> None:
        """Kill -9: what was not written to its file is gone."""
        if self.program is not None:
            self.program.kill()
            self.program = None

    def restart(self) -> None:
        """Kill -9, and start again."""
        self.kill()
        self.start()

    def close(self) -> None:
        """End it, and the connections to it."""
        self.redis.close()
        self.kill()

    def keys(self, pattern: str) -> list[str]:
        """The keys that are there, sorted."""
        return sorted(key.decode() for key in self.redis.scan_iter(pattern, count=1000))


def start_coordinator(
    url: str,
    *options: str,
    module: str = "coordinator",
    times: tuple[str, ...] = SHORT,
    path: Path = ROOT,
    environment: Mapping[str, str] | None = None,
) -> Program:
    """A coordinator process of the packages in `path`, which may still be starting when this returns."""
    search = os.pathsep.join(dict.fromkeys([str(path), str(ROOT)]))
    command = [sys.executable, "-P", "-m", module, "--url", url, *times, *options]
    return Program(command, environment={"PYTHONPATH": search, **(environment or {})})


def until(check: Callable[[], bool], what: str, seconds: float = DEADLINE, pause: float = 0.01) -> None:
    """Wait for what no log line and no key tells; fails if it does not come. `pause`: seconds between two looks."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise AssertionError(f"it did not come to this: {what}")
        time.sleep(pause)
