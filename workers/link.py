"""The two pipes between the launcher and a runner: one JSON object per line.

    to the runner      {"sys_path", "argv", "grace", "command"} once, then {"config", "log"} for each trial;
                       the end of the pipe: end
    from the runner    {"ready": true}, {"refused": sentence} or {"broken": traceback}, then {"how", "detail"} for
                       each trial

How a training ended is one of the words below.
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

FINISHED, CRASHED, OUT_OF_MEMORY, RELEASED = "finished", "crashed", "out of memory", "released"
DIED = "died"
"""It took its process along: what the launcher finds out for itself."""

GRACE = 10.0
"""Seconds that a runner has to give its trial back when it is to end, before it is killed; unless the user says so."""


class Link:
    """The runner's end."""

    def __init__(self, inbox: int, outbox: int) -> None:
        """Takes both descriptors over; nothing that the training starts inherits them."""
        for fd in (inbox, outbox):
            os.set_inheritable(fd, False)  # noqa: FBT003 - takes no keyword
        self._inbox, self._outbox = inbox, outbox
        self._orders: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._busy = self._closed = False
        self._launcher = os.getppid()
        self.grace = GRACE
        threading.Thread(target=self._listen, name="hpopt-runner", daemon=True).start()

    def receive(self) -> dict[str, Any] | None:
        """The next order; None: end. Between two orders there is nothing to interrupt."""
        self._busy = False
        order = self._orders.get()
        self._busy = order is not None
        return None if self._closed else order

    def send(self, message: Mapping[str, Any]) -> None:
        """Answer; if the launcher is gone, nobody needs the answer."""
        with contextlib.suppress(BrokenPipeError):
            write_line(self._outbox, message)

    def _listen(self) -> None:
        """Pass orders on until the launcher closes its end, or dies: then nothing of this process may stay behind."""
        with os.fdopen(self._inbox, "rb") as lines:
            for line in lines:
                self._orders.put(json.loads(line))
        self._closed = True
        self._orders.put(None)
        if self._busy:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(self.grace)
        end_group()
        os._exit(1)

    def leave(self) -> None:
        """The last act: what the training has started is killed by the launcher, or by us if that has died."""
        if os.getppid() != self._launcher:
            end_group()


def end_group() -> None:
    """Kill this process and all that it has started, if it leads a process group of its own."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)


def write_line(fd: int, message: Mapping[str, Any]) -> None:
    """Write a message in full, however small the pipe."""
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(fd, data) :]
