"""The parent of a bundled server and of a coordinator, for an operator that has no Redis (or for `--serve`).

It ends when its standard input does: the operator holds the other end of that pipe, so this covers every way in which
an operator can end. It prints one line of JSON: where the server is, or why there is none. It imports nothing but the
standard library, so that it is up in a moment and has nothing to fail at.
"""

import argparse
import contextlib
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from coordinator import extra
from coordinator.child import Child, Restarts, ended_by_others
from coordinator.refusal import Refused
from coordinator.savedir import SaveDir, open_log, write_private
from coordinator.valkey import URL_FILE, Valkey, shut_down_orphan
from coordinator.wakeup import Ended, Events

_STDOUT, _STDERR = 1, 2
_POLL = 0.005
_COORDINATOR_GRACE = 5.0
"""Seconds for the coordinator to finish what it has read, before it is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says."""

    directory: Path
    """The private directory, <save_path>/.hpopt."""
    appendfsync: str = "always"
    port: int | None = None
    """TCP port to serve on as well (0: choose one); None: the unix socket only, for one operator."""
    again: bool = False
    """Takes the place of a supervisor that was killed: the operator is the same one."""
    module: str = "coordinator"
    coordinator_args: Sequence[str] = ()

    @property
    def serve(self) -> bool:
        """Whether this runs in a terminal rather than for an operator process."""
        return self.port is not None


class Supervisor:
    """One server and one coordinator, kept running until it is time to end."""

    def __init__(self, options: Options) -> None:
        """Take the directory: raises Refused, or Ended."""
        if lacking := extra.problem():
            raise Refused("missing", lacking)
        self._options = options
        self._events = Events(serve=options.serve)
        self._home = SaveDir(options.directory)
        self._server = Valkey(self._home, appendfsync=options.appendfsync, port=options.port)
        self._home.claim(self._events.pause, operator=os.getpid() if options.serve else os.getppid())
        self._server.check_port()
        if not options.serve:
            _redirect(open_log(self._home.path / "supervisor.log"), _STDERR)
        self._server_ends = Restarts()
        self._coordinator: Child | None = None
        self._coordinator_ends = Restarts()

    def run(self) -> NoReturn:
        """Start both, say so, keep them running; always ends by Refused or Ended, with both stopped."""
        reason = "killed by an error of its own"
        try:
            self._home.lock_data(self._events.pause, self._evict)
            self._start_server()
            if not self._options.again and not self._options.serve:
                self._server.forget_heartbeats()  # its operator is new; one on a port may have trainers that live on
            self._start_coordinator()
            self._announce()
            while True:
                self._keep()
        except (Ended, Refused, OSError) as end:
            reason = str(end)
            raise
        finally:
            self._stop(reason)

    def _keep(self) -> None:
        """Start again what has ended; if nothing has, wait."""
        if (code := self._server.poll()) is not None:
            self._log(f"server {self._server.pid} ended with {code}")
            self._back_off("valkey", self._server_ends, own_fault=False)  # it did answer
            self._start_server()
        elif self._coordinator and (code := self._coordinator.poll()) is not None:
            self._log(f"coordinator {self._coordinator.pid} ended with {code}")
            self._back_off("coordinator", self._coordinator_ends, own_fault=not ended_by_others(code))
            self._start_coordinator()
        else:
            self._events.pause(60)

    def _start_server(self) -> None:
        """Start the server and wait until it answers, however long it takes to load its file.

        One that answered before and finds the disk full now is tried until there is room: who waits loses nothing.
        """
        full = False
        while True:
            self._server.start()
            while (code := self._server.poll()) is None:
                if self._server.ready():
                    self._log(f"server {self._server.pid} is ready")
                    return
                self._events.pause(_POLL)
            was_full, full = full, self._home.is_full()
            if not (was_full and full):
                why = ": the disk is full, it is started again until there is room" if full else ""
                self._log(f"server {self._server.pid} ended with {code} before it was ready{why}")
            own_fault = code == 0 or not ended_by_others(code)
            self._back_off("valkey", self._server_ends, own_fault=own_fault and not (full and self._server.answered))

    def _start_coordinator(self) -> None:
        kind = "--served" if self._options.serve else "--embedded"
        command = [sys.executable, "-P", "-m", self._options.module, "--url", self._server.url, kind]
        environment = _environment()
        if self._options.serve:
            environment["HPOPT_PASSWORD_FILE"] = str(self._home.path / "password")
        self._coordinator = Child(
            [*command, *self._options.coordinator_args], log=self._home.path / "coordinator.log", env=environment
        )
        self._log(f"coordinator {self._coordinator.pid} started")

    def _back_off(self, name: str, ends: Restarts, *, own_fault: bool) -> None:
        wait = ends.ended(time.monotonic(), own_fault=own_fault)
        if wait is None:
            why = f"{'there is no room on its disk, ' * self._home.is_full()}see {self._home.path / name}.log"
            raise Refused("failed", f"the {name} keeps failing: {why}")
        until = time.monotonic() + wait
        while (left := until - time.monotonic()) > 0:
            self._events.pause(left)

    def _evict(self, socket: Path) -> None:
        if shut_down_orphan(socket, self._home.path / "password"):
            self._log("an earlier server was still there, and was asked to end")

    def _announce(self) -> None:
        if self._options.serve:
            where = self._home.path / URL_FILE
            write_private(where, self._server.tcp_url + "\n")
            _say(f'Serving. In the other terminals:  export HPOPT_URL="$(cat {shlex.quote(str(where))})"')
            return
        pids = {"server_pid": self._server.pid, "coordinator_pid": self._coordinator and self._coordinator.pid}
        _say(json.dumps({"url": self._server.url, "pid": os.getpid(), **pids}))
        _redirect(os.open(os.devnull, os.O_WRONLY), _STDOUT)

    def _stop(self, reason: str) -> None:
        """The mark comes first: it also tells the next supervisor that this one is on its way out."""
        self._log(f"ending: {reason}")
        with contextlib.suppress(OSError):  # a full disk must not keep the children alive
            self._home.mark_closed(reason)
        if self._coordinator:
            self._coordinator.stop(_COORDINATOR_GRACE)
        self._server.stop()
        self._log("ended")

    def _log(self, text: str) -> None:
        _say(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}", _STDERR)


