"""Hosts on this machine: network namespaces with addresses and host names of their own, on one switch.

    with Network() as network:
        server, worker = network.host("server"), network.host("worker1")
        worker.program(["python", "-c", f"... {server.address} ..."])
        worker.unplug()     # its packets are lost, and nobody tells it
        worker.crash()      # it has lost its power

A host has process ids of its own too, and its first process reads from a pipe of ours. So nothing of it outlives this
program, however that ends: the system closes the pipe, the first process ends, and takes all others and the network
along. Needs root, and the commands ip (iproute2), unshare and nsenter (util-linux).
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.server import DEADLINE, Program, until

NEEDED = ("ip", "unshare", "nsenter")
SUBNET = "10.77.0"
_FIRST = 'echo "$0" >/proc/sys/kernel/hostname && echo up && exec cat'
"""What the first process of a host does: name it, and wait for the end of the pipe."""
_OWN = ("--net", "--uts", "--mount", "--pid")


def why_not() -> str:
    """Why there can be no hosts here; "" if there can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "network namespaces need root"
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        return f"there is no {' and no '.join(missing)} here: apt-get install iproute2 util-linux"
    try:
        with Network() as network:
            network.host("trial")
    except (OSError, subprocess.SubprocessError) as error:
        words = getattr(error, "stderr", "") or str(error)
        return f"this system allows no network namespaces: {words.strip()}"
    return ""


class Network:
    """A switch, and the hosts that are plugged into it. The switch is a host without an address."""

    def __init__(self) -> None:
        """The switch is there when this returns. Raises OSError or SubprocessError if the system does not allow it."""
        self.hosts: list[Host] = []
        self.switch = Host("switch", "", None)
        try:
            self.switch.run("ip", "link", "add", "bridge", "type", "bridge")
            self.switch.run("ip", "link", "set", "dev", "bridge", "up")
        except BaseException:
            self.close()
            raise

    def host(self, name: str) -> "Host":
        """A host of this name (15 characters at most), with the next address, plugged in."""
        host = Host(name, f"{SUBNET}.{len(self.hosts) + 1}", self.switch)
        self.hosts.append(host)
        host.connect()
        return host

    def close(self) -> None:
        """End everything on all hosts."""
        for host in (*self.hosts, self.switch):
            host.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Host:
    """One of them."""

    def __init__(self, name: str, address: str, switch: "Host | None") -> None:
        """It runs when this returns, but has no cable yet."""
        self.name, self.address = name, address
        self._switch = switch
        self._programs: list[Program] = []
        command = ["unshare", *_OWN, "--mount-proc", "--fork", "--kill-child", "sh", "-c", _FIRST, name]
        self._outside = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        assert self._outside.stdout is not None
        said = self._outside.stdout.readline()
        if said != b"up\n":
            self.close()
            raise OSError(said.decode().strip())
        self._first = _child(self._outside)

    def connect(self) -> None:
        """Plug it in: a cable from its eth0 to the switch."""
        assert self._switch is not None
        ends = ("eth0", "netns", str(self._first), "type", "veth"), (self.name, "netns", str(self._switch._first))
        _run("ip", "link", "add", *ends[0], "peer", "name", *ends[1])
        self.plug()
        self._switch.run("ip", "link", "set", "dev", self.name, "up")
        self.run("ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            self.run("ip", "link", "set", "dev", device, "up")

    def run(self, *words: str) -> str:
        """What a command says, when it has ended well. Raises SubprocessError if it does not."""
        return _run(*self._inside, *words)

    def program(
        self,
        command: list[str],
        stdin: str = "",
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> Program:
        """Start a program there."""
        there = [] if folder is None else [f"--wdns={folder}"]
        program = _Guest([*self._inside, *there, *command], stdin, environment)
        self._programs.append(program)
        return program

    def unplug(self) -> None:
        """Lose every packet from and to it, without a word: its own end of the cable still looks well."""
        assert self._switch is not None
        self._switch.run("ip", "link", "set", "dev", self.name, "nomaster")

    def plug(self) -> None:
        """Let packets through again."""
        assert self._switch is not None
        self._switch.run("ip", "link", "set", "dev", self.name, "master", "bridge")

    def crash(self) -> None:
        """Kill -9 all that runs there. Nobody hears of it: the packets of connections that end are lost too."""
        self.unplug()
        os.kill(self._first, signal.SIGKILL)
        self.close()

    def close(self) -> None:
        """End all that runs there; returns when nothing does."""
        assert self._outside.stdin is not None
        assert self._outside.stdout is not None
        self._outside.stdin.close()
        self._outside.wait(DEADLINE)
        self._outside.stdout.close()
        for program in self._programs:
            program.wait()

    @property
    def _inside(self) -> list[str]:
        return ["nsenter", "--target", str(self._first), *_OWN]


class _Guest(Program):
    """A program on a host. What we have started is nsenter, which waits for it: signals go to its child."""

    @cached_property
    def pid(self) -> int:
        """The process id, as it is outside of the host."""
        return _child(self._process)

    def signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)


def _child(process: subprocess.Popen[Any]) -> int:
    """The process that a process has started, as soon as there is one. Raises ProcessLookupError if it has ended."""
    found: list[str] = []

    def look() -> bool:
        if process.poll() is None:
            found[:] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return bool(found) or process.returncode is not None

    until(look, f"process {process.pid} has a child")
    if not found:
        raise ProcessLookupError(f"process {process.pid} has ended")
    return int(found[0])


def _run(*words: str) -> str:
    done: Any = subprocess.run(words, capture_output=True, text=True, check=True, timeout=DEADLINE)
    return str(done.stdout)
