"""The private directory of a bundled server."""

import errno
import os
from pathlib import Path
from typing import NoReturn

import pytest

from coordinator.refusal import Refused
from coordinator.savedir import SaveDir, open_log, write_private


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The private directory of the server."""
    return tmp_path / ".hpopt"


def never(_seconds: float) -> NoReturn:
    """In the place of a pause, where none may be needed."""
    raise AssertionError("had to wait")


def test_directory_is_made_private(tmp_path: Path) -> None:
    """The directory is made with its parents, for us alone; one that others could read is closed to them."""
    home = tmp_path / "new" / "save" / ".hpopt"
    SaveDir(home)
    home.chmod(0o755)
    SaveDir(home)
    assert home.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_directory_that_others_could_write_is_refused(home: Path, mode: int) -> None:
    """What others may have put into the directory is not trusted."""
    home.mkdir()
    home.chmod(mode)
    with pytest.raises(Refused, match="writable by others"):
        SaveDir(home)


def test_parent_that_everyone_can_write_is_refused_unless_sticky(home: Path) -> None:
    """In a directory like /tmp nobody can replace ours; without the sticky bit everyone could."""
    home.parent.chmod(0o777)
    with pytest.raises(Refused, match="writable by everyone"):
        SaveDir(home)
    home.parent.chmod(0o1777)
    SaveDir(home)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_directory_of_another_user_is_refused(home: Path) -> None:
    """A directory that is not ours is not used."""
    home.mkdir(mode=0o700)
    os.chown(home, 12345, -1)
    with pytest.raises(Refused, match="belongs to user 12345"):
        SaveDir(home)


def test_links_are_not_followed(tmp_path: Path, home: Path) -> None:
    """A link in the place of the directory or of a file in it is refused, and its target is left alone."""
    (tmp_path / "target").mkdir()
    home.symlink_to(tmp_path / "target")
    with pytest.raises(Refused, match="links are not followed"):
        SaveDir(home)
    home.unlink()
    place = SaveDir(home)
    (home / "owner").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refused, match="must be a plain file"):
        place.claim(never, operator=1)
    assert not (tmp_path / "elsewhere").exists()


def test_written_file_replaces_a_link(tmp_path: Path) -> None:
    """What we write is private, and goes to its place rather than through a link there."""
    (tmp_path / "victim").write_text("kept")
    (tmp_path / "file").symlink_to(tmp_path / "victim")
    write_private(tmp_path / "file", "text")
    assert (tmp_path / "file").read_text() == "text"
    assert (tmp_path / "file").lstat().st_mode & 0o777 == 0o600
    assert (tmp_path / "victim").read_text() == "kept"


def test_long_log_is_set_aside(tmp_path: Path) -> None:
    """A log is appended to until it is too long; then a new one is begun and the old one kept."""
    log = tmp_path / "log"
    for text in (b"first ", b"second "):
        with os.fdopen(open_log(log), "wb") as file:
            file.write(text)
    assert log.read_bytes() == b"first second "
    os.truncate(log, 5 << 20)
    os.close(open_log(log))
    assert log.stat().st_size == 0
    assert (tmp_path / "log.old").stat().st_size == 5 << 20


@pytest.mark.parametrize("name", [b"x" * 120, b"not-utf-8-\xff"])
def test_socket_falls_back_to_a_short_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: bytes) -> None:
    """Where the directory's path cannot be a socket's, a private directory of a name that it alone determines is."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    long = tmp_path / os.fsdecode(name) / ".hpopt"
    socket = SaveDir(long).socket
    assert socket.parent.parent == tmp_path
    assert socket.parent.stat().st_mode & 0o777 == 0o700
    assert SaveDir(long).socket == socket
    assert SaveDir(tmp_path / ("y" * 120)).socket != socket


def test_planted_socket_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's link in the place of the short directory is not followed."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    long = tmp_path / ("x" * 120)
    short = SaveDir(long).socket.parent
    short.rmdir()
    short.symlink_to(tmp_path)
    with pytest.raises(Refused, match="links are not followed"):
        SaveDir(long)


@pytest.mark.parametrize(
    ("code", "full"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False), (None, False)]
)
def test_room_on_a_disk(home: Path, monkeypatch: pytest.MonkeyPatch, code: int | None, full: bool) -> None:
    """A disk is full for us when a megabyte cannot be written; nothing is left of it, whatever comes of it."""

    def fsync(fd: int) -> None:
        assert os.fstat(fd).st_size == 1 << 20
        if code is not None:
            raise OSError(code, os.strerror(code))

    directory = SaveDir(home)
    before = sorted(home.iterdir())
    monkeypatch.setattr(os, "fsync", fsync)
    assert directory.is_full() is full
    assert sorted(home.iterdir()) == before
