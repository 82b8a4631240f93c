"""A runner process, as the launcher sees it: started, given trials one at a time, and never left behind."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from hpopt.memory import kernel_kills
from workers.link import DIED, GRACE, OUT_OF_MEMORY, write_line
from workers.target import Train

_LOOK = 0.1
"""Seconds between two looks whether the process is still there: a pipe alone cannot tell, because what the training
started may hold its other end."""
_LEAVE = 5.0
"""Seconds that a process has to end after its pipe was closed."""

_launcher_fds: set[int] = set()
"""The launcher's ends of all pipes; a forked child closes them, or it would keep its siblings alive."""


class RunnerError(RuntimeError):
    """A runner process did not get as far as its first trial: the training function cannot be imported, mostly."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What runners run: `command` if there is one, else `train`, or if that is None the function named `target`."""

    target: str = ""
    train: Train | None = None
    command: tuple[str, ...] = ()
    grace: float = GRACE
    """Seconds that a runner has to end in good order."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a trial's training ended, and the error if there was one."""

    how: str
    detail: str = ""


class _Process(Protocol):
    pid: int

    def poll(self) -> int | None: ...


class Runner:
    """One runner process, in a process group of its own: Ctrl-C in the terminal is the launcher's business."""

    def __init__(self, launch: Launch, environment: Mapping[str, str], output: Path) -> None:
        """Start it; what it prints outside of trials goes to the file `output`."""
        self._output = output
        inbox, self._orders = os.pipe()
        self._answers, outbox = os.pipe()
        self._lock = threading.RLock()
        self._ready = False
        self._received = b""
        _launcher_fds.update((self._orders, self._answers))
        try:
            with output.open("wb") as out:
                start = _spawn if launch.train is None else _fork
                self._process = start(launch, environment, (inbox, outbox), out)
        finally:
            os.close(inbox)
            os.close(outbox)
        if launch.train is None:
            setup = {"argv": sys.argv, "grace": launch.grace, "command": launch.command}
            self._send({"sys_path": sys.path, **setup})

    @property
    def pid(self) -> int:
        """Its process id, and that of its process group."""
        return self._process.pid

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._poll() is None

    def wait_ready(self) -> None:
        """Wait until the training function is imported. Raises RunnerError with the reason if that fails."""
        if self._ready:
            return
        answer = self._receive()
        if answer is None:
            raise RunnerError(f"a runner process {self._epitaph()} before its first trial{tail(self._output)}")
        if "refused" in answer:
            raise RunnerError(answer["refused"])
        if "broken" in answer:
            raise RunnerError(f"the training function cannot be imported in a runner process:\n\n{answer['broken']}")
        self._ready = True

    def train(self, config: dict[str, Any], log: Path) -> Ending:
        """Have one trial trained, with its output in `log`."""
        self.wait_ready()
        kills = kernel_kills()
        self._send({"config": config, "log": str(log)})
        answer = self._receive()
        if answer is not None:
            return Ending(**answer)
        if self._poll() == -signal.SIGKILL and kernel_kills() > kills:
            return Ending(OUT_OF_MEMORY, "its process was killed by the system")
        return Ending(DIED, f"its process {self._epitaph()}")

    def interrupt(self) -> None:
        """Ask it to give its trial back and to end."""
        with self._lock:
            if self._poll() is None:
                os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, with everything that it started."""
        with self._lock:
            if self._poll() is None:
                self._kill_group()

    def close(self) -> None:
        """Let it end, and wait until it has. Its own log goes if there is nothing in it."""
        if self._orders in _launcher_fds:
            _launcher_fds.discard(self._orders)
            os.close(self._orders)
        if not self._gone_within(_LEAVE):
            self.kill()
            self._gone_within(_LEAVE)
        if self._answers in _launcher_fds:
            _launcher_fds.discard(self._answers)
            os.close(self._answers)
        with contextlib.suppress(OSError):
            if self._output.stat().st_size == 0:
                self._output.unlink()

    # --- the pipes

    def _send(self, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has ended, which is what _receive finds out
            write_line(self._orders, message)

    def _receive(self) -> dict[str, Any] | None:
        """The next answer; None if the process ends without one."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            while b"\n" not in self._received:
                over = self._poll() is not None  # looked at first: what it wrote before it ended is still read
                if selector.select(0 if over else _LOOK):
                    chunk = os.read(self._answers, 65536)
                    self._received += chunk
                    over = not chunk
                if over:
                    self._gone_within(_LEAVE)
                    return None
        line, _, self._received = self._received.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    # --- the process

    def _poll(self) -> int | None:
        """Its return code, None while it runs. What it has started is killed when it ends."""
        with self._lock:
            if hasattr(os, "waitid"):
                with contextlib.suppress(ChildProcessError):  # it has been waited for
                    if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                        return None
                    self._kill_group()  # ended but not waited for: the number cannot be another's yet
            return self._process.poll()

    def _gone_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._poll() is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def _epitaph(self) -> str:
        """How the process ended, as the end of a sentence."""
        code = self._poll()
        if code is None:
            return "does not answer any more"
        if code >= 0:
            return f"ended with exit status {code}"
        name = signal.Signals(-code).name
        return f"was killed by {name}" + (" (by the system, if memory ran out)" if name == "SIGKILL" else "")


def tail(path: Path, lines: int = 10) -> str:
    """The last lines of a log, each after a line break; empty if there is nothing."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - 8192))
            text = log.read().decode(errors="replace")
    except OSError:
        return ""
    last = [line.rpartition("\r")[2] for line in text.rstrip().splitlines()[-lines:]]
    return "".join(f"\n    {line}" for line in last)


def _spawn(launch: Launch, environment: Mapping[str, str], pipes: tuple[int, int], out: IO[bytes]) -> _Process:
    command = [sys.executable, "-P", "-m", "workers.runner", "--target", launch.target, "--pipes", *map(str, pipes)]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, pass_fds=pipes, process_group=0
    )


class _Forked:
    """What is needed of a subprocess.Popen, for a process that was forked."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None:
            with contextlib.suppress(ChildProcessError):
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code


def _fork(launch: Launch, environment: Mapping[str, str], pipes: tuple[int, int], out: IO[bytes]) -> _Process:
    """The runner for a function that exists in this process only, as those of a notebook do."""
    from workers.runner import run_forked  # here, because `python -m workers.runner` imports this package first

    train = launch.train
    if train is None:
        raise ValueError("there is no function to fork with")
    null = os.open(os.devnull, os.O_RDONLY)
    pid = os.fork()  # of all threads here only this one goes on over there, and needs none of the others
    if pid:
        os.close(null)
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(pid, pid)  # both sides do it, so that neither is too late
        return _Forked(pid)
    os.setpgid(0, 0)
    for fd in _launcher_fds:
        os.close(fd)
    for source, target in ((null, 0), (out.fileno(), 1), (out.fileno(), 2)):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(environment)
    return run_forked(train, *pipes, launch.grace)
