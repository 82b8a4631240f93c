"""The two pipes between the launcher and a runner: one JSON object per line.

    to the runner      {"sys_path", "argv"} once, then {"config", "log"} for each trial; the end of the pipe: end
    from the runner    {"ready": true} or {"broken": traceback}, then {"how", "detail"} for each trial
"""

import contextlib
import json
import os
import queue
import signal
import threading
import time
from collections.abc import Mapping
from typing import Any

GRACE = 10.0
"""Seconds that a runner has to give its trial back when it is to end, before it is killed."""


class Link:
    """The runner's end."""

    def __init__(self, inbox: int, outbox: int) -> None:
        """Takes both descriptors over; nothing that the training starts inherits them."""
        for fd in (inbox, outbox):
            os.set_inheritable(fd, False)
        self._inbox, self._outbox = inbox, outbox
        self._orders: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.busy = False
        """Whether there is a trial to give back."""
        threading.Thread(target=self._listen, name="hpopt-runner", daemon=True).start()

    def receive(self) -> dict[str, Any] | None:
        """The next order; None: end."""
        return self._orders.get()

    def send(self, message: Mapping[str, Any]) -> None:
        """Answer; if the launcher is gone, nobody needs the answer."""
        with contextlib.suppress(BrokenPipeError):
            write_line(self._outbox, message)

    def _listen(self) -> None:
        """Pass orders on until the launcher closes its end, or dies: then nothing of this process may stay behind."""
        with open(self._inbox, "rb") as lines:
            for line in lines:
                self._orders.put(json.loads(line))
        self._orders.put(None)
        if self.busy:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)


def write_line(fd: int, message: Mapping[str, Any]) -> None:
    """Write a message in full, however small the pipe."""
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(fd, data) :]
