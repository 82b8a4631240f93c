import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from hpopt.embedded import EmbeddedServer, closed_mark
from hpopt.errors import EmbeddedError, MissingExtra, SavePathInUse

ROOT = Path(__file__).resolve().parents[1]
FAKE = ["--module", "fake_coordinator"]
DEADLINE = 15.0
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
Operator = subprocess.Popen[str]

OPERATOR = """
import json, os, signal, sys, time
from hpopt.embedded import EmbeddedServer
from coordinator.resp import Resp

def say(**facts):
    print(json.dumps(facts), flush=True)

def ping():
    with Resp(server._home / "s") as connection:
        return connection.call("PING")

server = EmbeddedServer.start(sys.argv[1], options=["--module", "fake_coordinator"])
say(url=server.url, pid=server.pid)
"""


@pytest.fixture(autouse=True)
def _fake_coordinator_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests"), str(ROOT)]))


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Callable[[str], Operator]]:
    """Starts an operator in a process of its own, which has a server in tmp_path and then runs the given lines."""
    started: list[Operator] = []

    def start(lines: str) -> Operator:
        process = subprocess.Popen(
            [sys.executable, "-c", OPERATOR + lines, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def hear(process: Operator) -> dict[str, Any]:
    """The next line that an operator says."""
    assert process.stdout is not None
    heard: dict[str, Any] = json.loads(process.stdout.readline())
    return heard


def wait_until(done: Callable[[], object]) -> None:
    """Return as soon as `done` is true; fail at the deadline."""
    deadline = time.monotonic() + DEADLINE
    while not done():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether the process runs (a dead one may wait for its parent to look)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def processes(save_path: Path) -> list[int]:
    """The pids of all processes whose command line names the private directory of this save_path."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if os.fsencode(save_path / ".hpopt") in entry.read_bytes():
                found.append(int(entry.parent.name))
    return found


def starts(client: redis.Redis) -> list[dict[str, Any]]:
    """What each start of the fake coordinator noted."""
    return [json.loads(note) for note in client.lrange("fake:starts", 0, -1)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A running server in tmp_path."""
    with EmbeddedServer.start(tmp_path, options=FAKE) as running:
        yield running


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[redis.Redis]:
    """A client of `server`, which tries for some seconds to find it again."""
    with redis.Redis.from_url(server.url, decode_responses=True) as connected:
        yield connected


def outlast(call: Callable[[], Any]) -> Any:
    """The result of `call`, repeated while the server is away."""
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            return call()
        except (redis.ConnectionError, redis.BusyLoadingError):
            assert time.monotonic() < deadline, "the server does not come back"
            time.sleep(0.01)


def test_nothing_is_left_after_close(tmp_path: Path) -> None:
    """A closed server leaves no process, and a mark beside the socket that it is gone."""
    server = EmbeddedServer.start(tmp_path, options=FAKE)
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        wait_until(lambda: starts(client))
    assert len(processes(tmp_path)) == 3
    assert not closed_mark(server.url)
    server.close()
    assert processes(tmp_path) == []
    assert closed_mark(server.url)
    server.close()


def test_data_is_there_at_the_next_start(tmp_path: Path) -> None:
    """A second start in the same save_path has the first one's data and its URL, and no mark of its end."""
    with EmbeddedServer.start(tmp_path, options=FAKE) as first, redis.Redis.from_url(first.url) as client:
        client.set("kept", "yes")
    with EmbeddedServer.start(tmp_path, options=FAKE) as second, redis.Redis.from_url(second.url) as client:
        assert client.get("kept") == b"yes"
        assert second.url == first.url
        assert not closed_mark(second.url)


def test_server_is_private_and_durable(tmp_path: Path, client: redis.Redis) -> None:
    """The server syncs each write, evicts nothing, has no TCP port, and nobody else may read its files."""
    config = client.config_get()
    wanted = {"appendonly": "yes", "appendfsync": "always", "save": "", "maxmemory-policy": "noeviction", "port": "0"}
    assert {name: config[name] for name in wanted} == wanted
    assert config["enable-debug-command"] == config["enable-module-command"] == "no"
    home = tmp_path / ".hpopt"
    assert home.stat().st_mode & 0o777 == 0o700
    assert [path for path in home.rglob("*") if path.stat().st_mode & 0o077] == []


def test_coordinator_gets_its_arguments_and_no_other_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The coordinator is started with our URL and the extra arguments; HPOPT_URL does not reach it."""
    monkeypatch.setenv("HPOPT_URL", "redis://elsewhere")
    with (
        EmbeddedServer.start(tmp_path, extra_args=["--tick", "0.1"], options=FAKE) as server,
        redis.Redis.from_url(server.url, decode_responses=True) as client,
    ):
        wait_until(lambda: starts(client))
        (note,) = starts(client)
    assert note["argv"] == ["--url", server.url, "--embedded", "--tick", "0.1"]
    assert note["HPOPT_URL"] is None


@pytest.mark.parametrize("name", ["with space", "größe-日本", "a%20b?#'\"\\{}*", "x" * 120])
def test_any_save_path_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Spaces, other scripts, quotes and long names in save_path make no difference to a client of the URL."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with EmbeddedServer.start(tmp_path / name, options=FAKE) as server, redis.Redis.from_url(server.url) as client:
        assert client.ping()
        assert not closed_mark(server.url)
    assert closed_mark(server.url)


def test_acknowledged_writes_survive_kill_of_server(client: redis.Redis) -> None:
    """A server killed by -9 comes back at the same socket with every write that was acknowledged."""
    acknowledged = [number for number in range(200) if client.rpush("numbers", number)]
    pid = int(client.info("server")["process_id"])
    os.kill(pid, signal.SIGKILL)
    assert outlast(lambda: client.lrange("numbers", 0, -1)) == [str(number) for number in acknowledged]
    assert int(client.info("server")["process_id"]) != pid


def test_killed_coordinator_is_started_again(client: redis.Redis) -> None:
    """A coordinator killed by -9, again and again, is replaced; the server goes on meanwhile."""
    server_pid = client.info("server")["process_id"]
    for times in range(1, 7):
        wait_until(lambda times=times: len(starts(client)) == times)  # type: ignore[misc]
        os.kill(starts(client)[-1]["pid"], signal.SIGKILL)
    wait_until(lambda: len(starts(client)) == 7)
    assert client.info("server")["process_id"] == server_pid


def test_killed_supervisor_is_replaced(server: EmbeddedServer, client: redis.Redis) -> None:
    """When the supervisor is killed by -9, another takes over: same URL, same data, no process too many."""
    client.set("kept", "yes")
    client.set("hpopt:{default/study}:alive:uid:0:0:life", "1")
    wait_until(lambda: len(starts(client)) == 1)
    first = server.pid
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: server.pid != first)
    wait_until(lambda: len(outlast(lambda: starts(client))) == 2)
    assert client.get("kept") == "yes"
    assert client.exists("hpopt:{default/study}:alive:uid:0:0:life"), "the operator is the same: its trainers live"
    assert len(processes(server._home.parent)) == 3
    server.check()


def test_supervisor_ended_on_purpose_is_not_replaced(server: EmbeddedServer) -> None:
    """SIGTERM to the supervisor ends all of it; `check` raises what happened."""
    os.kill(server.pid, signal.SIGTERM)
    wait_until(lambda: server._failure)
    with pytest.raises(EmbeddedError, match="SIGTERM"):
        server.check()
    assert closed_mark(server.url)
    assert processes(server._home.parent) == []


def test_all_ends_with_a_killed_operator(tmp_path: Path, operator: Callable[[str], Operator]) -> None:
    """An operator killed by -9 leaves no process, and its successor can start at once."""
    process = operator("time.sleep(60)")
    facts = hear(process)
    process.kill()
    with EmbeddedServer.start(tmp_path, options=FAKE) as server:
        assert server.url == facts["url"]
        assert not is_alive(facts["pid"])
    assert processes(tmp_path) == []


def test_all_ends_with_an_operator_that_just_exits(tmp_path: Path, operator: Callable[[str], Operator]) -> None:
    """An operator that never calls close() takes its server along when it exits."""
    process = operator("")
    hear(process)
    assert process.wait(DEADLINE) == 0
    assert processes(tmp_path) == []


def test_exit_of_a_forked_child_changes_nothing(operator: Callable[[str], Operator]) -> None:
    """A forked child that exits, with all its exit handlers, leaves the parent's server alone."""
    process = operator(
        "if os.fork() == 0:\n    server.close()\n    sys.exit()\n"
        "say(status=os.wait()[1], pong=ping())\n"
        "server.close()\nsay(closed=True)\n"
    )
    hear(process)
    assert hear(process) == {"status": 0, "pong": "PONG"}
    assert hear(process) == {"closed": True}


@pytest.mark.parametrize(
    "spawn",
    [
        "child = os.fork()\nif child == 0:\n    time.sleep(60)\n    os._exit(0)\n",
        "import subprocess; child = subprocess.Popen(['/bin/sleep', '60'], close_fds=False).pid\n",
    ],
    ids=["fork", "exec"],
)
def test_a_child_that_lives_on_keeps_nothing_alive(operator: Callable[[str], Operator], spawn: str) -> None:
    """The server ends with its operator even if a child of the operator lives on."""
    process = operator(spawn + "say(child=child)\ntime.sleep(60)")
    supervisor, child = hear(process)["pid"], hear(process)["child"]
    try:
        process.kill()
        wait_until(lambda: not is_alive(supervisor))
        assert is_alive(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_interrupt_from_the_keyboard_is_the_operators_business(operator: Callable[[str], Operator]) -> None:
    """Ctrl-C reaches the operator's process group; the server is still there for what the operator has to do."""
    process = operator(
        "try:\n    say(trying=True)\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    say(pong=ping())\n"
    )
    supervisor = hear(process)["pid"]
    hear(process)
    os.killpg(process.pid, signal.SIGINT)
    assert hear(process) == {"pong": "PONG"}
    assert process.wait(DEADLINE) == 0
    assert not is_alive(supervisor)


def test_second_process_is_told_who_is_first(tmp_path: Path, operator: Callable[[str], Operator]) -> None:
    """A second process on one save_path gets the first one's pid, and disturbs nothing."""
    process = operator("sys.stdin.readline()\nsay(pong=ping())\n")
    hear(process)
    with pytest.raises(SavePathInUse, match=rf"in use by process {process.pid}\b.*HPOPT_URL"):
        EmbeddedServer.start(tmp_path, options=FAKE)
    print(file=process.stdin, flush=True)
    assert hear(process) == {"pong": "PONG"}


def test_second_server_of_one_process_is_refused(tmp_path: Path, server: EmbeddedServer) -> None:
    """The same in one process says so."""
    with pytest.raises(SavePathInUse, match="this process"):
        EmbeddedServer.start(tmp_path, options=FAKE)
    server.check()


def test_missing_server_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a server to run, the error is MissingExtra."""
    monkeypatch.setenv("HPOPT_VALKEY_BIN", "no-such-server")
    with pytest.raises(MissingExtra, match="HPOPT_VALKEY_BIN='no-such-server'"):
        EmbeddedServer.start(tmp_path, options=FAKE)


def test_unsafe_save_path_is_refused(tmp_path: Path) -> None:
    """A directory that everyone may write to is not used."""
    save_path = tmp_path / "open"
    save_path.mkdir()
    save_path.chmod(0o777)
    with pytest.raises(EmbeddedError, match="writable by everyone: chmod o-w"):
        EmbeddedServer.start(save_path, options=FAKE)


def program(path: Path, text: str) -> str:
    """A shell script to run as the server."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return str(path)


def test_failing_server_shows_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not start is given up soon, and its last words are in the error."""
    monkeypatch.setenv("HPOPT_VALKEY_BIN", program(tmp_path / "server", "echo last words; exit 1"))
    with pytest.raises(EmbeddedError, match=r"valkey keeps failing[\s\S]*last words"):
        EmbeddedServer.start(tmp_path, options=FAKE)


def test_hanging_server_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that never answers is given up at the timeout, and ended."""
    monkeypatch.setenv("HPOPT_VALKEY_BIN", program(tmp_path / "server", "exec sleep 60 "))
    with pytest.raises(EmbeddedError, match=r"not ready within 0\.5 s"):
        EmbeddedServer.start(tmp_path, options=FAKE, timeout=0.5)
    assert processes(tmp_path) == []


def test_failing_coordinator_ends_the_server(tmp_path: Path) -> None:
    """A coordinator that keeps failing is given up; its log is in the error that `check` raises."""
    with EmbeddedServer.start(tmp_path, options=FAKE, extra_args=["--fail"]) as server:
        wait_until(lambda: server._failure)
        with pytest.raises(EmbeddedError, match=r"coordinator keeps failing[\s\S]*fake failure"):
            server.check()
    assert closed_mark(server.url)


@pytest.mark.parametrize("url", ["redis://host:6379", "rediss://host", ""])
def test_closed_mark_is_about_unix_sockets(url: str) -> None:
    """A server on the network has no mark."""
    assert not closed_mark(url)


def test_socket_without_directory_is_closed(tmp_path: Path) -> None:
    """An operator whose directory was deleted is gone."""
    assert closed_mark(f"unix://{tmp_path}/deleted/s")
