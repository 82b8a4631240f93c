"""The folders of checkpoints that are not needed any more."""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import hpopt
from hpopt import TrialRow
from workers.snapshot import ENDED

KEEP = ("all", "best", "none")
"""Whose checkpoints stay when trials have ended: everybody's, those of the best trials, nobody's."""

_NAMED = re.compile(r"trial-(\d+)-[0-9a-f]{8}")


def study_folder(hpo: hpopt.HpOpt, root: str) -> Path:
    """Where `hpopt.checkpoint_dir` makes the folders of this study's trials."""
    return Path(root).absolute() / hpo.namespace / hpo.study / hpo.uid


def sweep(hpo: hpopt.HpOpt, root: str, keep: str) -> None:
    """Remove the checkpoints of trials that have ended, but for those that `keep` names."""
    folder = study_folder(hpo, root)
    if keep == "all" or not folder.is_dir():
        return
    rows = hpo.trials()
    done = {row.id for row in rows if row.state in ENDED}
    if keep == "best":
        done -= candidates(rows, sign=hpo.spec.sign) if len(done) < hpo.spec.trials else _winner(hpo, rows)
    for each in folder.iterdir():
        named = _NAMED.fullmatch(each.name)
        if named is not None and int(named[1]) in done:
            shutil.rmtree(each, ignore_errors=True)  # another worker may be at it as well


def candidates(rows: Iterable[TrialRow], sign: float) -> set[int]:
    """The trials that may yet be the study's best: no other one has a better score and as many steps."""
    front: set[int] = set()
    most = -1
    scored = [row for row in rows if row.score is not None]
    for row in sorted(scored, key=lambda row: (-sign * (row.score or 0.0), -row.step, row.id)):
        if row.step > most:  # the better ones have all had fewer steps
            front.add(row.id)
            most = row.step
    return front


def _winner(hpo: hpopt.HpOpt, rows: Iterable[TrialRow]) -> set[int]:
    params = hpo.get_best_config()
    return {row.id for row in rows if row.score is not None and row.params == params}
