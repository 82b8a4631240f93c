"""compose.yaml and Dockerfile keep their promises; what the composition starts is run here without an engine."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from coordinator.__main__ import main
from coordinator.server_check import problems
from coordinator.valkey import find_server
from hpopt.core.address import without_credentials
from tests.server import ROOT, Program
from workers.__main__ import main as worker

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
VERSION = re.compile(r"docker\.io/[\w./-]+:\d+\.\d+\.\d+(-[\w-]+)?")
"""An image with the version that it has, as against the newest of a line; a digest is for the user to add."""
PASSWORD = "correct-horse.battery_staple~9"  # noqa: S105 - of a server that lives for a moment


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """The text as compose hands it on: ${NAME:-default} replaced, $$ a dollar."""
    found = re.sub(r"(?<!\$)\$\{(\w+):-([^}]*)\}", lambda match: variables.get(match[1], match[2]), text)
    return found.replace("$$", "$")


def composition(**variables: str) -> dict[str, Any]:
    """What compose makes of the file with these variables set."""
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(interpolated(text, variables))
    return found


SERVICES: dict[str, dict[str, Any]] = composition()["services"]


# --- what the file says


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_may_do_little(name: str) -> None:
    """No service is root, writes to its image, has a capability, can get one, or has a name or network of its own."""
    service = SERVICES[name]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "cap_add", "container_name", "network_mode", "pid", "ipc", "devices"}


def test_what_is_written_is_on_volumes() -> None:
    """Named volumes have the data and the results; no folder of the machine is in a container."""
    mounts = {name: service.get("volumes", []) for name, service in SERVICES.items()}
    assert mounts == {
        "valkey": ["valkey:/data"],
        "coordinator": [],
        "study": ["results:/results"],
        "worker": ["results:/results"],
    }
    assert composition()["volumes"].keys() == {"valkey", "results"}


def test_ports() -> None:
    """Only the server's port is published, on loopback only, so any number of coordinators can be started."""
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"valkey": ["127.0.0.1:6379:6379"]}
    assert composition(HPOPT_PORT="6400")["services"]["valkey"]["ports"] == ["127.0.0.1:6400:6379"]


def test_no_secret_is_shown() -> None:
    """The password comes from a file that git ignores; no environment and no command line has it."""
    assert composition()["secrets"] == {"password": {"file": "./secrets/password"}}
    assert "/secrets/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    for service in SERVICES.values():
        assert service["secrets"] == ["password"]
        for value in service.get("environment", {}).values():
            assert without_credentials(value) == value


def test_images_are_pinned() -> None:
    """Images that others make are named with their version; the variables that name others may add a digest."""
    assert {name for name, service in SERVICES.items() if "image" in service} == {"valkey"}
    assert VERSION.fullmatch(SERVICES["valkey"]["image"])
    pinned = f"docker.io/valkey/valkey@sha256:{'0' * 64}"
    assert composition(VALKEY_IMAGE=pinned)["services"]["valkey"]["image"] == pinned
    default = re.findall(r"^ARG PYTHON_IMAGE=(.+)$", DOCKERFILE, re.MULTILINE)
    assert len(default) == 1
    assert VERSION.fullmatch(default[0])
    stages = re.findall(r"^FROM (\S+) AS ([\w-]+)$", DOCKERFILE, re.MULTILINE)
    assert len(stages) == len(re.findall(r"^FROM ", DOCKERFILE, re.MULTILINE))
    names = [name for _, name in stages]
    assert {base for base, _ in stages} <= {"${PYTHON_IMAGE}", *names}
    assert names[-1] == "coordinator"  # what `docker build .` makes
    for service in ("coordinator", "study", "worker"):
        assert SERVICES[service]["build"]["target"] in names
        assert SERVICES[service]["build"]["args"]["PYTHON_IMAGE"] == default[0]
        changed = composition(PYTHON_IMAGE=pinned)["services"][service]["build"]["args"]
        assert changed["PYTHON_IMAGE"] == pinned


