"""What a model costs those who wait: reports while surrogates are fitted, and samples right after a result.

    python -m benchmarks.serving                              # from the repository's root
    python -m benchmarks.serving --reports 300 --rounds 1 --trials 200 --asks 5 --appendfsync everysec    # quicker
    python -m benchmarks.serving --output docs/serving.md     # as a page

Every figure is taken in turn with a PING of the same client on the same machine, so that their ratio holds when the
absolute figures do not. One operator, one coordinator, one server, all on this machine, which runs Linux.
"""

import argparse
import contextlib
import math
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import redis

import hpopt
from benchmarks.fitting_process import fitting_process, used, wait_until_idle
from benchmarks.latency import served, timed
from hpopt.embedded import EmbeddedServer

SPACE = {
    "lr": hpopt.search_space("loguniform", [1e-5, 1e-1]),
    "decay": hpopt.search_space("loguniform", [1e-6, 1e-2]),
    "momentum": hpopt.search_space("uniform", [0.5, 1.0]),
    "dropout": hpopt.search_space("uniform", [0.0, 0.6]),
    "width": hpopt.search_space("qloguniform", [16, 512, 16]),
    "layers": hpopt.search_space("quniform", [1, 8, 1]),
    "smoothing": hpopt.search_space("uniform", [0.0, 0.3]),
    "optimizer": hpopt.search_space("choice", ["sgd", "adam", "rmsprop"]),
}
NOTE = """\
Every row has its own PINGs, by redis-py from the same process, one before each call. The studies have eight
hyper-parameters. p99 of a busy machine is noise of that machine: the PINGs tell.

Reports are those of one trainer. In a round with fits another process ends trials of a second study on the same server
and coordinator, so that there always is a result which no fit has used yet; in a quiet round the fitting process
sleeps. What it worked is its CPU time, as a share of the round; in the rest of its busy time it waited for a core.

Two controls. In a round with events the other process ends trials of a third study, without a model, as often as it
did in the round with fits before: the same messages, and no fit. In a round with a spinning process there is nothing
but a program that counts for as long as the round takes and has nothing to do with hpopt: what it costs is what any
program costs that takes a core of this machine.

Right after a result: with one worker a suggestion knows every result, so the request waits for the fit that the result
began. With eight workers seven other trials are under way, and a suggestion made before that result is handed out
while the next ones are made."""
TIMES = "p50 (us)|p99 (us)|PING p50 (us)|PING p99 (us)"


@dataclass
class Sample:
    """Durations in seconds of one kind of call, and of the PINGs beside it."""

    calls: list[float] = field(default_factory=list)
    pings: list[float] = field(default_factory=list)
    worked: float = 0.0
    """The fitting process's CPU time: its share of a round, or seconds per result."""
    busy: float = 0.0
    """The share of a round in which the fitting process worked or waited for a core."""
    results: int = 0
    """Ended trials of the study with the model."""

    def take(self, client: Any, call: Callable[[], Any]) -> Any:
        """Time a PING and the call; what the call returned."""
        self.pings.append(timed(client.ping)[0])
        took, answer = timed(call)
        self.calls.append(took)
        return answer

    def cells(self) -> list[str]:
        """What TIMES names."""
        return [f"{1e6 * at(each, share):.0f}" for each in (self.calls, self.pings) for share in (0.5, 0.99)]


def at(values: Iterable[float], share: float) -> float:
    """The quantile: the smallest value with so large a share of all below it."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@contextlib.contextmanager
def study(server: EmbeddedServer, name: str, **arguments: Any) -> Iterator[hpopt.HpOpt]:
    """A study whose trials end with their first report, unless something else is asked for."""
    settings: dict[str, Any] = {"num_trials": 100_000, "max_iterations": 1, "subset_ratio": 1.0, "seed": 1}
    settings |= {"url": server.url, "study": name, **arguments}
    folder = Path(tempfile.mkdtemp(prefix="hpopt-bench-results-"))
    try:
        with hpopt.create(1000, 1_000_000, SPACE, save_path=folder, **settings) as hpo:
            yield hpo
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def config_of(hpo: hpopt.HpOpt) -> dict[str, Any]:
    """The next config, which there must be."""
    config = hpo.get_next_sample()
    assert config is not None
    return config


def end(config: dict[str, Any]) -> None:
    """The trial's only report, of a score that a model can learn."""
    params = config["params"]
    score = -abs(params["lr"] - 0.003) - params["dropout"] / 10 - (params["layers"] - 4) ** 2 / 100
    status = hpopt.report(config, score + 0.1 * (params["optimizer"] == "adam"))
    assert status is hpopt.Status.STOP


