"""Peer: an optimizer that is asked for hyper-parameters and told their scores; and what all adapters share."""

import contextlib
import io
import logging
import warnings
from collections import defaultdict, deque
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, Protocol

from benchmarks.search.peers.parameter import configuration
from hpopt.core.space import SearchSpace, Space


class Peer(Protocol):
    """An optimizer of one problem. `ask` may be called again before the earlier configurations were told."""

    def ask(self) -> dict[str, Any]:
        """The next configuration to try."""

    def tell(self, params: dict[str, Any], score: float) -> None:
        """The score of a configuration that was asked for, larger is better; once for each, in any order."""


class Optimizer(Protocol):
    """The part of an adapter that differs: it deals in the values of `parameters(spaces)`, not in ours."""

    def ask(self) -> tuple[Any, Mapping[str, Any]]:
        """A handle to tell the score with, and the values by the names of the parameters."""

    def tell(self, handle: Any, score: float) -> None:
        """The score that belongs to the handle, larger is better."""


class Adapted:
    """The Peer made of an Optimizer: it translates the configurations, and keeps the optimizer silent."""

    def __init__(self, optimizer: Optimizer, spaces: Mapping[str, SearchSpace]) -> None:
        self._optimizer = optimizer
        self._space = Space(spaces)
        self._open: defaultdict[Hashable, deque[Any]] = defaultdict(deque)

    def ask(self) -> dict[str, Any]:
        """The next configuration to try."""
        with silence():
            handle, raw = self._optimizer.ask()
        params = configuration(self._space, raw)
        self._open[self._space.key(params)].append(handle)
        return params

    def tell(self, params: dict[str, Any], score: float) -> None:
        """Pass the score on, with the handle of the configuration; of equal ones, the one asked for first."""
        handle = self._open[self._space.key(params)].popleft()
        with silence():
            self._optimizer.tell(handle, score)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """No warnings, no log records and no output, until the end of the block."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
