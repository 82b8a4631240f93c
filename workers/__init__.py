"""Runs a study's trials on this machine: `workers.run(train, hpo, jobs=4)`."""

from workers.launcher import run
from workers.table import trials_table

__all__ = ["run", "trials_table"]