def run(options: Options) -> int:
    """Supervise until it is time to end; returns the exit status (0: asked to end, else see EXIT_CODES)."""
    os.umask(0o077)
    try:
        Supervisor(options).run()
    except Ended:
        return 0
    except Refused as refusal:
        return _refuse(refusal, serve=options.serve)
    except OSError as error:
        return _refuse(Refused("failed", str(error)), serve=options.serve)


def serve(save_path: str | os.PathLike[str], *, port: int = 0, coordinator_args: Sequence[str] = ()) -> int:
    """Run a server on a TCP port of this machine, with a password, and a coordinator, until SIGINT or SIGTERM."""
    return run(Options(directory=Path(save_path, ".hpopt"), port=port, coordinator_args=coordinator_args))


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; what stands behind `--` is handed to the coordinator."""
    words = list(sys.argv[1:] if argv is None else argv)
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(prog="python -m coordinator.supervisor", description=__doc__, allow_abbrev=False)
    parser.add_argument("--dir", type=Path, required=True, dest="directory", help="its private directory")
    parser.add_argument("--appendfsync", choices=["always", "everysec", "no"], default="always")
    parser.add_argument("--port", type=int, help="serve on this TCP port of 127.0.0.1 too, in the foreground (0: any)")
    parser.add_argument("--serve", action="store_const", const=0, dest="port", help="the same as --port 0")
    parser.add_argument("--again", action="store_true", help="a supervisor for the same operator was killed")
    parser.add_argument("--module", default="coordinator", help="what to run as the coordinator")
    return run(Options(**vars(parser.parse_args(words[:cut])), coordinator_args=words[cut + 1 :]))


def _refuse(refusal: Refused, *, serve: bool) -> int:
    if serve:
        _say(str(refusal), _STDERR)
    else:
        _say(json.dumps(refusal.as_dict()))
    return refusal.exit_code


def _say(line: str, fd: int = _STDOUT) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more, or the disk is full: not worth ending for
        os.write(fd, f"{line}\n".encode(errors="backslashreplace"))


def _redirect(source: int, target: int) -> None:
    os.dup2(source, target)
    os.close(source)


def _environment() -> dict[str, str]:
    """Ours, with what a child needs to import the same code as we did, and without another server's address.

    hpopt.embedded has the same lines for us: neither of the two packages may import the other.
    """
    environment = {name: value for name, value in os.environ.items() if name != "HPOPT_URL"}
    root = str(Path(__file__).resolve().parents[1])
    known = environment.get("PYTHONPATH", "")
    if Path(root).name not in ("site-packages", "dist-packages") and root not in known.split(os.pathsep):
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, known)))
    return environment


if __name__ == "__main__":
    sys.exit(main())
