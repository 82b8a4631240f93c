import errno
import threading
from pathlib import Path
from typing import Any

import pytest

from hpopt import mirror
from hpopt.mirror import Mirror


def test_files_are_looked_after_again_soon_after_an_outage(tmp_path: Path) -> None:
    """A server that took its time to answer, or did not, does not leave the files alone for twenty times as long."""
    asked, there = threading.Semaphore(0), threading.Event()

    def changed() -> object:
        asked.release()
        there.wait(timeout=10)
        raise ConnectionError("away")

    nothing: Any = None
    mirror = Mirror(tmp_path, nothing, nothing, nothing, changed)
    try:
        assert asked.acquire(timeout=10)
        assert not there.wait(timeout=1.0)
        there.set()
        assert asked.acquire(timeout=10)
    finally:
        mirror.close(10)


def test_files_that_cannot_be_written_are_spoken_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is not passed over in silence, nor mentioned every second."""
    tries: list[Path] = []

    def full(folder: Path, *_: object) -> None:
        tries.append(folder)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(mirror, "write_files", full)
    nothing: Any = None
    its = Mirror(tmp_path, lambda: (nothing, nothing), list, nothing, lambda: len(tries))
    its.close(10)
    its._write()
    said = f"the results files in {tmp_path} cannot be written: [Errno {errno.ENOSPC}] No space left on device"
    assert caplog.text.count(said) == 1
    assert len(tries) == 2
