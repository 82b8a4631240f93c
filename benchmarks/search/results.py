"""Runs as they are stored: one file per peer, one line per run."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results"


class Key(NamedTuple):
    """What a run is of."""

    peer: str
    problem: str
    seed: int
    workers: int


def read(folder: Path) -> Iterator[tuple[Key, dict[str, Any]]]:
    """All stored runs, the older ones first. ValueError for a line that is none, as a full disk may leave one."""
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            try:
                stored = json.loads(line)
                key = Key(stored["peer"], stored["problem"], stored["seed"], stored["workers"])
            except (json.JSONDecodeError, KeyError) as error:
                raise ValueError(f"{path}, line {number} is no run: delete it, and it is run again") from error
            yield key, stored


def done(folder: Path, trials: int) -> dict[Key, str]:
    """The runs of at least so many trials, and the version that each is of."""
    return {key: stored["version"] for key, stored in read(folder) if len(stored["scores"]) >= trials}
