import threading
from pathlib import Path
from typing import Any

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
        mirror.close()
