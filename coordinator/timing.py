"""How long things may take, and who has been silent for how long."""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Timing:
    """How long things may take, in seconds."""

    lease: float = 10.0
    grace: float = 180.0
    """A trainer or an operator that is silent for so long is given up."""
    takeover: float = 75.0
    """A second process of an attempt that is alive is refused after this."""
    tick: float = 5.0

    @property
    def presence(self) -> float:
        """A coordinator counts as there for so long after its last word: a busy machine may hold it up for seconds."""
        return max(self.lease, 5.0)


EMBEDDED = Timing(lease=2.0, grace=10.0, takeover=12.0, tick=1.0)
"""For a server that one operator owns: everybody is on this machine, and hearts beat often."""
SERVED = Timing(lease=2.0, grace=30.0, takeover=75.0, tick=1.0)
"""For the bundled server on a port: this machine's hearts beat often too, those behind a tunnel may not."""


@dataclass(slots=True)
class Silence:
    """Since when a heartbeat has been missing; everybody is fresh when the watch begins.

    `now` is of a clock that only moves on, whatever is done to the time of day.
    """

    since: dict[str, float] = field(default_factory=dict)

    def update(self, missing: set[str], now: float) -> None:
        """`missing`: the heartbeat keys that are not there now."""
        self.since = {key: self.since.get(key, now) for key in missing}

    def lasting(self, seconds: float, now: float) -> set[str]:
        """The keys that have been missing for so long."""
        return {key for key, since in self.since.items() if now - since >= seconds}

    def forget(self, keys: Iterable[str]) -> None:
        """These were given up: should they be missing again, after they came back, it is a new silence."""
        for key in keys:
            self.since.pop(key, None)
