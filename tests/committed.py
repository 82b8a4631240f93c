"""What is committed of a study, and whether a study is what was committed."""

from dataclasses import dataclass, field
from typing import Any

import msgpack

from hpopt.core.codec import decode, encode
from hpopt.core.curve import pack, unpack
from hpopt.core.effects import Effect, PointAdded, Replied, StudyChanged, StudyReplaced, TrialChanged, VerdictGiven
from hpopt.core.messages import Verdict
from hpopt.core.study import Study
from hpopt.core.trial import Trial


@dataclass
class Committed:
    """What a server would hold of one study, as bytes."""

    uid: str = ""
    state: bytes = b""
    records: dict[int, bytes] = field(default_factory=dict)
    curves: dict[int, bytearray] = field(default_factory=dict)
    verdicts: dict[tuple[str, int], bytes] = field(default_factory=dict)
    replies: dict[str, list[bytes]] = field(default_factory=dict)

    def apply(self, study: Study, effects: list[Effect]) -> None:
        """Commit what follows from one event."""
        for effect in effects:
            match effect:
                case StudyReplaced():
                    self.records, self.curves = {}, {}
                case PointAdded():
                    self.curves.setdefault(effect.trial, bytearray()).extend(pack(effect.point))
                case VerdictGiven():
                    self.verdicts[effect.uid, effect.trial] = encode(effect.verdict)
                case Replied():
                    self.replies.setdefault(effect.session, []).append(encode(effect.answer))
                case TrialChanged():
                    self.records[effect.trial.id] = msgpack.packb(effect.trial.to_wire())
                case StudyChanged():
                    self.uid, self.state = study.uid, msgpack.packb(study.to_wire())

    def verdict(self, uid: str, trial: int) -> Verdict | None:
        """The newest verdict of a trial."""
        data = self.verdicts.get((uid, trial))
        return None if data is None else decode(data, Verdict)

    def restore(self, takeover_after: float) -> Study:
        """The study, as a coordinator that has just taken it over would load it."""
        study = Study(takeover_after)
        if self.uid:
            trials = [Trial.from_wire(msgpack.unpackb(record)) for _, record in sorted(self.records.items())]
            loaded = [(trial, unpack(bytes(self.curves.get(trial.id, b"")))) for trial in trials]
            study.restore(self.uid, msgpack.unpackb(self.state))
            study.take_in(loaded)
        return study


def snapshot(study: Study) -> Any:
    """Everything that a study remembers and its answers may depend on, in values that can be compared."""
    if not study.uid:
        return None
    trials, scheduler = study.trials, study.attempts.scheduler
    records = [unpacked(trial.to_wire()) for trial in trials]
    curves = {number: curve for number, curve in getattr(scheduler, "curves", {}).items() if curve.later.steps}
    means = {step: sorted(means) for step, means in getattr(scheduler, "by_step", {}).items() if means}
    rungs = getattr(scheduler, "rungs", None), getattr(scheduler, "progress", None)
    indexes = sorted(trials.pending), trials.ended, trials._handed, list(study.desk.requests.items())
    stands_for = study.attempts.resizing._keys() if study.spec.batch_size_name else ()
    return study.uid, unpacked(study.to_wire()), records, indexes, sorted(map(repr, stands_for)), curves, means, rungs


def unpacked(wire: Any) -> Any:
    """Plain values as they come back from the wire."""
    return msgpack.unpackb(msgpack.packb(wire))
