"""A stand-in for the coordinator: notes on the server that it was started, and waits to be ended.

    python -m fake_coordinator --url unix://... --embedded [--fail] [--slow]

--fail: ends at once with status 1. --slow: takes half a second to end.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from urllib.parse import unquote, urlsplit

from coordinator.resp import Resp


def _end_slowly(_number: int, _frame: FrameType | None) -> None:
    time.sleep(0.5)
    sys.exit(0)


def main() -> None:
    """Note this start in the list `fake:starts`, then wait."""
    if "--fail" in sys.argv:
        sys.exit("fake failure")
    if "--slow" in sys.argv:
        signal.signal(signal.SIGTERM, _end_slowly)
    password_file = os.environ.get("HPOPT_PASSWORD_FILE")
    password = Path(password_file).read_text(encoding="ascii") if password_file else None
    note = {"pid": os.getpid(), "argv": sys.argv[1:], "HPOPT_URL": os.environ.get("HPOPT_URL")}
    with Resp(Path(unquote(urlsplit(sys.argv[2]).path)), password) as server:
        server.call("RPUSH", "fake:starts", json.dumps(note))
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
