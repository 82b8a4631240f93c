"""A server, two coordinators and workers, each on a host of its own, and what is done to them: see tests/hosts.py."""

import secrets
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

import hpopt
from tests import check_history, digits_trainer
from tests.fleet_history import Name, attempts
from tests.fleet_scale import Blow, Scale
from tests.hosts import Network
from tests.journal import Entry, read
from tests.server import ROOT, Program, Server, until

STUDY = "default/fleet"
GIVEN_UP_AFTER = 240.0
"""Seconds without a heartbeat after which a trial is handed out again: its expiry, and a coordinator's grace."""
TRAINER = str(ROOT / "tests" / "digits_trainer.py")
WORK: dict[str, tuple[str, ...]] = {"command": ("--", sys.executable, TRAINER), "function": (f"{TRAINER}:train",)}
"""The end of a worker's command line."""


class Fleet:
    """The hosts, what runs on them, and what is done to them."""

    def __init__(self, folder: Path, network: Network, scale: Scale, say: Callable[[str], None] = print) -> None:
        """The server runs when this returns. `folder`: for all that is kept, and seen from all hosts."""
        self.folder, self.scale = folder, scale
        self._say = say
        self._began = time.monotonic()
        self.timeline: list[tuple[float, str]] = []
        names = ("server", "coordinator1", "coordinator2", *scale.forms)
        self.hosts = {name: network.host(name) for name in names}
        self.journals, self._gate = folder / "journals", folder / "gate"
        for each in (self.journals, self._gate):
            each.mkdir(parents=True)
        password, host = secrets.token_hex(16), self.hosts["server"]
        settings = {"port": "6379", "bind": host.address, "requirepass": password}
        self.server = Server(folder / "server", **settings)
        self.server.begin = host.program
        self.server.start()
        self.url = f"redis://:{password}@{host.address}:6379"
        self.socket_url = f"{self.server.url}?password={password}"
        self.redis = redis.Redis.from_url(self.socket_url)
        self._running: dict[str, list[Program]] = {}
        self._started: list[tuple[str, Program]] = []
        self.hpo = self._create()

    def _create(self) -> hpopt.HpOpt:
        """The study; coordinators and workers come to it."""
        self._coordinators()
        workers = sum(map(len, self.scale.forms.values()))
        return hpopt.create(
            digits_trainer.TRAINED, self.scale.iterations, digits_trainer.SPACE, save_path=self.folder / "results",
            study="fleet", url=self.socket_url, num_trials=self.scale.trials, max_iterations=self.scale.iterations,
            subset_ratio=1.0, early_stop="median_stop", grace_period=0.5, num_workers=workers, seed=1,
        )  # fmt: skip  # the grace keeps trials going until they are in their middle, where hosts are hit

    # --- what runs

    def _start(self, host: str, *command: str) -> Program:
        environment = {
            "HPOPT_URL": self.url, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1",
            digits_trainer.JOURNALS: str(self.journals),
            digits_trainer.GATE: str(self._gate) if self.scale.gated else "",
        }  # fmt: skip
        words = [sys.executable, "-P", "-m", *command]
        program = self.hosts[host].program(words, environment=environment, folder=self.folder)
        self._running.setdefault(host, []).append(program)
        self._started.append((f"{host}-{len(self._started)}.out", program))
        return program

    def _coordinators(self) -> None:
        for host in ("coordinator1", "coordinator2"):
            self._start(host, *self.scale.coordinator).wait_for("coordinator ready")

    def work(self, host: str) -> None:
        """Start the workers of a host."""
        common = ("workers", "--study", "fleet", "--checkpoints", str(self.folder / "checkpoints"))
        for form in self.scale.forms[host]:
            self._start(host, *common, *WORK[form])

    # --- what is known

    def journal(self) -> list[Entry]:
        """What the trainers have noted so far."""
        return read(self.journals.glob("*.jsonl"))

    def _under_way(self, host: str) -> list[Name]:
        """The attempts of a host, if all its workers are in the middle of one; else none."""
        last = self.scale.iterations
        its = [each for each in attempts(self.journal()).values() if each.host == host and not each.over]
        found = [each.name for each in its if each.begins < each.step < last - last // 4]
        return found if len(found) == len(self.scale.forms[host]) else []

    def _ended(self) -> int:
        """How many trials have ended."""
        return sum(row.state in check_history.ENDED.values() for row in self.hpo.trials())

    def _wait(self, check: Callable[[], Any], what: str) -> None:
        """Wait until it has come to this; nothing that should run may end in the meantime."""

        def look() -> bool:
            for host, programs in self._running.items():
                for program in programs:
                    assert program.returncode is None, f"{host}: {program.wait()}\n{program.output}"
            return bool(check())

        until(look, what, self.scale.patience, pause=0.1)

    def note(self, text: str) -> None:
        """Keep for the timeline, and say."""
        self.timeline.append((time.monotonic() - self._began, text))
        self._say(f"{self.timeline[-1][0]:7.1f} s  {text}")

    # --- what is done to it

    def _hit(self, host: str, ended: int) -> list[Name]:
        """Wait until so many trials have ended and all workers of the host are in the middle of one."""
        under_way: list[Name] = []

        def look() -> bool:
            under_way[:] = self._under_way(host)
            return bool(under_way)

        self._wait(lambda: self._ended() >= ended, f"{ended} trials have ended")
        self._wait(look, f"all workers of {host} are in the middle of a trial")
        return under_way

    def crash(self, host: str, ended: int) -> Blow:
        """Kill everything there."""
        lost = self._hit(host, ended)
        self._running.pop(host)
        self.hosts[host].crash()
        blow = Blow(time.monotonic(), lost)
        self.note(f"{host} loses its power, with {blow} under way")
        if self.scale.gated:
            self._silence(lost)
        return blow

    def kill_coordinator(self) -> float:
        """Kill the one that keeps the study; when."""
        owner: Any = self.redis.hget(f"hpopt:{{{STUDY}}}:meta", "owner")
        host = owner.decode().partition("-")[0]
        (program,) = self._running.pop(host)
        program.kill()
        at = time.monotonic()
        self.note(f"the coordinator on {host}, which keeps the study, is killed")
        return at

    def cut(self, host: str, ended: int) -> Blow:
        """Cut it off for a while."""
        under_way = self._hit(host, ended)
        self.hosts[host].unplug()
        blow = Blow(time.monotonic(), under_way)
        self.note(f"{host} is cut off, with {blow} under way")
        if self.scale.gated:
            blow.given_up = under_way[:1]
            self._silence(blow.given_up)
            self._let_go(*under_way)
            self._hand_out_again(blow.given_up)
        elif self.scale.cut > GIVEN_UP_AFTER:
            blow.given_up = under_way
        self._wait(lambda: time.monotonic() > blow.at + self.scale.cut, "the cut has lasted")
        self._wait(lambda: all(attempts(self.journal())[name].calling for name in under_way), "all wait in a report")
        again = {(trial, attempt + 1) for trial, attempt in blow.given_up}
        self._wait(lambda: again <= attempts(self.journal()).keys(), f"{again} have begun")
        blow.over = time.monotonic()
        self.hosts[host].plug()
        self.note(f"{host} is plugged in again after {blow.over - blow.at:.1f} s")
        return blow

    def preempt(self, host: str, ended: int) -> Blow:
        """Send SIGTERM to its workers, and start them again later."""
        blow = Blow(time.monotonic(), self._hit(host, ended))
        programs, blow.at = self._running.pop(host), time.monotonic()
        for program in programs:
            program.signal(signal.SIGTERM)
        self.note(f"the workers of {host} get SIGTERM, with {blow} under way")
        statuses = [program.wait(self.scale.patience) for program in programs]
        assert statuses == [128 + signal.SIGTERM] * len(programs), [program.output for program in programs]
        self.note(f"they have ended, with exit status {statuses[0]}")
        blow.over = time.monotonic()
        self._wait(lambda: time.monotonic() > blow.over + self.scale.away, "it stays away")
        self.work(host)
        self.note(f"the workers of {host} are started again")
        (self._gate / "all").touch()
        return blow

    # --- a short study

    def _let_go(self, *names: Name) -> None:
        """Let these attempts go on."""
        for trial, attempt in names:
            (self._gate / f"{trial}-{attempt}").touch()

    def _hand_out_again(self, given_up: list[Name]) -> None:
        """Let others go on, up to the attempts that follow these, when their trials are to be handed out again."""
        trials = {trial for trial, _ in given_up}
        self._wait(
            lambda: all(row.state in ("lost", "waiting") for row in self.hpo.trials() if row.id in trials),
            f"trials {trials} are given up",
        )
        self._let_go(*((row.id, attempt) for row in self.hpo.trials() if row.id not in trials for attempt in (1, 2)))

    def _silence(self, lost: list[Name]) -> None:
        """Have the heartbeats of these attempts, and those of who was handed them, run out now."""
        prefix = f"hpopt:{{{STUDY}}}"
        handed = {trial.id: trial.session for trial in self.hpo._read()}
        sessions = [f"{prefix}:session:{handed[trial]}" for trial, _ in lost]
        alive = [key for trial, attempt in lost for key in self.redis.keys(f"{prefix}:alive:*:{trial}:{attempt}:*")]
        self.redis.delete(*sessions, *alive)

    def finish(self) -> None:
        """Wait until the workers say that every trial has ended; then end everything but the server."""
        workers = [program for host in self.scale.forms for program in self._running.pop(host, [])]
        for program in workers:
            assert program.wait(self.scale.patience) == 0, program.output
        self.note("the workers have ended by themselves: every trial has ended")
        for programs in self._running.values():
            for program in programs:
                program.signal(signal.SIGTERM)
                assert program.wait() == 0, program.output
        self.hpo.close()

    def close(self) -> None:
        """Let go of the server, and keep what everybody has said; the hosts end with their network."""
        for name, program in self._started:
            (self.folder / name).write_text(f"{program.output}\n", encoding="utf-8")
        self.hpo.close()
        self.redis.close()
        self.server.close()
