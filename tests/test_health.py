"""What the health check of one coordinator says: `hpopt-coordinator --check --heartbeat FILE`."""

import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import hpopt
from coordinator import extra
from coordinator.__main__ import main, with_password
from coordinator.heartbeat import Heartbeat
from tests.conftest import Create, Quick, Start
from tests.server import ROOT, Program, Server, until
from tests.studies import sample

USAGE = 2


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """The heartbeats of two coordinators, in a folder of their own."""
    (tmp_path / "beats").mkdir()
    return tmp_path / "beats" / "one", tmp_path / "beats" / "two"


def kept_by(quick: Quick, file: Path) -> Program:
    """A coordinator that keeps the heartbeat, and has begun to."""
    program = quick("--heartbeat", str(file))
    assert Heartbeat(file).problem() == ""
    return program


def check(start: Start, file: Path) -> tuple[int, str]:
    """The exit status of the command, and the line that it prints."""
    program = start("--check", "--heartbeat", str(file))
    return program.wait(), program.output


def fails(file: Path) -> None:
    """Return when the heartbeat has run out, as it does within seconds."""
    until(lambda: Heartbeat(file).problem() != "", "the heartbeat runs out")


def test_one_of_two(start: Start, quick: Quick, files: tuple[Path, Path]) -> None:
    """A coordinator that was killed is unhealthy, whatever others do; one that follows it is healthy."""
    first, _ = kept_by(quick, files[0]), kept_by(quick, files[1])
    assert check(start, files[0]) == (0, "healthy")
    first.kill()
    fails(files[0])
    status, said = check(start, files[0])
    assert status == 1
    assert said.startswith(f"unhealthy: the coordinator of {files[0]} hangs, or has lost the server: ")
    assert check(start, files[1]) == (0, "healthy")
    kept_by(quick, files[0])
    assert check(start, files[0]) == (0, "healthy")


def test_a_coordinator_that_hangs(start: Start, quick: Quick, files: tuple[Path, Path]) -> None:
    """A process that is there and does nothing is unhealthy, until it goes on."""
    coordinator = kept_by(quick, files[0])
    coordinator.pause()
    fails(files[0])
    assert check(start, files[0])[0] == 1
    coordinator.go_on()
    until(lambda: check(start, files[0]) == (0, "healthy"), "it is healthy again")


def test_no_server(start: Start, quick: Quick, server: Server, files: tuple[Path, Path]) -> None:
    """A coordinator that has lost its server is unhealthy and waits; it is healthy when the server is back."""
    kept_by(quick, files[0])
    server.kill()
    fails(files[0])
    status, said = check(start, files[0])
    assert status == 1
    assert said.startswith("unhealthy: the server does not answer: ")
    server.start()
    until(lambda: check(start, files[0]) == (0, "healthy"), "it is healthy again")


def test_before_and_after(start: Start, quick: Quick, files: tuple[Path, Path]) -> None:
    """A coordinator that has not started, or has ended in good order, is unhealthy at once."""
    line = f"unhealthy: the coordinator of {files[0]} has not reached the server yet, or has ended"
    assert check(start, files[0]) == (1, line)
    coordinator = kept_by(quick, files[0])
    coordinator.signal(signal.SIGTERM)
    assert coordinator.wait() == 0
    assert check(start, files[0]) == (1, line)


def test_what_an_earlier_coordinator_left(start: Start, server: Server, files: tuple[Path, Path]) -> None:
    """The heartbeat of a coordinator that was killed does not stand for the next one, which has no server yet."""
    Heartbeat(files[0]).beat(1000.0)
    server.kill()
    start("--heartbeat", str(files[0])).wait_for("server not reachable")
    assert check(start, files[0])[0] == 1


