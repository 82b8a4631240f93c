"""How long a report and a request for a sample take, beside a plain PING, and where that time goes.

    python benchmarks/latency.py                          # appendfsync everysec and always, over a unix socket
    python benchmarks/latency.py --reports 500 --rounds 1 # quicker
    python benchmarks/latency.py --output docs/latency.md # as a page

Every figure is taken in turn with a PING of the same client on the same machine, so that their ratio holds when the
absolute figures do not. One trainer, one coordinator, one server, all on this machine.
"""

import argparse
import contextlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

import hpopt
from hpopt.embedded import EmbeddedServer

SPACE = {
    "lr": hpopt.search_space("loguniform", [1e-5, 1e-1]),
    "width": hpopt.search_space("qloguniform", [16, 512, 16]),
    "dropout": hpopt.search_space("uniform", [0.0, 0.6]),
    "optimizer": hpopt.search_space("choice", ["sgd", "adam", "rmsprop"]),
}
NOTE = """\
The rows of one call are its rounds. Every row has its own PINGs, by redis-py from the same process, one before each
call. p99 of a busy machine is noise of that machine: compare ratios. CPU is what the kernel accounts to each process,
per report, in a loop of nothing but reports, so it includes the system calls that wake the next process; the processes
overlap, so that their sum may exceed a report's time. `get_next_sample` right after a result waits for a fit that uses
that result, with `num_workers=1`: the fit is what takes the time. The embedded server has appendfsync always."""
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Figures:
    """Durations in seconds of one kind of call, and of the PINGs beside it."""

    name: str
    calls: list[float]
    pings: list[float]

    def row(self) -> str:
        """A row of the table, in microseconds."""
        calls, pings = sorted(self.calls), sorted(self.pings)
        ratio = statistics.median(calls) / statistics.median(pings)
        cells = [_at(calls, 0.5), _at(calls, 0.99), _at(pings, 0.5), f"{ratio:.2f}"]
        return f"| {self.name} | {' | '.join(cells)} |"


def _at(ordered: list[float], share: float) -> str:
    return f"{1e6 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]:.0f}"


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds a call took, and what it returned."""
    began = time.perf_counter()
    answer = call()
    return time.perf_counter() - began, answer


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def children(pid: int) -> dict[str, int]:
    """Process ids of the server and the coordinator under a supervisor, by what they are."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, fields = stat.read_text(encoding="utf-8").partition("(")[2].rpartition(")")
            if int(fields.split()[1]) == pid:
                found["server" if "valkey" in name else "coordinator"] = int(stat.parent.name)
    return found


@contextlib.contextmanager
def served(appendfsync: str) -> Iterator[EmbeddedServer]:
    """A bundled server and a coordinator in a temporary folder."""
    folder = tempfile.mkdtemp(prefix="hpopt-bench-")
    try:
        with EmbeddedServer.start(folder, options=["--appendfsync", appendfsync]) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def study(server: EmbeddedServer, name: str, **arguments: Any) -> hpopt.HpOpt:
    """A study on the server, with its results files in the server's folder."""
    settings: dict[str, Any] = {"overwrite": True, "max_iterations": 1_000_000, "subset_ratio": 1.0, "seed": 1}
    settings |= arguments
    folder = Path(tempfile.mkdtemp(prefix="hpopt-bench-results-"))
    hpo = hpopt.create(1000, 1_000_000, SPACE, save_path=folder, url=server.url, study=name, **settings)
    hpo.on_close(lambda: shutil.rmtree(folder, ignore_errors=True))
    return hpo


def reports(server: EmbeddedServer, count: int) -> tuple[Figures, dict[str, float]]:
    """Round trips of `report`, and CPU seconds per report of the three processes."""
    client = redis.Redis.from_url(server.url)
    with study(server, "reports", num_trials=1, early_stop="median_stop") as hpo:
        config = hpo.get_next_sample()
        if config is None:
            raise RuntimeError("no sample")
        hpopt.report(config, 0.5)
        figures = Figures("`report`", [], [])
        for _ in range(count):
            figures.pings.append(timed(client.ping)[0])
            figures.calls.append(timed(lambda: hpopt.report(config, 0.5))[0])
        pids = {"trainer": os.getpid(), **children(server.pid)}
        before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        for _ in range(count):
            hpopt.report(config, 0.5)
        return figures, {name: (cpu_seconds(pid) - before[name]) / count for name, pid in pids.items()}