def fill(hpo: hpopt.HpOpt, trials: int) -> None:
    """End so many trials, one after the other."""
    for _ in range(trials):
        end(config_of(hpo))


def keep_busy(url: str, name: str, going: Event, stop: Event) -> None:
    """In a process of its own: end trials of a study with two workers faster than fits can use the results.

    A request waits for the next fit only when both suggestions of the last one have been used: then a trial has ended
    since the next fit began, so that the one after it begins in the moment when that ends.
    """
    with hpopt.join(name, url) as hpo:
        fill(hpo, 4)
        going.set()
        while not stop.is_set():
            fill(hpo, 1)


def spin(going: Event, stop: Event) -> None:
    """In a process of its own: take a core."""
    going.set()
    while not stop.is_set():
        sum(range(10_000))


def keep_pace(url: str, name: str, every: float, going: Event, stop: Event) -> None:
    """In a process of its own: end a trial of a study every so many seconds."""
    with hpopt.join(name, url) as hpo:
        fill(hpo, 4)
        going.set()
        while not stop.wait(every):
            fill(hpo, 1)


@contextlib.contextmanager
def beside(target: Callable[..., None], *args: Any) -> Iterator[None]:
    """While a process calls this with `args` and two events: it sets one when it has begun, and ends at the other."""
    context = multiprocessing.get_context("spawn")
    going, stop = context.Event(), context.Event()
    process = context.Process(target=target, args=(*args, going, stop))
    process.start()
    try:
        assert going.wait(60), f"{target.__name__} does not begin"
        yield
    finally:
        stop.set()
        process.join()


QUIET, FITS, EVENTS, SPINNING = ROUNDS = ("quiet", "fits", "events", "spinning")
BASES = {QUIET: "quiet ones", EVENTS: "with events"}


def company(server: EmbeddedServer, kind: str, every: float) -> contextlib.AbstractContextManager[None]:
    """What goes on beside the reports of such a round; a trial ended `every` so many seconds in the last with fits."""
    if kind == FITS:
        return beside(keep_busy, server.url, "modelled")
    if kind == EVENTS:
        return beside(keep_pace, server.url, "unmodelled", every)
    return beside(spin) if kind == SPINNING else contextlib.nullcontext()


def ended(server: EmbeddedServer) -> int:
    """How many trials of the study with the model have ended."""
    with hpopt.join("modelled", server.url) as hpo:
        return sum(row.state == "completed" for row in hpo.trials())


def reports(server: EmbeddedServer, count: int, rounds: int, trials: int) -> dict[str, list[Sample]]:
    """Round trips of `report` in each kind of round by turns; `trials` have ended in the study with the model."""
    with study(server, "modelled", num_init_trials=trials, num_workers=2) as hpo:
        fill(hpo, trials)  # without a fit; then this session ends, or it would write results files beside the reports
    with study(server, "unmodelled", acquisition="random", num_workers=2) as hpo:
        fill(hpo, trials)
    every = math.inf
    found: dict[str, list[Sample]] = {kind: [] for kind in ROUNDS}
    with study(server, "reports", num_trials=1, max_iterations=1_000_000, early_stop="median_stop") as hpo:
        client, config, pid = redis.Redis.from_url(server.url), config_of(hpo), fitting_process(server)
        hpopt.report(config, 0.5)
        for kind in ROUNDS * rounds:
            wait_until_idle(pid)
            with company(server, kind, every):
                known = ended(server)
                sample, before, began = Sample(), used(pid), time.perf_counter()
                for _ in range(count):
                    sample.take(client, lambda: hpopt.report(config, 0.5))
                wall, after = time.perf_counter() - began, used(pid)
            sample.worked, sample.busy = (after[0] - before[0]) / wall, (sum(after) - sum(before)) / wall
            sample.results = ended(server)
            if kind == FITS:
                every = wall / max(1, sample.results - known)
            found[kind].append(sample)
    return found


