"""The config: the plain dict that carries a sample to its trainer, and the identity in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hpopt.core.codec import LARGEST, NAME, OLDEST, VERSION
from hpopt.core.keys import StudyKeys
from hpopt.core.messages import Sample
from hpopt.core.rungs import rung_levels
from hpopt.core.spec import RESERVED, StudySpec
from hpopt.errors import VersionSkew


@dataclass(frozen=True, slots=True)
class Identity:
    """Which attempt of which trial a config belongs to, and where its study lives."""

    namespace: str
    study: str
    uid: str
    trial: int
    attempt: int
    url: str | None
    """Without credentials; None when the trainer's environment has to say it."""

    @property
    def keys(self) -> StudyKeys:
        """The keys of the study."""
        return StudyKeys(self.namespace, self.study)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Identity":
        """The identity in a config. Raises TypeError or ValueError that names what is missing or wrong."""
        if not isinstance(config, Mapping):
            raise TypeError(f"config={config!r}: pass the dict that get_next_sample() returned")
        found = config.get("hpopt")
        if not isinstance(found, Mapping):
            raise ValueError(  # noqa: TRY004 - the config is a dict, but not one of ours
                'config["hpopt"] is missing: pass on the whole dict that get_next_sample() returned'
            )
        version = _natural(found, "version")
        if not OLDEST <= version <= VERSION + 1:
            raise VersionSkew(f"the config is of protocol {version}, this process reads {OLDEST} to {VERSION + 1}")
        url = found.get("url")
        return cls(
            _text(found, "namespace"), _text(found, "study"), _uid(found),
            _natural(found, "trial"), _natural(found, "attempt"), None if url is None else _text(found, "url"),
        )  # fmt: skip


def build_config(spec: StudySpec, identity: Identity, sample: Sample) -> dict[str, Any]:
    """The config of a sample. The same sample always gives the same config, byte for byte as JSON."""
    config: dict[str, Any] = {name: value for name, value in sample.params.items() if name not in RESERVED}
    config |= {
        "params": dict(sample.params),
        "iterations": spec.iterations,
        "trial_id": sample.trial,
        "attempt": sample.attempt,
        "subset_ratio": spec.subset_ratio,
        "resize_width": spec.image_resize[0],
        "resize_height": spec.image_resize[1],
        "mode": spec.mode,
        "metric": spec.metric,
        "dataset_size": spec.full_dataset_size,
        "batch_size_name": spec.batch_size_name,
    }
    if spec.search_alg == "asha":
        rungs = rung_levels(spec.min_iterations or 1, spec.iterations, spec.reduction_factor, sample.bracket)
        config |= {"bracket": sample.bracket, "rungs": list(rungs)}
    else:
        config["early_stop"] = spec.early_stop if sample.trial >= spec.grace_trials else None
    config["hpopt"] = {
        "version": VERSION,
        "namespace": identity.namespace,
        "study": identity.study,
        "uid": identity.uid,
        "trial": identity.trial,
        "attempt": identity.attempt,
        "url": identity.url,
        "token": None,
    }
    return config


def _natural(found: Mapping[str, Any], name: str) -> int:
    value = found.get(name)
    if type(value) is float and value.is_integer():
        value = int(value)  # JSON tools write 3 as 3.0
    if type(value) is not int or not 0 <= value <= LARGEST:
        raise ValueError(f'config["hpopt"]["{name}"]={value!r}: pass on the dict as get_next_sample() returned it')
    return value


def _uid(found: Mapping[str, Any]) -> str:
    value = _text(found, "uid")
    if not NAME.fullmatch(value):
        raise ValueError(f'config["hpopt"]["uid"]={value!r}: pass on the dict as get_next_sample() returned it')
    return value


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f'config["hpopt"]["{name}"]={value!r}: pass on the dict as get_next_sample() returned it')
    return value
