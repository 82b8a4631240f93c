"""The command `hpopt-coordinator`: arguments, signals, asyncio.run."""

import argparse
import asyncio
import dataclasses
import logging
import math
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from coordinator import extra
from coordinator.heartbeat import Heartbeat
from coordinator.logs import configure
from coordinator.timing import EMBEDDED, SERVED, Timing

if TYPE_CHECKING:
    from coordinator.service import Service

PASSWORD_FILE = "HPOPT_PASSWORD_FILE"  # noqa: S105 - the name of a variable
"""Environment variable: a file with the server's password, which then stands in no command line."""
TIMES = {
    "lease": "seconds after which a dead coordinator is replaced",
    "grace": "seconds of silence until a trainer is given up",
    "takeover": "seconds a second process of a trial waits",
    "tick": "seconds between looks at the heartbeats",
}
"""The options that are times, and what they mean."""

log = logging.getLogger("hpopt.coordinator")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    options = _parser().parse_args(arguments)
    if options.serve:
        return _serve_here(options)
    if options.port is not None:
        _parser().error("--port: it is for --serve DIR; a server that is there has its port in --url")
    heartbeat = Heartbeat(options.heartbeat) if options.heartbeat else None
    problem = heartbeat.problem() if heartbeat and options.check else ""
    if heartbeat and options.check and not problem:
        print("healthy")  # this far nothing was loaded that takes time: a health check runs every few seconds
        return 0
    url = _url(options.url)
    if options.check:
        return asyncio.run(_check(url, problem))
    if heartbeat:
        try:
            heartbeat.begin()
        except OSError as error:
            _parser().error(f"--heartbeat: pass a file that can be written: {error}")
    if lacking := extra.problem():
        _parser().error(lacking)
    configure(options.log_level)
    owned = options.embedded or options.served
    return asyncio.run(_serve(url, _timing(options), heartbeat, owned=owned))


def _serve_here(options: argparse.Namespace) -> int:
    """Run the bundled server and a coordinator with the same options; the exit status."""
    from coordinator.supervisor import serve

    for name in ("url", "check", "heartbeat", "embedded", "served"):
        if getattr(options, name):
            _parser().error(f"--{name}: it is for a coordinator with --url; --serve looks after its own server")
    passed_on = {"log-level": options.log_level} | {name: getattr(options, name) for name in TIMES}
    given = [f"--{name}={value}" for name, value in passed_on.items() if value is not None]
    return serve(options.serve, port=options.port or 0, coordinator_args=given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("hpopt-coordinator", description="Run the studies of a server.")
    parser.add_argument("--url", help="redis://, rediss://, redis+sentinel://, unix:// (default: HPOPT_URL)")
    parser.add_argument("--serve", metavar="DIR", help="start the bundled server on loopback, with its data in DIR")
    parser.add_argument("--port", type=int, help="its port; 0 chooses one (default: 0)")
    parser.add_argument("--check", action="store_true", help="say whether the server and a coordinator are healthy")
    parser.add_argument(
        "--heartbeat",
        type=Path,
        metavar="FILE",
        help="keep FILE fresh while the server answers; with --check: whether the coordinator that keeps it is healthy",
    )
    parser.add_argument("--embedded", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--served", action="store_true", help=argparse.SUPPRESS)
    for name, meaning in TIMES.items():
        parser.add_argument(f"--{name}", type=_seconds, metavar="S", help=meaning)
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    return parser


def _url(given: str | None) -> str:
    """The server's URL with its credentials; a URL that cannot be used is an error of the command line."""
    from hpopt.core.address import check_url

    given = given or os.environ.get("HPOPT_URL")
    if not given:
        _parser().error("give the server's URL with --url or in HPOPT_URL (or --serve DIR to start a server here)")
    try:
        return with_password(check_url(given), os.environ)
    except ValueError as error:
        _parser().error(str(error))
    except OSError as error:
        _parser().error(f"{PASSWORD_FILE}: pass a file that can be read: {error}")


def _timing(options: argparse.Namespace) -> Timing:
    base = EMBEDDED if options.embedded else SERVED if options.served else Timing()
    given = {name: getattr(options, name) for name in TIMES}
    return dataclasses.replace(base, **{name: seconds for name, seconds in given.items() if seconds is not None})


def _seconds(text: str) -> float:
    """For argparse, which names the option."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no such time: pass a number of seconds above 0")
    return seconds


def with_password(url: str, environment: Mapping[str, str]) -> str:
    """The URL with the password that a mounted secret holds, unless it has one already."""
    path = environment.get(PASSWORD_FILE)
    parts = urlsplit(url)
    user, _, server = parts.netloc.rpartition("@")
    if not path or ":" in user or "password=" in parts.query:
        return url
    password = quote(Path(path).read_text(encoding="utf-8").strip(), safe="")
    return url.replace(f"//{parts.netloc}", f"//{user}:{password}@{server}", 1)


async def _serve(url: str, timing: Timing, heartbeat: Heartbeat | None, *, owned: bool) -> int:
    from coordinator.service import Service, UnfitServerError

    try:
        service = Service(url, timing, alone=owned, heartbeat=heartbeat)
    except ValueError as error:
        _parser().error(str(error))
    loop = asyncio.get_running_loop()
    watch = asyncio.create_task(_drain_when_orphaned(service)) if owned else None
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, service.drain)
    try:
        await service.run()
    except UnfitServerError as error:
        log.error("server refused", extra={"detail": str(error)})  # noqa: TRY400 - the text says it all
        return 2
    finally:
        if watch is not None:
            watch.cancel()
    return 0


async def _drain_when_orphaned(service: "Service") -> None:
    """A supervisor that is killed takes its children along on Linux only; elsewhere they have to notice."""
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110 - nothing tells of a parent's death
        await asyncio.sleep(1.0)
    service.drain()


async def _check(url: str, problem: str) -> int:
    """Say in one line what is wrong: with the server, else with the heartbeat (`problem`), else with coordinators."""
    from coordinator.store import AWAY, REFUSED, Store
    from hpopt.core.address import in_words

    try:
        store = Store(url, "check")
    except ValueError as error:
        _parser().error(str(error))
    try:
        await store.info()
        if not (problem or await store.coordinators()):
            problem = "the server answers, but no coordinator is running"
    except AWAY as error:
        refused = isinstance(error, REFUSED)
        what = "refuses us, check the credentials" if refused else "does not answer"
        problem = f"the server {what}: {in_words(error)}"
    finally:
        await store.close()
    print(f"unhealthy: {problem}" if problem else "healthy")
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
