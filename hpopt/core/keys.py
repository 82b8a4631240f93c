"""Every Redis key of hpopt. All keys of one study share the hash tag `{namespace/study}`, so one cluster slot."""

import re
from dataclasses import dataclass

STUDIES = "hpopt:studies"
"""Set of "namespace/study": how coordinators find what to serve."""
CREATED = "hpopt:created"
"""Stream of hints that a study has just been created."""
COORDINATORS = "hpopt:coordinators"
"""A string with expiry: exists while any coordinator is alive."""

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def launch_of(life: str) -> str:
    """Which launch a life belongs to: "launch" or "launch:which of it"."""
    return life.partition(":")[0]


@dataclass(frozen=True, slots=True)
class StudyKeys:
    """The keys of one study."""

    namespace: str
    study: str

    def __post_init__(self) -> None:
        for field, value in (("namespace", self.namespace), ("study", self.study)):
            if not isinstance(value, str) or not _NAME.fullmatch(value):
                raise ValueError(f"{field}={value!r}: use 1 to 64 of the characters A-Z a-z 0-9 _ . -")

    @classmethod
    def parse(cls, path: str) -> "StudyKeys":
        """The keys of the study "namespace/study"."""
        namespace, _, study = path.partition("/")
        return cls(namespace, study)

    @property
    def path(self) -> str:
        """The member of STUDIES: "namespace/study"."""
        return f"{self.namespace}/{self.study}"

    @property
    def prefix(self) -> str:
        """What every key of the study begins with."""
        return f"hpopt:{{{self.path}}}"

    @property
    def meta(self) -> str:
        """Hash: uid, spec, owner, seq, cursor, counters, open requests."""
        return f"{self.prefix}:meta"

    @property
    def lease(self) -> str:
        """String with expiry: which coordinator is trying."""
        return f"{self.prefix}:lease"

    @property
    def inbox(self) -> str:
        """Stream of events from operators and trainers."""
        return f"{self.prefix}:inbox"

    @property
    def dead(self) -> str:
        """Stream of refused messages, with the reason."""
        return f"{self.prefix}:dead"

    def trials(self, uid: str) -> str:
        """Hash: trial id -> record."""
        return f"{self.prefix}:trials:{uid}"

    def curve(self, uid: str, trial: int) -> str:
        """String: the packed points of one trial."""
        return f"{self.prefix}:curve:{uid}:{trial}"

    def verdicts(self, uid: str, trial: int) -> str:
        """Stream of one entry: the newest cumulative verdict of one trial."""
        return f"{self.prefix}:verdicts:{uid}:{trial}"

    def replies(self, session: str) -> str:
        """Stream: the answers to one operator session."""
        return f"{self.prefix}:replies:{session}"

    def alive(self, uid: str, trial: int, attempt: int, life: str) -> str:
        """String with expiry: the heartbeat of one life of one attempt, which all lives of a launch share."""
        return f"{self.prefix}:alive:{uid}:{trial}:{attempt}:{launch_of(life)}"

    def session(self, session: str) -> str:
        """String with expiry: the heartbeat of one operator session."""
        return f"{self.prefix}:session:{session}"
