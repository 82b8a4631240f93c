"""Train trials of a study on a shared server, on any machine.

    hpopt-worker --study NAME train.py:main                         a function, called with the config
    hpopt-worker --study NAME -- python train.py {config}           a command, run without a shell for each trial

In a command {config} becomes the config as JSON, {config_file} the path of a file with it, {lr} the value of the
hyper-parameter lr; the environment has HPOPT_CONFIG, HPOPT_CONFIG_FILE and HPOPT_URL.
"""

import argparse
import logging
import math
import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import hpopt
from workers.checkpoints import KEEP
from workers.command import Command
from workers.launcher import checked_grace, checkpoint_root, log_folder, work
from workers.link import GRACE
from workers.process import Launch
from workers.settings import Settings
from workers.target import target_of

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0 when every trial of the study has ended."""
    words = list(sys.argv[1:] if argv is None else argv)
    at = words.index("--") if "--" in words else None
    arguments = _arguments(words[:at], command=at is not None)
    logging.basicConfig(format="%(message)s")
    try:
        _check(arguments)
        command = None if at is None else Command(words[at + 1 :])
        launch = _launch(arguments, command)
        with _joined(arguments) as hpo:
            settings = _settings(arguments, hpo)
            if command is not None:
                command.check(hpo.spec.search_space, checkpoints=bool(settings.checkpoints))
            work(hpo, launch, settings, progress=not arguments.quiet)
    except (hpopt.HpoptError, OSError, TypeError, ValueError, RuntimeError) as error:
        print(f"hpopt-worker: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _arguments(words: list[str], *, command: bool) -> argparse.Namespace:
    parser = _parser()
    arguments, unknown = parser.parse_known_args(words)
    if unknown:
        hint = "" if command else " (a command goes after --, as in -- python train.py {config})"
        parser.error(f"what is {' '.join(unknown)}?{hint}")
    if command and arguments.train is not None:
        parser.error(f"{arguments.train!r} and a command after --: give one of them")
    if not command and arguments.train is None:
        parser.error("say what trains: file.py:function, or a command after --")
    return arguments


def _check(arguments: argparse.Namespace) -> None:
    """Raise ValueError for an option that is not what it may be."""
    if not (arguments.url or os.environ.get("HPOPT_URL")):
        raise ValueError("where is the server? Pass --url redis://host:port, or set HPOPT_URL")
    for name in ("wait", "longest_pause"):
        seconds = getattr(arguments, name)
        if not 0 <= seconds < math.inf:
            raise ValueError(f"--{name.replace('_', '-')} {seconds:g}: pass a number of seconds, 0 or more")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "hpopt-worker",
        usage="hpopt-worker --study NAME [options] (file.py:function | -- command [argument ...])",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("train", nargs="?", help="the training function: file.py:function or module:function")
    add("--study", required=True, help="name of the study")
    add("--url", help="the server, redis://host:port (default: HPOPT_URL)")
    add("--namespace", help='team on the server (default: HPOPT_NAMESPACE, or "default")')
    add("--jobs", type=int, default=1, metavar="N", help="how many trials to train at once (default: %(default)s)")
    add("--wait", type=float, default=0, metavar="S", help="seconds to wait for the server and the study to be there")
    add("--logs", metavar="DIR", help="folder of the trials' output (default: hpo_logs/STUDY)")
    add("--checkpoints", metavar="DIR", help="folder for the trials' checkpoints (default: HPOPT_CHECKPOINTS, or none)")
    add("--keep-checkpoints", choices=KEEP, default="all", help="of trials that have ended (default: %(default)s)")
    add("--grace", type=float, default=GRACE, metavar="S", help="seconds for a trial to end when the worker is told to")
    add("--longest-pause", type=float, default=60, metavar="S", help="after crashes in a row (default: %(default)s s)")
    add("--when-paused", choices=("end", "wait"), default="end", help="what to do when the study pauses")
    add("--quiet", action="store_true", help="show problems only")
    return parser


def _launch(arguments: argparse.Namespace, command: Command | None) -> Launch:
    """What the runners run. Raises ValueError for what cannot be found."""
    grace = checked_grace(arguments.grace)
    if command is not None:
        return Launch(command=command.words, grace=grace)
    sys.path.insert(0, str(_import_folder(arguments.train)))
    return Launch(target_of(arguments.train) or "", grace=grace)


def _import_folder(train: str) -> Path:
    """The folder that Python would import from if the training's file was run, or its module with -m."""
    where = train.rpartition(":")[0]
    return Path(where).absolute().parent if where.endswith(".py") else Path.cwd()


def _joined(arguments: argparse.Namespace) -> hpopt.HpOpt:
    """The session with the study, once server and study are there."""
    deadline = time.monotonic() + arguments.wait
    told = False
    while True:
        try:
            return hpopt.join(arguments.study, url=arguments.url, namespace=arguments.namespace)
        except (hpopt.UnknownStudy, hpopt.HpoptUnavailable) as error:
            if time.monotonic() >= deadline:
                raise
            if not told:
                print(f"hpopt-worker: {error}; waiting for up to {arguments.wait:g} s", file=sys.stderr)
            told = True
            time.sleep(1)


def _make(option: str, folder: Path) -> None:
    """Make the folder now: what cannot be made is better told before a trial is begun."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--{option} {folder}: no such folder can be made here ({error.strerror})") from None


def _settings(arguments: argparse.Namespace, hpo: hpopt.HpOpt) -> Settings:
    logs = log_folder(hpo) if arguments.logs is None else Path(arguments.logs).absolute()
    checkpoints = checkpoint_root(hpo, arguments.checkpoints)
    _make("logs", logs)
    if checkpoints:
        _make("checkpoints", Path(checkpoints))
    return Settings(
        arguments.jobs,
        logs,
        f"runner-{socket.gethostname()}-{os.getpid()}-{{slot}}.log",  # several workers may share the folder
        checkpoints,
        arguments.keep_checkpoints,
        longest_pause=arguments.longest_pause,
        outlast_pause=arguments.when_paused == "wait",
    )


if __name__ == "__main__":
    sys.exit(main())