def test_packages_are_checked() -> None:
    """Whatever pip fetches for the coordinator has to have a hash of the lock, and is not compiled."""
    stages = dict(re.findall(r"^FROM \S+ AS ([\w-]+)$(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL))
    coordinators = "".join(text for name, text in stages.items() if name not in ("torch", "demo-packages", "demo"))
    installs = re.findall(r"pip (?:--python \S+ )?(?:install|wheel) (.+)", coordinators.replace("\\\n", ""))
    fetched = [options for options in installs if "--no-index" not in options]
    assert len(installs) == 4
    assert [options.split(" -r ")[0] for options in fetched] == ["--require-hashes --only-binary :all:"] * 2


def test_nothing_else_gets_into_a_build() -> None:
    """The context of a build is a list of what may be in it: no secret, no environment, no repository."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert allowed == {
        "LICENSE", "README.md", "constraints.txt", "coordinator", "examples/digits.py", "hpopt", "pyproject.toml",
        "requirements", "workers",
    }  # fmt: skip
    assert all((ROOT / name).exists() for name in allowed)


def test_services_that_stay() -> None:
    """Server and coordinators come back when they end, and say how they are; the demo only runs when asked for."""
    for name in ("valkey", "coordinator"):
        assert SERVICES[name]["restart"] == "unless-stopped"
        assert SERVICES[name]["healthcheck"].keys() >= {"test", "interval", "timeout", "retries", "start_period"}
        assert "profiles" not in SERVICES[name]
    assert SERVICES["coordinator"]["depends_on"] == {"valkey": {"condition": "service_healthy"}}
    assert {name for name, service in SERVICES.items() if service.get("profiles") == ["demo"]} == {"study", "worker"}


# --- what it starts


def test_the_coordinators_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """Service and health check name one file, in the memory that the container may write to."""
    kind, command, *words = SERVICES["coordinator"]["healthcheck"]["test"]
    assert (kind, command) == ("CMD", "hpopt-coordinator")
    assert 'ENTRYPOINT ["hpopt-coordinator"]' in DOCKERFILE
    heartbeat = Path(words[words.index("--heartbeat") + 1])
    assert SERVICES["coordinator"]["command"] == ["--heartbeat", str(heartbeat)]
    assert str(heartbeat.parent) in SERVICES["coordinator"]["tmpfs"]
    words[words.index(str(heartbeat))] = "/nowhere/at/all"
    assert main([*words, "--url", "redis://127.0.0.1:1"]) == 1
    assert capsys.readouterr().out.startswith("unhealthy: the server does not answer")


def test_the_demos_commands(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Study and workers name one study, and its script is where the image has it."""
    monkeypatch.delenv("HPOPT_URL", raising=False)
    python, script, *words = SERVICES["study"]["command"]
    command, *options = SERVICES["worker"]["command"]
    assert (python, command) == ("python", "hpopt-worker")
    assert "--resume" in words
    assert Path(words[words.index("--save-path") + 1]).name == options[options.index("--study") + 1]
    assert options[-1] == f"{script}:train"
    assert f"COPY examples/digits.py {Path(script).parent}/\n" in DOCKERFILE
    assert worker(options) == 1
    assert "where is the server? Pass --url" in capsys.readouterr().err


def shell(service: str, folder: Path, password: str, **variables: str) -> list[str]:
    """The entry point of a service, with its secret and its data in the folder."""
    (folder / "secret").write_text(password)
    words = composition(**variables)["services"][service]["entrypoint"]
    text = words[2].replace("/run/secrets/password", str(folder / "secret")).replace("dir /data", f"dir {folder}")
    return [*words[:2], text, *words[3:]]


@pytest.fixture
def valkey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    """The server as the composition starts it, on a socket; the client has the password."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "valkey-server").symlink_to(find_server())
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    command = shell("valkey", tmp_path, f"{PASSWORD}\n", HPOPT_APPENDFSYNC="always")
    command += [*SERVICES["valkey"]["command"], "--port", "0", "--unixsocket", str(tmp_path / "s")]
    program = Program(command)
    client = redis.Redis(unix_socket_path=str(tmp_path / "s"), password=PASSWORD)
    try:
        program.wait_for("Ready to accept connections|The server is now ready")
        shown = [Path(f"/proc/{program.pid}/{what}").read_text(encoding="utf-8") for what in ("cmdline", "environ")]
        assert "valkey-server" in shown[0]
        assert PASSWORD not in "".join(shown)
        yield client
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    finally:
        client.close()
        program.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_server(valkey: redis.Redis, tmp_path: Path) -> None:
    """A coordinator has nothing to say against it, it wants the password, and its data is its own only."""
    assert problems(valkey.info()) == ([], [])
    wanted = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction", "save": ""}
    assert {name: valkey.config_get(name)[name] for name in wanted} == wanted
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(unix_socket_path=str(tmp_path / "s")).ping()
    assert (tmp_path / "appendonlydir").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("password", ["", "\n", "two words", 'quo"te', "café", "a\nrequirepass b"])
def test_a_password_that_would_be_read_wrongly(tmp_path: Path, password: str) -> None:
    """The server does not start with it, and says what it may be."""
    program = Program(shell("valkey", tmp_path, password))
    assert program.wait() == 1
    assert program.output == "The password file is empty, or has other characters than letters, digits and . _ ~ -"


def test_the_demos_url(tmp_path: Path) -> None:
    """Study and workers get the URL with the password, and run what stands in their command; not without the file."""
    for name in ("study", "worker"):
        command = [*shell(name, tmp_path, f"{PASSWORD}\n"), "sh", "-c", 'echo "$HPOPT_URL $0"', "a  b"]
        program = Program(command)
        assert program.wait() == 0
        assert program.output == f"redis://:{PASSWORD}@valkey:6379 a  b"
        (tmp_path / "secret").unlink()
        without = subprocess.run(command, capture_output=True, text=True, check=False)
        assert without.returncode != 0
        assert not without.stdout
