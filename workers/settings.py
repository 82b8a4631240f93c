"""How a crew works."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """How a crew works."""

    jobs: int
    """How many trials are trained at once."""
    logs: Path
    """Folder of the output of trials, and of runners outside of trials; absolute."""
    runner_log: str = "runner-{slot}.log"
    checkpoints: str = ""
    """Folder for checkpoints; "" is none."""
    keep_checkpoints: str = "all"
    """Whose checkpoints stay when trials have ended: one of workers.checkpoints.KEEP."""
    longest_pause: float = 0.0
    """Seconds that the pause after a crash does not exceed; 0 is no pause."""
    outlast_pause: bool = False
    """Wait while the study is paused, rather than to raise StudyPaused."""
