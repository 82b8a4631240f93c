"""Runs as they are stored: one file per peer, one line per run."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results"


class Key(NamedTuple):
    """What a run is of."""

    peer: str
    task: str
    seed: int
    workers: int
    timing: str = "instant"


def read(folder: Path) -> Iterator[tuple[Key, dict[str, Any]]]:
    """All stored runs, the older ones first. ValueError for a line that is none, as a full disk may leave one."""
    for path in sorted(folder.glob("*.jsonl")):
        with path.open() as file:
            for number, line in enumerate(file, 1):
                try:
                    stored = json.loads(line)
                    yield Key(*(stored[name] for name in Key._fields)), stored
                except (json.JSONDecodeError, KeyError) as error:
                    raise ValueError(f"{path}, line {number} is no run: delete it, and it is run again") from error


def done(folder: Path, horizon: float) -> dict[Key, str]:
    """The runs of at least this horizon, and the version that each is of."""
    return {key: stored["version"] for key, stored in read(folder) if stored["horizon"] >= horizon}
