"""The bundled server and coordinator, run as children of the operator when no server is given.

    EmbeddedServer.start("hpo")  ->  supervisor (coordinator/supervisor.py)  ->  Valkey, coordinator

The supervisor ends when the pipe to its standard input closes. Only this process may hold the other end: forked
children close it at once, started programs never inherit it.
"""

import atexit
import contextlib
import json
import logging
import os
import selectors
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from hpopt.errors import EmbeddedError, HpoptError, MissingExtra, SavePathInUse

_START_TIMEOUT = 20.0
_STOP_TIMEOUT = 15.0
"""Seconds; the supervisor itself gives its children 5 + 5 before it kills them."""
_RESTARTS, _RESTART_WINDOW = 5, 60.0
_LOGS = ("supervisor.log", "valkey.log", "coordinator.log")
_LOG_TAIL = 1500
"""Characters of each log that an error shows."""

_log = logging.getLogger("hpopt")
_live: "weakref.WeakSet[EmbeddedServer]" = weakref.WeakSet()


class EmbeddedServer:
    """A server and a coordinator that live as long as this process, or until `close`; also a context manager."""

    @classmethod
    def start(
        cls,
        save_path: str | os.PathLike[str],
        *,
        extra_args: Sequence[str] = (),
        options: Sequence[str] = (),
        timeout: float = _START_TIMEOUT,
    ) -> Self:
        """Start both for the data in <save_path>/.hpopt and wait until the server answers, `timeout` seconds at most.

        `extra_args` are for the coordinator's command line, `options` for the supervisor's (`--appendfsync everysec`).

        Raises SavePathInUse (another live process uses this save_path), MissingExtra (there is no server, or not what
        the coordinator needs) or EmbeddedError (it does not come up; shows the ends of the logs).
        """
        if os.name != "posix":
            raise EmbeddedError("the bundled server needs Linux or macOS: start a Redis and name it in HPOPT_URL")
        home = Path(save_path).absolute() / ".hpopt"
        home.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-P", "-m", "coordinator.supervisor", "--dir", str(home)]
        server = cls([*command, *options], ["--", *extra_args], home, timeout)
        try:
            server._launch([])
        except BaseException:
            server._abandon()
            raise
        server._watchdog.start()
        return server

    def __init__(self, command: list[str], tail: list[str], home: Path, timeout: float) -> None:
        """Use `start`."""
        self.url = ""
        """Where clients on this machine find the server; stays the same over restarts."""
        self._command, self._tail = command, tail
        self._home = home
        self._timeout = timeout
        self._creator = os.getpid()
        self._closing = threading.Event()
        self._failure: HpoptError | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog = threading.Thread(target=self._watch, name="hpopt-embedded", daemon=True)
        self._pipe = os.pipe()
        _live.add(self)
        atexit.register(self.close)

    @property
    def pid(self) -> int:
        """The process id of the supervisor."""
        return self._process.pid if self._process else 0

    def check(self) -> None:
        """Raise what ended the server for good, if anything did."""
        if self._failure is not None:
            raise self._failure

    def last_words(self) -> str:
        """Why the server has ended for good; waits until the watchdog knows."""
        self._watchdog.join(_STOP_TIMEOUT)
        return str(self._failure or "the bundled server was closed")

    def close(self) -> None:
        """End server and coordinator, with every acknowledged write on disk. Does nothing in a forked child."""
        if os.getpid() != self._creator or self._closing.is_set():
            return
        self._closing.set()
        os.close(self._pipe[1])
        self._watchdog.join(_STOP_TIMEOUT)
        if self._watchdog.is_alive() and self._process:
            self._process.kill()  # its children get SIGTERM from the system
            self._watchdog.join()
        self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _launch(self, flags: list[str]) -> None:
        """Start a supervisor and wait for its readiness line."""
        self._process = process = subprocess.Popen(
            [*self._command, *flags, *self._tail],
            stdin=self._pipe[0],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(),
            start_new_session=True,
        )
        assert process.stdout is not None  # noqa: S101 - by stdout=PIPE
        with process.stdout:
            answer, noise = _read_answer(process.stdout.fileno(), self._timeout)
        if "url" not in answer:
            raise self._refusal(answer, noise)
        self.url = answer["url"]

    def _watch(self) -> None:
        """Put a new supervisor in the place of one that was killed, in a thread of its own."""
        starts: list[float] = []
        while True:
            assert self._process is not None  # noqa: S101 - set by _launch
            self._process.wait()
            if self._closing.is_set():
                return
            now = time.monotonic()
            starts = [start for start in starts if now - start < _RESTART_WINDOW] + [now]
            try:
                if closed_mark(self.url) or len(starts) > _RESTARTS:
                    raise EmbeddedError(f"the bundled server has ended{self._logs()}")
                _log.warning("the supervisor of the bundled server was killed: starting it again")
                self._launch(["--again"])
            except (HpoptError, OSError) as error:
                if not self._closing.is_set():
                    self._fail(error)
                return

    def _fail(self, error: HpoptError | OSError) -> None:
        self._failure = error if isinstance(error, HpoptError) else EmbeddedError(str(error))
        _log.error("%s", error)
        if self._process:
            self._process.terminate()
            self._reap(self._process)

    def _refusal(self, answer: dict[str, Any], noise: str) -> HpoptError:
        message = answer.get("message", "")
        match answer.get("error"):
            case "in_use" if answer.get("operator") == os.getpid():
                return SavePathInUse(f"{message}, which is this process: close() what uses it first")
            case "in_use":
                return SavePathInUse(
                    f"{message} (supervisor {answer.get('pid')}): end that process, pass another save_path, "
                    "or share one server between both by HPOPT_URL"
                )
            case "missing":
                return MissingExtra(message)
            case "refused":
                return EmbeddedError(message)
        return EmbeddedError(f"the bundled server did not start: {message}{self._logs(noise)}")

    def _logs(self, noise: str = "") -> str:
        tails = {"output": noise[-_LOG_TAIL:].strip()}
        for name in _LOGS:
            with contextlib.suppress(OSError):
                tails[name] = (self._home / name).read_text(errors="replace")[-_LOG_TAIL:].strip()
        return "".join(f"\n--- {name}\n{tail}" for name, tail in tails.items() if tail)

    def _abandon(self) -> None:
        """Undo a start that failed before the watchdog was there."""
        self._closing.set()
        os.close(self._pipe[1])
        if self._process:
            self._reap(self._process)
        self._let_go()

    @staticmethod
    def _reap(process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _let_go(self) -> None:
        os.close(self._pipe[0])
        _live.discard(self)
        atexit.unregister(self.close)

    def forget(self) -> None:
        """In a forked child: the server is the parent's, and must not live on because of us."""
        if self._closing.is_set():
            return
        for fd in self._pipe:
            os.close(fd)
        if self._process:
            self._process.returncode = 0  # not our child: nothing to wait for, or to warn about


def why_ended(url: str) -> str:
    """Why the server behind this URL has ended for good; "" if it has not, but may be restarting."""
    if not closed_mark(url):
        return ""
    own = next((server for server in list(_live) if server.url == url), None)
    return f"the operator that ran {url} has ended" if own is None else own.last_words()


def closed_mark(url: str) -> bool:
    """Whether the operator behind this unix socket URL is gone for good (not: its server is just restarting)."""
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return False
    path = Path(unquote(parts.path))
    return Path(f"{path}.closed").exists() or not path.parent.exists()


def _read_answer(fd: int, timeout: float) -> tuple[dict[str, Any], str]:
    """The supervisor's line of JSON, or {"message": why there is none}; and whatever else it printed."""
    seen = b""
    deadline = time.monotonic() + timeout
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            chunk = os.read(fd, 65536)
            if not chunk:
                return {"message": "its supervisor ended at once"}, seen.decode(errors="replace")
            seen += chunk
            for line in seen.split(b"\n")[:-1]:
                if line.startswith(b"{"):
                    answer: dict[str, Any] = json.loads(line)
                    return answer, ""
    return {"message": f"it was not ready within {timeout:g} s"}, seen.decode(errors="replace")


def _environment() -> dict[str, str]:
    """Ours, with what a child needs to import the same code as we did, and without another server's address."""
    environment = {name: value for name, value in os.environ.items() if name != "HPOPT_URL"}
    root = str(Path(__file__).resolve().parents[1])
    known = environment.get("PYTHONPATH", "")
    if Path(root).name not in ("site-packages", "dist-packages") and root not in known.split(os.pathsep):
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, known)))
    return environment


def _forget_all() -> None:
    for server in list(_live):
        server.forget()
    _live.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
