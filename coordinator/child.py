"""A child process that does not outlive its parent, and the rule for starting it again."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from coordinator.savedir import open_log

_PR_SET_PDEATHSIG = 1
_POLL = 0.005
_KILLS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_ENDED_BY_OTHERS = frozenset([0, *(-s for s in _KILLS), *(128 + s for s in _KILLS)])


class Child:
    """One running process in a session of its own; what is left of its process group is killed when it ends."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        stdin: Path = Path(os.devnull),
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        """Start `argv` with its output appended to `log`. To be called from the main thread only (see _end_with)."""
        with stdin.open("rb") as given, os.fdopen(open_log(log), "ab") as out:
            self._process = subprocess.Popen(
                argv,
                stdin=given,
                stdout=out,
                stderr=out,
                env=env,
                pass_fds=pass_fds,
                start_new_session=True,
                preexec_fn=_end_with(os.getpid()),  # noqa: PLW1509 - the supervisor has one thread
            )

    @property
    def pid(self) -> int:
        """Its process id, and that of its process group."""
        return self._process.pid

    def poll(self) -> int | None:
        """None while it runs, else its return code (negative: the signal that ended it)."""
        if self._process.returncode is None and hasattr(os, "waitid"):
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return None
            # Ended but not reaped: its pid cannot be another's yet, so this can only hit what it left behind
            # (the fitting process of a coordinator, the rewriting child of a server).
            self._kill_group()
        return self._process.poll()

    def stop(self, grace: float) -> None:
        """SIGTERM, up to `grace` seconds to end, then SIGKILL; returns when it has ended."""
        if self.poll() is not None:
            return
        self._process.terminate()
        deadline = time.monotonic() + grace
        while self.poll() is None:
            if time.monotonic() > deadline:
                self._kill_group()
            time.sleep(_POLL)

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


class Restarts:
    """When to start a child again after it ended: soon if others killed it, never if it keeps failing by itself."""

    LIMIT = 5
    """So many failures of its own within WINDOW are the last."""
    WINDOW = 60.0
    """Seconds after which an end is forgotten."""
    FIRST_WAIT = 0.05
    LONGEST_WAIT = 1.0

    def __init__(self) -> None:
        self._ends: deque[tuple[float, bool]] = deque()

    def ended(self, now: float, *, own_fault: bool) -> float | None:
        """Note an end at `now`; the seconds to wait before the next start, or None to give up."""
        self._ends.append((now, own_fault))
        while now - self._ends[0][0] > self.WINDOW:
            self._ends.popleft()
        if sum(fault for _, fault in self._ends) >= self.LIMIT:
            return None
        return float(min(self.LONGEST_WAIT, self.FIRST_WAIT * 2 ** (len(self._ends) - 1)))


def ended_by_others(code: int) -> bool:
    """Whether this return code says that somebody else ended the process, or asked it to: that blames nobody."""
    return code in _ENDED_BY_OTHERS


def _end_with(parent: int) -> Callable[[], None] | None:
    """What the child runs before exec, so that it gets SIGTERM when `parent` ends, however that ends (Linux only).

    The signal comes when the *thread* that forked ends: start children from the main thread.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def before_exec() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:  # it ended before the call above
            os._exit(1)

    return before_exec
