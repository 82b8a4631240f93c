"""How large a study on a fleet of hosts is, and what is done to its hosts."""

from dataclasses import dataclass, field

from tests.fleet_history import Name


@dataclass(frozen=True)
class Scale:
    """How large it all is."""

    trials: int
    iterations: int
    forms: dict[str, tuple[str, ...]]
    """The workers of each host."""
    coordinator: tuple[str, ...]
    """Module and options."""
    hits: tuple[int, int, int]
    """So many trials have ended, at least, when something is done to worker1, worker2 and worker3."""
    cut: float
    """Seconds for which worker2 is cut off."""
    away: float
    """Seconds after which the preempted worker3 comes back."""
    gated: bool = False
    """For a short study. Every attempt waits in its middle until it is let go on, so that it can be hit there; and the
    heartbeats of worker1, and of one worker on worker2, run out at once, not up to 60 s later."""
    patience: float = 900.0
    """Seconds that any step may take."""


@dataclass
class Blow:
    """What was done to a host."""

    at: float
    under_way: list[Name]
    """The attempts that it hit."""
    over: float = 0.0
    """When the host was plugged in again, or its workers had ended."""
    given_up: list[Name] = field(default_factory=list)
    """Those that were handed out again because their trainers had been silent for too long."""

    def __str__(self) -> str:
        return " and ".join(f"trial {trial}" for trial, _ in self.under_way)
