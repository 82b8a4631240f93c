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
    """All stored runs."""
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            stored = json.loads(line)
            yield Key(stored["peer"], stored["problem"], stored["seed"], stored["workers"]), stored


def done(folder: Path, trials: int) -> set[Key]:
    """The runs of at least so many trials."""
    return {key for key, stored in read(folder) if len(stored["scores"]) >= trials}
