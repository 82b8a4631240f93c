"""A runner: the process that trains one trial after the other. The launcher starts it; it ends with the launcher.

    python -P -m workers.runner --target FILE.py:FUNCTION --pipes IN OUT

With an empty target it runs the command that comes through the pipe, for one trial.
workers/link.py says what goes through the pipes.
"""

import argparse
import atexit
import contextlib
import faulthandler
import gc
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import hpopt
from workers.command import Command, CommandFailed
from workers.environment import LOG
from workers.link import CRASHED, FINISHED, GRACE, OUT_OF_MEMORY, RELEASED, Link
from workers.target import NotThereError, Train, load

_DETAIL = 500
"""Characters of an error that are sent to the launcher."""


class Interrupts:
    """SIGTERM and SIGINT: the first one interrupts the training, as Ctrl-C would, the others change nothing."""

    def __init__(self) -> None:
        self.seen = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: object) -> None:
        if not self.seen:
            self.seen = True
            raise KeyboardInterrupt(signal.Signals(number).name)


class Crash(Exception):
    """The training ended by something that is no Exception, sys.exit(1) for one."""


def serve(find: Callable[[], Train], link: Link, *, once: bool = False) -> int:
    """Train the trials that arrive until the pipe ends, or until one did not end in good order.

    After that this process is not to be trusted with another one: a CUDA context that met an error stays broken, and
    memory that ran out is seldom free again. `once`: it ends after one trial in any case, and with it all that was
    started for that trial.
    """
    interrupts = Interrupts()
    try:
        try:
            train = find()
        except NotThereError as error:
            link.send({"refused": str(error)})
            return 1
        except Exception as error:  # noqa: BLE001 - the user's module may raise anything, and the launcher shows it
            link.send({"broken": "".join(traceback.format_exception(type(error), error, _theirs(error)))})
            return 1
        link.send({"ready": True})
        while (order := link.receive()) is not None:
            how, detail = train_one(train, order["config"], order["log"], interrupts)
            link.send({"how": how, "detail": detail})
            if once or how != FINISHED:
                return 0
    except KeyboardInterrupt:
        return 0  # whatever there was to give back has been given back
    return 0


def train_one(train: Train, config: dict[str, Any], log: str, interrupts: Interrupts) -> tuple[str, str]:
    """Train one trial, with its output in `log`, and tell the study how it ended. Returns how, and the error."""
    os.environ[LOG] = f"{socket.gethostname()}:{log}"  # named in the results, by the first contact
    summary = ""
    with output_to(log):
        try:
            with hpopt.trial(config):
                try:
                    attempt(train, config, interrupts)
                except Exception as error:
                    summary = tell(error)  # the block may end it
                    raise
        except KeyboardInterrupt as error:
            hpopt.trial(config).release(GRACE)  # again: it may have come before hpopt.trial was entered
            return RELEASED, f"interrupted by {error}"
        except (Crash, Exception) as error:  # noqa: BLE001 - the training may raise anything; hpopt.trial finalized it
            summary = summary or tell(error)
            return (OUT_OF_MEMORY if hpopt.trial(config).out_of_memory else CRASHED), summary
        if hpopt.trial(config).out_of_memory:
            return OUT_OF_MEMORY, summary or "its trainer said so"
        gc.collect()  # what a training leaves in cycles holds on to the accelerator's memory
        return FINISHED, ""


def tell(error: BaseException) -> str:
    """Print an error for the trial's log; what it is in short."""
    cause = error.__cause__ if isinstance(error, Crash) and error.__cause__ else error
    _print(cause)
    return _summary(cause)


def attempt(train: Train, config: dict[str, Any], interrupts: Interrupts) -> None:
    """Call the training; an interruption counts as one even if the training has swallowed it, or failed because of it.

    Raises KeyboardInterrupt for that, Crash or the training's own Exception if it crashed.
    """
    try:
        _call(train, config)
    except Exception as error:
        if interrupts.seen:
            raise KeyboardInterrupt("a signal") from error
        raise
    if interrupts.seen:
        raise KeyboardInterrupt("a signal")


def _call(train: Train, config: dict[str, Any]) -> None:
    try:
        train(config)
    except (Exception, KeyboardInterrupt):
        raise
    except SystemExit as error:
        if error.code not in (None, 0):
            raise Crash from error
    except BaseException as error:
        raise Crash from error


@contextlib.contextmanager
def output_to(path: str) -> Iterator[None]:
    """Let standard output and error of this process, and of those it starts, go to a file."""
    with Path(path).open("wb") as log, contextlib.ExitStack() as undo:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for fd in (1, 2):
            undo.callback(_restore, os.dup(fd), fd)
            os.dup2(log.fileno(), fd)
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()


def _restore(saved: int, fd: int) -> None:
    os.dup2(saved, fd)
    os.close(saved)


def _print(error: BaseException) -> None:
    """The traceback, from where the training begins; a command has said for itself what went wrong."""
    if isinstance(error, CommandFailed):
        print(f"hpopt-worker: {error}", file=sys.stderr)  # noqa: T201 - this is the trial's log
        return
    traceback.print_exception(type(error), error, _theirs(error))


def _theirs(error: BaseException) -> TracebackType | None:
    """The part of a traceback that begins in the user's code: what leads there is of no use to them."""
    at = error.__traceback__
    while at is not None and at.tb_frame.f_globals.get("__package__") in (__package__, "importlib"):
        at = at.tb_next
    return at


def _summary(error: BaseException) -> str:
    words = str(error) if isinstance(error, CommandFailed) else f"{type(error).__name__}: {error}".removesuffix(": ")
    return words[:_DETAIL]


def run_forked(train: Train, inbox: int, outbox: int, grace: float) -> NoReturn:
    """Be a runner in a process that was just forked, with its descriptors and environment in place; never returns."""
    code = 1
    try:
        sys.stdin = open(0, closefd=False, encoding="utf-8")  # noqa: SIM115 - for as long as this process lives
        sys.stdout = open(1, "w", buffering=1, closefd=False, encoding="utf-8")  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, closefd=False, encoding="utf-8")  # noqa: SIM115
        torch: Any = sys.modules.get("torch")
        if torch is not None:
            torch.set_num_threads(1)  # the threads of its pool stayed in the parent: waiting for them would be for ever
        link = Link(inbox, outbox)
        link.grace = grace
        code = serve(lambda: train, link)
        link.leave()
    except BaseException:  # noqa: BLE001 - nothing may escape into the parent's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def main(argv: list[str] | None = None) -> int:
    """The command line of a runner."""
    parser = argparse.ArgumentParser(prog="python -m workers.runner", description=__doc__.partition("\n")[0])
    parser.add_argument("--target", required=True, help="file.py:function or module:function")
    parser.add_argument("--pipes", required=True, type=int, nargs=2, metavar="FD", help="to read from, to write to")
    arguments = parser.parse_args(argv)
    faulthandler.enable()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    link = Link(*arguments.pipes)
    atexit.register(link.leave)  # registered first, so called last
    setup = link.receive()
    if setup is None:
        return 0
    sys.path[:] = setup["sys_path"]
    sys.argv[:] = setup["argv"]
    link.grace = setup["grace"]
    if setup["command"]:
        return serve(lambda: Command(setup["command"]).train, link, once=True)
    return serve(lambda: load(arguments.target), link)


if __name__ == "__main__":
    sys.exit(main())
