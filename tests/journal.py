"""A journal that survives the death of whoever writes it: one JSON line per entry, appended in one write."""

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Entry = dict[str, Any]


class Journal:
    """Appends entries to a file; threads and processes may share it."""

    def __init__(self, path: Path) -> None:
        """The file is made if it is not there."""
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, **entry: Any) -> None:
        """Add an entry, and the time (monotonic seconds: comparable between the processes of a machine)."""
        os.write(self._fd, (json.dumps({"at": time.monotonic(), **entry}) + "\n").encode())


def read(paths: Iterable[Path]) -> list[Entry]:
    """The entries of several journals in the order of time."""
    lines = (line for path in paths for line in path.read_text(encoding="ascii").splitlines())
    return sorted(map(json.loads, lines), key=lambda entry: entry["at"])
