"""Samplers: which hyper-parameters to try next. Needs numpy and scipy; loaded by the coordinator only."""
