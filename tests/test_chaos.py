"""Whole studies while coordinators and servers are killed at the worst moments, judged by tests/check_history.py."""

import itertools
import logging
import math
import shutil
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.chaos import Chaos
from tests.journal import Entry
from tests.server import ROOT, SHORT, Server

LEASE = float(SHORT[1])

log = logging.getLogger(__name__)


@pytest.fixture
def chaos(server: Server) -> Iterator[Chaos]:
    """Chaos on a private server; it ends with the test."""
    its = Chaos(server)
    yield its
    its.stop()


# --- kills


def dealt(seed: int, number: int) -> list[str]:
    """So many faults, a quarter of them for the server, the phases of the commit in turn."""
    random = Random(seed)
    kinds = itertools.product(("kill", "kill", "server", "kill"), ("before", "in", "after"))
    return [f"{when}:{random.randint(2, 12)}:{what}" for what, when in itertools.islice(itertools.cycle(kinds), number)]


def recoveries(faults: list[Entry], journal: list[Entry]) -> list[float]:
    """Seconds from a fault until a report that was made after it is acknowledged, unless another fault came first."""
    called: dict[tuple[int, ...], float] = {}
    acknowledged = []
    for entry in journal:
        if entry["op"] == "report":
            key = (entry["trial"], entry["attempt"], entry["step"])
            if entry["phase"] == "call":
                called[key] = entry["at"]
            else:
                acknowledged.append((called[key], entry["at"]))
    found = []
    for fault, following in itertools.pairwise([*faults, {"at": math.inf}]):
        done = next((done for call, done in acknowledged if call > fault["at"]), math.inf)
        if done < following["at"]:
            found.append(done - fault["at"])
    return found


def in_flight(at: float, journal: list[Entry]) -> Counter[str]:
    """How many calls of each kind were made before, and not answered by then."""
    calls: Counter[str] = Counter()
    for entry in itertools.takewhile(lambda entry: entry["at"] < at, journal):
        calls[entry["op"]] += 1 if entry["phase"] == "call" else -1
    return calls


def test_kills(chaos: Chaos) -> None:
    """Nothing acknowledged is lost or doubled, though coordinators and server are killed in every phase of a commit."""
    chaos.deal(dealt(seed=1, number=28))
    chaos.start()
    for _ in range(2):
        chaos.load(trainers=8, num_workers=16, num_trials=130)
    journal = chaos.finish()
    assert chaos.violations(journal) == []
    faults = chaos.faults()
    struck = Counter((fault["what"], fault["when"]) for fault in faults)
    assert len(faults) >= 20
    assert set(struck) == set(itertools.product(("kill", "server"), ("before", "in", "after")))
    acknowledged = sum(entry["op"] == "report" and entry["phase"] == "done" for entry in journal)
    assert acknowledged >= 1_000
    busy = [in_flight(fault["at"], journal) for fault in faults]
    assert sum(each["report"] >= 8 and each["ask"] >= 1 for each in busy) >= 20
    took = recoveries(faults, journal)
    assert max(took) <= LEASE + 2
    assert "Traceback" not in "\n".join(chaos.log)
    log.info("kills %s, acknowledged %d, recovery p50 %.2f s, max %.2f s", dict(struck), acknowledged,
             statistics.median(took), max(took))  # fmt: skip


# --- would the checker notice? The same scenarios, with and without what they are about

FENCE = """if fence[1] ~= ARGV[1] or fence[2] ~= ARGV[2] then
  return 'FENCED'
end
"""
DUPLICATE = " and event.step > trial.last_step"


def mutant(folder: Path, file: str, text: str) -> Path:
    """A copy of the packages whose `file` lacks a piece of its text."""
    for package in ("coordinator", "hpopt"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    source = (folder / file).read_text(encoding="utf-8")
    assert source.count(text) == 1
    (folder / file).write_text(source.replace(text, ""), encoding="utf-8")
    return folder


def overtaken(chaos: Chaos) -> list[Entry]:
    """A coordinator stands still in the middle of a commit; another one takes over; then the first one goes on."""
    first = chaos.coordinator("before+:20:pause")
    first.wait_for("coordinator ready")
    chaos.load(trainers=8, num_workers=9, num_trials=16)
    first.wait_paused()
    second = chaos.coordinator()
    second.wait_for("trial (stopped|completed)")
    first.go_on()
    first.wait_for("study dropped from memory|lease lost")
    return chaos.finish()


def repeated(chaos: Chaos) -> list[Entry]:
    """Everything that operators and trainers send arrives twice, at different times."""
    chaos.coordinator().wait_for("coordinator ready")
    operator = chaos.load(trainers=4, num_workers=5, num_trials=12)
    inbox, last, ours = "hpopt:{default/run}:inbox", "0", set()
    while operator.returncode is None:
        found: Any = chaos.server.redis.xread({inbox: last}, count=5, block=100)
        for _, entries in found:
            for entry_id, fields in entries:
                last = entry_id
                if entry_id not in ours:
                    ours.add(chaos.server.redis.xadd(inbox, fields))
    assert len(ours) > 50
    return chaos.finish()


@pytest.mark.parametrize(
    ("scenario", "file", "text"),
    [(overtaken, "coordinator/commit.lua", FENCE), (repeated, "hpopt/core/attempts.py", DUPLICATE)],
    ids=["fence", "duplicates"],
)
@pytest.mark.parametrize("mutated", [False, True], ids=["as it is", "without"])
def test_of_the_test(
    chaos: Chaos, scenario: Callable[[Chaos], list[Entry]], file: str, text: str, *, mutated: bool
) -> None:
    """The scenario does no harm; without the one check that is there against it the checker finds doubled scores."""
    if mutated:
        chaos.path = mutant(chaos.folder / "mutant", file, text)
    found = chaos.violations(scenario(chaos))
    assert any("stored twice" in each for each in found) == mutated, found
    assert mutated or not found
