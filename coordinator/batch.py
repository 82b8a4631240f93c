"""The effects of a batch of events, folded into one call of the commit script."""

from typing import Any

import msgpack

from hpopt.core.codec import encode
from hpopt.core.curve import pack
from hpopt.core.effects import (
    Effect,
    Noted,
    PointAdded,
    Refused,
    Replied,
    StudyChanged,
    StudyReplaced,
    TrialChanged,
    VerdictGiven,
)  # fmt: skip
from hpopt.core.keys import StudyKeys
from hpopt.core.trial import Trial

VERDICT_TTL = 3_600_000
"""Milliseconds for which the last verdict of an ended trial stays; later readers ask for it."""
REPLY_TTL = 3_600_000
"""The same for an operator's unread answers."""
SCHEMA = 1
"""Version of what is stored; a coordinator refuses a study of a later one."""
DEAD_HEAD = 1024
"""So many bytes of a refused message are kept."""

Meta = dict[str, bytes | str | int]
"""Fields of the study's meta hash that are to be set."""


class Batch:
    """What is to be written. Of several changes to one trial only the last is."""

    def __init__(self, keys: StudyKeys, uid: str) -> None:
        """`uid`: the incarnation before the batch."""
        self.keys = keys
        self.uid = uid
        self.notes: list[Noted] = []
        self.replaced: list[StudyReplaced] = []
        self.study_changed = False
        self._trials: dict[int, Trial] = {}
        self._points: dict[int, bytearray] = {}
        self._verdicts: dict[tuple[str, int], VerdictGiven] = {}
        self._replies: list[Replied] = []
        self._dead: list[tuple[str, bytes]] = []

    def add(self, effects: list[Effect], payload: bytes = b"") -> None:
        """Take in what follows from one event, whose bytes were `payload`."""
        for effect in effects:
            match effect:
                case PointAdded():
                    self._points.setdefault(effect.trial, bytearray()).extend(pack(effect.point))
                case VerdictGiven():
                    self._verdicts[effect.uid, effect.trial] = effect
                case TrialChanged():
                    self._trials[effect.trial.id] = effect.trial
                case Replied():
                    self._replies.append(effect)
                case StudyChanged():
                    self.study_changed = True
                case Noted():
                    self.notes.append(effect)
                case Refused():
                    self.refuse(effect.reason, payload)
                case StudyReplaced():
                    self.replaced.append(effect)
                    self._trials.clear()
                    self._points.clear()
                    self.study_changed = True

    def refuse(self, reason: str, payload: bytes) -> None:
        """Keep the head of a message as a dead letter."""
        self._dead.append((reason, payload[:DEAD_HEAD]))

    @property
    def empty(self) -> bool:
        """Nothing follows."""
        written = self._trials or self._points or self._verdicts or self._replies or self._dead
        return not (written or self.study_changed)

    def command(self, owner: str, seq: int, uid: str, meta: Meta) -> tuple[list[str], list[Any]]:
        """KEYS and ARGV of the commit script. `uid`: the incarnation after the batch; `meta`: fields to set."""
        script = _Script(self.keys.meta)
        for field, value in meta.items():
            script.add("H", self.keys.meta, "h", field, value)
        for trial in self._trials.values():
            script.add("H", self.keys.trials(uid), "h", trial.id, msgpack.packb(trial.to_wire()))
        for trial_id, points in self._points.items():
            script.add("A", self.keys.curve(uid, trial_id), "s", bytes(points))
        for (its_uid, trial_id), given in self._verdicts.items():
            ttl = VERDICT_TTL if given.ended else 0
            script.add("V", self.keys.verdicts(its_uid, trial_id), "x", encode(given.verdict), ttl)
        for reply in self._replies:
            script.add("R", self.keys.replies(reply.session), "x", encode(reply.answer), REPLY_TTL)
        for reason, head in self._dead:
            script.add("D", self.keys.dead, "x", reason, head)
        return script.keys, [owner, seq, "".join(script.types), *script.operations]


class _Script:
    """Keys, each once with its type, and operations that name them by position."""

    def __init__(self, meta: str) -> None:
        self.keys = [meta]
        self.types = ["h"]
        self.operations: list[Any] = []
        self._positions = {meta: 1}

    def add(self, operation: str, key: str, kind: str, *arguments: Any) -> None:
        position = self._positions.get(key)
        if position is None:
            self.keys.append(key)
            self.types.append(kind)
            position = self._positions[key] = len(self.keys)
        self.operations += (operation, position, *arguments)
