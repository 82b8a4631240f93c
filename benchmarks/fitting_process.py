"""The process in which a coordinator has surrogates fitted, looked at from outside: through /proc of Linux."""

import contextlib
import time
from pathlib import Path

from benchmarks.latency import children
from hpopt.embedded import EmbeddedServer

PROC = Path("/proc")


def fitting_process(server: EmbeddedServer) -> int:
    """Its process id."""
    coordinator = children(server.pid)["coordinator"]
    for stat in PROC.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(_fields(stat)[1])
            if parent == coordinator and b"spawn_main" in stat.with_name("cmdline").read_bytes():
                return int(stat.parent.name)
    raise RuntimeError("the coordinator has no fitting process")


def used(pid: int) -> tuple[float, float]:
    """Seconds that its first thread, the one that fits, has worked and has waited for a core, to the nanosecond."""
    worked, waited, _ = (PROC / str(pid) / "schedstat").read_text(encoding="ascii").split()
    return int(worked) / 1e9, int(waited) / 1e9


def wait_until_idle(pid: int) -> None:
    """Return when it has been asleep at ten looks in a row."""
    asleep = 0
    while asleep < 10:
        asleep = asleep + 1 if _fields(PROC / str(pid) / "stat")[0] == "S" else 0
        time.sleep(0.01)


def _fields(stat: Path) -> list[str]:
    """What follows the command's name: the state, the parent's process id, ..."""
    return stat.read_text(encoding="utf-8").rpartition(")")[2].split()
