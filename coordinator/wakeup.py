"""What a supervisor waits for: a child that ended, a signal to end, the end of standard input."""

import os
import select
import signal

_STDIN = 0


class Ended(Exception):
    """It is time to end; the message says who wants it."""


class Events:
    """Interruptible waiting, for the main thread of a process without others."""

    def __init__(self, *, serve: bool) -> None:
        """Take over the signals: with `serve`, a terminal may end us; without, the end of standard input does."""
        self._reason: str | None = None
        self._wake, wake_end = os.pipe()
        for fd in (self._wake, wake_end):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # to be noticed at all
        signal.signal(signal.SIGTERM, self._on_signal)
        for number in (signal.SIGINT, signal.SIGHUP):
            if not serve:
                signal.signal(number, signal.SIG_IGN)  # Ctrl-C is for the operator
            elif signal.getsignal(number) != signal.SIG_IGN:  # nohup
                signal.signal(number, self._on_signal)
        self._inputs = [self._wake] if serve else [self._wake, _STDIN]

    def pause(self, seconds: float) -> None:
        """Wait until something happens, `seconds` at most. Raises Ended when it is time to end."""
        ready, _, _ = select.select(self._inputs, [], [], 0 if self._reason else seconds)
        for fd in ready:
            if not os.read(fd, 4096):
                self._reason = "the operator ended"
        if self._reason:
            raise Ended(self._reason)

    def _on_signal(self, number: int, _: object) -> None:
        self._reason = signal.Signals(number).name
