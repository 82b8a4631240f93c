"""The file that tells others on the machine, such as a container's health check, how this coordinator is."""

import contextlib
import logging
import os
import time
from pathlib import Path

log = logging.getLogger("hpopt.coordinator")


class Heartbeat:
    """A file whose time of modification is the time until which the server's last answer holds good.

    So whoever looks needs to know no limit: a coordinator that hangs, was killed, or has lost its server lets it pass.
    """

    def __init__(self, path: Path) -> None:
        """Nothing is written yet."""
        self.path = path

    def begin(self) -> None:
        """Forget an earlier coordinator's. Raises OSError when the file cannot be written."""
        self._create()
        self.path.unlink()

    def beat(self, seconds: float) -> None:
        """The server has answered, which holds good for so long. A file that cannot be written is only logged."""
        until = time.time() + seconds
        try:
            self._create()
            os.utime(self.path, (until, until))
        except OSError as error:
            log.warning("heartbeat not written", extra={"detail": str(error)})

    def end(self) -> None:
        """The coordinator ends."""
        with contextlib.suppress(OSError):
            self.path.unlink()

    def problem(self) -> str:
        """Why the coordinator that keeps the file is not healthy; "" if it is."""
        try:
            left = self.path.stat().st_mtime - time.time()
        except FileNotFoundError:
            return f"the coordinator of {self.path} has not reached the server yet, or has ended"
        except OSError as error:
            return f"the heartbeat cannot be looked at: {error}"
        if left > 0:
            return ""
        return f"the coordinator of {self.path} hangs, or has lost the server: its last word ran out {-left:.0f} s ago"

    def _create(self) -> None:
        self.path.open("ab").close()  # unlike touch(), this leaves the time of a file that is there as it is