def test_a_file_that_cannot_be_written_later(quick: Quick, study: Create, files: tuple[Path, Path]) -> None:
    """A heartbeat whose folder has gone is told of, and costs no study its coordinator."""
    coordinator = kept_by(quick, files[0])
    hpo = study()
    shutil.rmtree(files[0].parent)
    coordinator.wait_for("heartbeat not written", count=3)
    assert hpopt.report(sample(hpo), 0.1) is hpopt.Status.RUNNING
    assert not [line for line in coordinator.lines if "leases not renewed" in line or "lease lost" in line]


def test_a_folder_that_is_not_there(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """The error names the option and the file."""
    with pytest.raises(SystemExit) as ended:
        main(["--url", "redis://127.0.0.1:1", "--heartbeat", str(files[0] / "below")])
    assert ended.value.code == USAGE
    said = capsys.readouterr().err
    assert "--heartbeat: pass a file that can be written: " in said
    assert str(files[0] / "below") in said


def test_a_check_is_cheap(files: tuple[Path, Path]) -> None:
    """While all is well the check needs no connection, and loads nothing that takes time."""
    Heartbeat(files[0]).beat(1000.0)
    code = (
        "import sys; from coordinator.__main__ import main; "
        f"status = main(['--check', '--heartbeat', {str(files[0])!r}]); print(status, *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    said, _, rest = done.stdout.partition("\n")
    status, *loaded = rest.split()
    assert (said, status) == ("healthy", "0")
    assert not {"redis", "msgpack", "hpopt", "numpy"}.intersection(loaded)


def test_a_wrong_password(tmp_path: Path, start: Start) -> None:
    """The check says that the server does not let us in, and what to look at."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    locked = Server(tmp_path / "server", requirepass="right", port=str(port)).start()
    try:
        url = f"redis://:wrong@127.0.0.1:{port}"
        said = start("--url", url, "--check")
        assert said.wait() == 1
        assert said.output.startswith("unhealthy: the server refuses us, check the credentials: ")
    finally:
        locked.close()


def test_a_password_file_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names the variable and the file."""
    monkeypatch.setenv("HPOPT_PASSWORD_FILE", str(tmp_path / "password"))
    with pytest.raises(SystemExit) as ended:
        main(["--url", "redis://127.0.0.1:1"])
    assert ended.value.code == USAGE
    said = capsys.readouterr().err
    assert "HPOPT_PASSWORD_FILE: pass a file that can be read: " in said
    assert str(tmp_path / "password") in said


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://host:6379", "redis://:p%2Fw@host:6379"),
        ("redis://user@host", "redis://user:p%2Fw@host"),
        ("redis+sentinel://a:1,b:2/main", "redis+sentinel://:p%2Fw@a:1,b:2/main"),
        ("unix:///run/a@b", "unix://:p%2Fw@/run/a@b"),
        ("redis://user:own@host", "redis://user:own@host"),
        ("unix:///run/a?password=own", "unix:///run/a?password=own"),
    ],
)
def test_a_password_file(tmp_path: Path, url: str, expected: str) -> None:
    """Its password goes with the user's name, if there is one, and never instead of another password."""
    file = tmp_path / "password"
    file.write_text("p/w\n")
    assert with_password(url, {"HPOPT_PASSWORD_FILE": str(file)}) == expected


def test_a_heartbeat_of_a_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The bundled server looks after its coordinator itself: a heartbeat beside it is refused."""
    with pytest.raises(SystemExit) as ended:
        main(["--serve", str(tmp_path), "--heartbeat", str(tmp_path / "beat")])
    assert ended.value.code == USAGE
    assert "--heartbeat: it is for a coordinator with --url" in capsys.readouterr().err


def test_a_base_install_is_told_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command ends at once, before it takes a study."""
    monkeypatch.setattr(extra, "find_spec", lambda name: None if name in {"numpy", "sortedcontainers"} else name)
    with pytest.raises(SystemExit) as caught:
        main(["--url", "redis://127.0.0.1:1"])
    assert caught.value.code == USAGE
    said = capsys.readouterr().err
    assert "a coordinator needs numpy, sortedcontainers: pip install 'hpopt[coordinator]'" in said