def after_result(server: EmbeddedServer, workers: int, trials: int, asks: int, rounds: int) -> Sample:
    """`get_next_sample` right after a result, in so many studies; the first such result is number `trials`."""
    client, pid = redis.Redis.from_url(server.url), fitting_process(server)
    sample, costs = Sample(results=trials), []
    for number in range(rounds):
        name = f"after-{workers}-{trials}-{number}"
        with study(server, name, num_init_trials=trials, num_workers=workers, seed=number) as hpo:
            fill(hpo, trials - 1)
            under_way = deque(config_of(hpo) for _ in range(workers))
            for _ in range(asks):
                wait_until_idle(pid)
                before = used(pid)[0]
                end(under_way.popleft())
                under_way.append(sample.take(client, lambda: config_of(hpo)))
                wait_until_idle(pid)
                costs.append(used(pid)[0] - before)
    assert min(costs) > 0.001, "a result was not used"
    sample.worked = statistics.fmean(costs)
    return sample


def compared(found: dict[str, list[Sample]]) -> str:
    """How much slower reports are beside fits, and in the control rounds: each with the round of its turn."""
    sentences = []
    for kind, base in ((FITS, QUIET), (EVENTS, QUIET), (SPINNING, QUIET), (FITS, EVENTS)):
        texts = []
        for share in (0.5, 0.99):
            pairs = [at(b.calls, share) / at(a.calls, share) for a, b in zip(found[base], found[kind], strict=True)]
            whole = [at((call for each in found[one] for call in each.calls), share) for one in (base, kind)]
            ratio = f"p{100 * share:.0f} {whole[1] / whole[0]:.2f} times"
            texts.append(f"{ratio} (of single pairs {min(pairs):.2f} to {max(pairs):.2f})")
        sentences.append(f"All rounds with {kind} against all {BASES[base]}: {', '.join(texts)}.")
    least = min(each.busy for each in found[FITS])
    if least <= 0.8:
        sentences.append(f"**The fitting process had work for only {100 * least:.0f} % of a round.**")
    return "\n".join(sentences)


def table(head: str, rows: Iterable[list[str]]) -> list[str]:
    """Lines of Markdown; the columns' names are separated by |."""
    return [f"| {' | '.join(cells)} |" for cells in (head.split("|"), ["---"] * (head.count("|") + 1), *rows)]


def measure(appendfsync: str, count: int, rounds: int, trials: int, asks: int) -> list[str]:
    """The page's section for one durability setting."""
    with served(appendfsync) as server:
        found = reports(server, count, rounds, trials)
        cases = [(workers, results) for workers, results in ((1, 50), (1, 200), (8, 200)) if asks]
        asked = {(str(workers), f"from {n} on"): after_result(server, workers, n, asks, rounds) for workers, n in cases}
    rows = [
        [kind, *each.cells(), f"{100 * each.worked:.0f}", f"{100 * each.busy:.0f}", str(each.results)]
        for together in zip(*found.values(), strict=True)
        for kind, each in zip(found, together, strict=True)
    ]
    head = f"round|{TIMES}|fitting process worked (%)|was busy (%)|results in the model's study"
    lines = [f"\n## appendfsync {appendfsync}\n", "`report`:\n", *table(head, rows), "", compared(found)]
    rows = [[*case, *each.cells(), f"{1e3 * each.worked:.0f}"] for case, each in asked.items()]
    head = f"`num_workers`|results|{TIMES}|CPU of the fitting process per result (ms)"
    return [*lines, "\n`get_next_sample` right after a result:\n", *table(head, rows)]


def main() -> None:
    """Measure, print, and write the page if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__.partition("\n")[0])
    parser.add_argument("--reports", type=int, default=3000, help="reports per round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each kind, and studies (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=1000, help="results before the first fit (default: %(default)s)")
    parser.add_argument("--asks", type=int, default=25, help="samples per study after a result (default: %(default)s)")
    parser.add_argument("--appendfsync", nargs="+", default=["everysec", "always"], help="durability settings")
    parser.add_argument("--output", type=Path, help="write the page here too")
    asked = parser.parse_args()
    command = " ".join(["python -m benchmarks.serving", *sys.argv[1:]])
    machine = f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at the start"
    lines = ["# Serving", "", f"`{command}`: Python {sys.version.split()[0]}, {machine}.", "", NOTE]
    for setting in asked.appendfsync:
        lines += measure(setting, asked.reports, asked.rounds, asked.trials, asked.asks)
    page = "\n".join(lines) + "\n"
    print(page)
    if asked.output is not None:
        asked.output.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
