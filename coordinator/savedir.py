"""The private directory of one bundled server: <save_path>/.hpopt, who owns it, and where its socket is.

Two locks make it exclusive. `owner` is held by the supervisor alone and tells whether one lives; `lock` is inherited
by the server, so that no second server can touch the data while the first lives, even after its supervisor died.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import socket
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coordinator.refusal import Refused

_SOCKET_LIMIT = 100
"""Bytes. The systems allow 104 (macOS) or 108 (Linux) with the final zero."""
_LOG_LIMIT = 4 << 20
_ROOM = 1 << 20
"""Bytes; with less than this on its disk a server may not be able to begin."""
_POLL = 0.02
_IN_USE_AFTER = 1.0
"""Seconds to wait for an owner that may be about to notice that its operator ended."""
_CLOSING_WAIT = 20.0
"""Seconds to wait for an owner, or a server without one, that is ending."""


class SaveDir:
    """A checked directory, private to this user. Raises Refused("refused") if it is not safe to use."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        given = Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute keeps the dots
        parent = Path(os.path.realpath(given.parent))
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise Refused("refused", f"{parent} is no folder: pass the path of one, which may be new") from None
        if _open_to_all(parent.stat().st_mode):
            raise Refused("refused", f"{parent} is writable by everyone: chmod o-w it, or use another directory")
        self.path = parent / given.name
        _make_private(self.path)
        self.socket = _socket_path(self.path)
        self.closed_mark = Path(f"{self.socket}.closed")
        self._owner = -1
        self.lock_fd = -1
        self._last_socket: object = None

    def claim(self, pause: Callable[[float], None], *, operator: int) -> None:
        """Become the one supervisor of this directory, for the process `operator`; waits for one that is ending.

        Raises Refused("in_use") with the pids of the living supervisor and of its operator.
        """
        self._owner = _open_private(self.path / "owner")
        if not _wait_for(lambda: _try_lock(self._owner), self._patience, pause):
            raise self._in_use()
        self._last_socket = self._read_owner().get("socket")
        self._write_owner(operator)
        with contextlib.suppress(FileNotFoundError):
            self.closed_mark.unlink()

    def lock_data(self, pause: Callable[[float], None], evict: Callable[[Path], None]) -> None:
        """Take the lock that the server inherits; `evict` asks a server that is still at a socket to end.

        The socket an earlier owner noted is believed only if the lock is held: the directory may be a copy of another.
        """
        self.lock_fd = _open_private(self.path / "lock")
        evict(self.socket)
        if not _try_lock(self.lock_fd) and isinstance(self._last_socket, str):
            evict(Path(self._last_socket))
        if not _wait_for(lambda: _try_lock(self.lock_fd), lambda: _CLOSING_WAIT, pause):
            raise Refused(
                "failed", f"a server without a supervisor still holds {self.path / 'lock'} and does not end: kill it"
            )

    def mark_closed(self, reason: str) -> None:
        """Leave the mark that tells trainers that nothing will come back at this socket."""
        try:
            write_private(self.closed_mark, reason + "\n")
        except OSError:  # the disk is full, but there may be room for an empty file
            os.close(_open_private(self.closed_mark))

    def is_full(self) -> bool:
        """Whether the disk has no room for us, or we have used up our share of it: only a write shows both."""
        try:
            with tempfile.TemporaryFile(dir=self.path) as file:
                file.write(os.urandom(_ROOM))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            return error.errno in {errno.ENOSPC, errno.EDQUOT}
        return False

    def _patience(self) -> float:
        ending = self.closed_mark.exists() or not _runs(self._read_owner().get("operator"))
        return _CLOSING_WAIT if ending else _IN_USE_AFTER

    def _write_owner(self, operator: int) -> None:
        host = os.uname().nodename
        record = {"pid": os.getpid(), "operator": operator, "host": host, "socket": str(self.socket)}
        os.ftruncate(self._owner, 0)
        os.pwrite(self._owner, json.dumps(record).encode(), 0)

    def _read_owner(self) -> dict[str, Any]:
        try:
            record = json.loads(os.pread(self._owner, 4096, 0))
        except ValueError:  # empty (never owned) or cut off by a crash
            return {}
        return record if isinstance(record, dict) else {}

    def _in_use(self) -> Refused:
        record = self._read_owner()
        pid, operator = record.get("pid"), record.get("operator")
        message = f"{self.path.parent} is in use by process {operator} on {record.get('host')}"
        return Refused("in_use", message, pid=pid, operator=operator)


def write_private(path: Path, text: str) -> None:
    """Put `text` at `path`, readable by us only, at once and whole; a link there is replaced, not followed."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        draft.replace(path)
    except OSError:
        draft.unlink()
        raise


def open_log(path: Path) -> int:
    """A descriptor that appends to the log at `path`; what is over 4 MiB is moved to <path>.old first."""
    with contextlib.suppress(FileNotFoundError):
        if path.lstat().st_size > _LOG_LIMIT:
            path.replace(f"{path}.old")
    return _open_private(path, os.O_WRONLY | os.O_APPEND)


def _open_private(path: Path, flags: int = os.O_RDWR) -> int:
    try:
        return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Refused("refused", f"cannot open {path} ({error.strerror}); it must be a plain file") from error


def _runs(pid: object) -> bool:
    if not isinstance(pid, int):
        return True  # nothing is known of it
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is somebody else's
        return True
    return True


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise Refused("refused", f"this file system has no locks ({error.strerror}): use a local one") from error
    return True


def _wait_for(done: Callable[[], bool], patience: Callable[[], float], pause: Callable[[float], None]) -> bool:
    start = time.monotonic()
    while not done():
        if time.monotonic() - start > patience():
            return False
        pause(_POLL)
    return True


def _open_to_all(mode: int) -> bool:
    """Everyone may rename what others put there (the sticky bit of /tmp forbids it)."""
    return bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX


def _make_private(path: Path) -> None:
    """Make `path` a directory of mode 0700, or check that it is one of ours that nobody else could write to."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise Refused("refused", f"{path} is not a directory (links are not followed): {error.strerror}") from error
    try:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid():
            raise Refused("refused", f"{path} belongs to user {found.st_uid}, not to us: use another directory")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Refused("refused", f"{path} is writable by others: remove it, or use another directory")
        os.fchmod(fd, 0o700)
    finally:
        os.close(fd)


def _socket_path(directory: Path) -> Path:
    """<directory>/s if the system can take it; else a short path that depends on the directory alone."""
    if _usable(directory / "s") and _takes_sockets(directory):
        return directory / "s"
    name = f"hpopt-{os.geteuid()}-{hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]}"
    for base in (os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp"):  # noqa: S108 - checked below
        short = Path(base, name)
        if base and _usable(short / "s") and os.access(base, os.W_OK | os.X_OK):
            _make_private(short)
            return short / "s"
    raise Refused("refused", f"no directory for a socket: {directory} is too long, and no temporary one works")


def _takes_sockets(directory: Path) -> bool:
    """Some network and shared file systems hold files only."""
    probe = directory / "p"
    with contextlib.suppress(FileNotFoundError):
        probe.unlink()
    try:
        with socket.socket(socket.AF_UNIX) as trial:
            trial.bind(str(probe))
        probe.unlink()
    except OSError:
        return False
    return True


def _usable(path: Path) -> bool:
    """Short enough, and text that survives being quoted in a URL."""
    try:
        return path.is_absolute() and len(str(path).encode()) < _SOCKET_LIMIT
    except UnicodeEncodeError:  # not UTF-8
        return False