def prepared(server: EmbeddedServer, count: int) -> Figures:
    """`get_next_sample` when a suggestion is ready: each request leaves time to prepare the next."""
    client = redis.Redis.from_url(server.url)
    figures = Figures("`get_next_sample`, prepared", [], [])
    with study(server, "prepared", num_trials=count + 1, num_init_trials=count + 1) as hpo:
        hpo.get_next_sample()
        time.sleep(2.0)  # the initial design is prepared in one go
        for _ in range(count):
            figures.pings.append(timed(client.ping)[0])
            figures.calls.append(timed(hpo.get_next_sample)[0])
    return figures


def after_result(server: EmbeddedServer, count: int, trials: int) -> Figures:
    """`get_next_sample` right after a trial's last report, one worker: the suggestion must use that result."""
    client = redis.Redis.from_url(server.url)
    figures = Figures(f"`get_next_sample` right after a result, n = {trials - count} to {trials}", [], [])
    with study(server, f"after-{trials}", num_trials=trials, max_iterations=1) as hpo:
        for number in range(trials):
            config = hpo.get_next_sample() if number < trials - count else None
            if config is None:
                figures.pings.append(timed(client.ping)[0])
                took, config = timed(hpo.get_next_sample)
                figures.calls.append(took)
            hpopt.report(config, -abs(config["lr"] - 0.003) - config["dropout"] / 10)
    return figures


def commands(server: EmbeddedServer) -> dict[str, float]:
    """Microseconds that the server itself spends in a call of each command of a report."""
    stats: Any = redis.Redis.from_url(server.url).info("commandstats")
    return {name: stats[f"cmdstat_{name}"]["usec_per_call"] for name in ("xadd", "xread", "evalsha", "ping")}


def measure(appendfsync: str, count: int, rounds: int, asked: list[tuple[int, int]]) -> list[str]:
    """The page's section for one durability setting; `asked`: (trials, how many of the last are timed)."""
    figures: list[Figures] = []
    costs: list[dict[str, float]] = []
    with served(appendfsync) as server:
        for _ in range(rounds):
            figure, cost = reports(server, count)
            figures.append(figure)
            costs.append(cost)
        inside = commands(server)
        figures.append(prepared(server, min(count, 200)))
        figures += [after_result(server, last, trials) for trials, last in asked]
    return [f"\n## appendfsync {appendfsync}\n", *_table(figures), "", *_profile(costs, inside, figures[0])]


def _table(figures: list[Figures]) -> list[str]:
    head = "| call | p50 (us) | p99 (us) | PING p50 (us) | ratio of medians |"
    return [head, "|---|---|---|---|---|", *(figure.row() for figure in figures)]


def _profile(costs: list[dict[str, float]], inside: dict[str, float], report: Figures) -> list[str]:
    """Where a report's time goes: CPU of the three processes, the rest is waking each other up and waiting for disk."""
    cpu = {name: 1e6 * statistics.median(cost[name] for cost in costs) for name in costs[0]}
    total = 1e6 * statistics.median(report.calls)
    server = ", ".join(f"{name} {micros:.1f}" for name, micros in inside.items())
    rows = [f"| CPU of the {name} | {micros:.0f} |" for name, micros in cpu.items()]
    rows.append(f"| waiting: wake-ups between the processes, disk | {max(0.0, total - sum(cpu.values())):.0f} |")
    head = ["| where a report's time goes | us |", "|---|---|"]
    return [*head, *rows, "", f"Inside the server, us per call: {server}."]


def main() -> None:
    """Measure, print, and write the page if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--reports", type=int, default=3000, help="reports per round (default: %(default)s)")
    parser.add_argument("--asks", type=int, default=30, help="samples after a result (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: %(default)s)")
    parser.add_argument("--appendfsync", nargs="+", default=["everysec", "always"], help="durability settings")
    parser.add_argument("--output", type=Path, help="write the page here too")
    arguments = parser.parse_args()
    command = " ".join(["python", "benchmarks/latency.py", *sys.argv[1:]])
    lines = ["# Latency", "", f"`{command}`: Python {sys.version.split()[0]}, {os.cpu_count()} cores.", "", NOTE]
    asked = [(trials, min(arguments.asks, trials)) for trials in (50, 200) if arguments.asks]
    for setting in arguments.appendfsync:
        lines += measure(setting, arguments.reports, arguments.rounds, asked)
    page = "\n".join(lines) + "\n"
    print(page)
    if arguments.output is not None:
        arguments.output.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
