"""Runs the operator of examples/operator again and again, each time killed at a line where none was killed yet.

    python -m tests.killed_operator ARGUMENTS...

Prints each place of a kill, and ends as soon as an operator does. The operators are forked from this process, which has
loaded everything: that takes milliseconds rather than a second.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import hpopt
from examples.operator import __main__ as program

FOLDER = str(Path(program.__file__).parent)
PACKAGE = str(Path(hpopt.__file__).parent)
LOADED = (hpopt.create, hpopt.HpOpt)
"""Loaded before the first fork: they are not, before they are used."""
ALL_OF = {"loop", "directory_cluster"}
"""Modules where an operator is killed at every line; of those in the others, ..."""
ONE_IN = 3
AT_ANY_TIME = 30
"""So many of the first operators may also be killed at any line, of the example or of hpopt, ..."""
WITHIN = 2000
"""... after so many at most."""

Place = tuple[str, str, int]


def tracer(killed: set[Place], lines: int, tell: int) -> Callable[[FrameType, str, Any], Any]:
    """For sys.settrace: kill -9 at the first line that is to be tried and not in `killed`, or after so many `lines`."""
    left = lines
    traced = (FOLDER, PACKAGE) if lines > 0 else (FOLDER,)

    def on_line(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal left
        if event != "line":
            return on_line
        left -= 1
        place = (Path(frame.f_code.co_filename).stem, frame.f_code.co_name, frame.f_lineno)
        if left == 0 or (frame.f_code.co_filename.startswith(FOLDER) and _tried(place) and place not in killed):
            os.write(tell, " ".join(map(str, place)).encode())
            os.kill(os.getpid(), signal.SIGKILL)
        return on_line

    return lambda frame, _event, _argument: on_line if frame.f_code.co_filename.startswith(traced) else None


def _tried(place: Place) -> bool:
    module, _, line = place
    return module in ALL_OF or line % ONE_IN == 0


def run(killed: set[Place], lines: int) -> tuple[Place | None, int]:
    """One operator: where it was killed, None if it has ended, and its exit status."""
    hear, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(hear)
        sys.settrace(tracer(killed, lines, tell))
        os._exit(program.main(sys.argv[1:]))
    os.close(tell)
    with os.fdopen(hear) as pipe:
        said = pipe.read().split()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return ((said[0], said[1], int(said[2])) if said else None), status


def main() -> int:
    """Until an operator ends; its exit status."""
    random = Random(5)
    killed: set[Place] = set()
    for n in range(1000):
        place, status = run(killed, random.randrange(1, WITHIN) if n < AT_ANY_TIME else -1)
        if place is None:
            return status
        sys.stdout.write(f"killed {' '.join(map(str, place))}\n")
        sys.stdout.flush()
        killed.add(place)
    return 1


if __name__ == "__main__":
    sys.exit(main())
