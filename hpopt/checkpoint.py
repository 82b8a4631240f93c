"""Where the checkpoints of a trial are: one folder for all of its attempts, as long as they train the same thing."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpopt.config import Identity

ROOT = "HPOPT_CHECKPOINTS"
"""Environment variable: the folder below which every trial has one of its own."""
KEY = "checkpoint_dir"
"""Key of a config: the trial's own folder, for whoever launches trainers and keeps folders in another way."""


def checkpoint_dir(config: Mapping[str, Any]) -> Path:
    """The folder for the checkpoints of this trial; it is made if it is not there.

    It is `config["checkpoint_dir"]` if there is one, else a folder of the trial's own below the one that the
    environment variable HPOPT_CHECKPOINTS names (`hpopt-worker --checkpoints` and `workers.run` set both). A trial that
    is handed out again, because its trainer was preempted or has crashed, finds what the earlier attempt has saved. If
    its hyper-parameters were changed in between (a smaller batch after memory ran out), it begins in an empty folder.

    Raises ValueError when no folder was configured or the config is none of hpopt's, OSError when the folder cannot be
    made.
    """
    folder = _folder(config)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        source = f"{ROOT}={os.environ.get(ROOT)!r}" if config.get(KEY) is None else f"config[{KEY!r}]"
        why = f"{error.strerror}: {source} has to name a place where folders can be made"
        raise OSError(error.errno, why, str(folder)) from None
    return folder


def _folder(config: Mapping[str, Any]) -> Path:
    identity = Identity.of(config)
    given = config.get(KEY)
    if given is not None:
        if not isinstance(given, str) or not given:
            raise ValueError(f"config[{KEY!r}]={given!r}: use the path of a folder, as a str")
        return Path(given)
    root = os.environ.get(ROOT)
    if not root:
        raise ValueError(
            f"no folder for checkpoints is configured: start hpopt-worker with --checkpoints DIR, pass checkpoints=DIR "
            f"to workers.run, or set {ROOT}=DIR where trainers run; a DIR on shared storage outlives the machine"
        )
    name = f"trial-{identity.trial}-{_digest(config)}"
    return Path(root).absolute() / identity.namespace / identity.study / identity.uid / name


def _digest(config: Mapping[str, Any]) -> str:
    """A few characters that stand for the hyper-parameters: other ones, other checkpoints."""
    params = config.get("params")
    if not isinstance(params, Mapping):
        raise ValueError(  # noqa: TRY004 - the config is a dict, but not one of ours
            f'config["params"]={params!r}: pass on the whole dict that get_next_sample() returned'
        )
    text = json.dumps(_canonical(params), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _canonical(value: Any) -> Any:
    """The value as every JSON tool would hand it on: some write 64 as 64.0, or turn tuples into lists."""
    if isinstance(value, Mapping):
        return {str(name): _canonical(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
