"""The peers of benchmarks/search: each is tested where its packages are installed; random and hpopt always are."""

import importlib.metadata
import math
from collections import deque
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.search.peers.native import Hpopt
from benchmarks.search.peers.parameter import Parameter, configuration, parameters
from benchmarks.search.peers.registry import DISTRIBUTIONS, PEERS, version
from benchmarks.search.problems import problem, problems
from hpopt.core.search_space import SearchSpace

SPACES = {
    "slope": SearchSpace("uniform", [-1.0, 2.0]),
    "lr": SearchSpace("loguniform", [1e-5, 1.0]),
    "layers": SearchSpace("quniform", [1, 12, 1]),
    "batch": SearchSpace("qloguniform", [8, 256, 8]),
    "width": SearchSpace("quniform", [0.5, 4.0, 0.5]),
    "optimizer": SearchSpace("choice", ["sgd", "adam", ["lamb", 1]]),
    "fixed": SearchSpace("choice", [7]),
}
TRIALS = 9


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=PEERS)
def peer(request: pytest.FixtureRequest) -> str:
    """Every peer whose packages are here."""
    name: str = request.param
    if name in DISTRIBUTIONS:
        try:
            importlib.metadata.version(DISTRIBUTIONS[name])
        except importlib.metadata.PackageNotFoundError:
            # no dependency of hpopt: who has installed benchmarks/search/requirements.txt tests the peers as well
            pytest.skip(f"{DISTRIBUTIONS[name]} is not installed")
    return name


def asked(name: str, seed: int, pending: int) -> list[dict[str, Any]]:
    """All configurations of a short run with so many trials pending."""
    peer, waiting, found = PEERS[name](SPACES, seed, TRIALS), deque[dict[str, Any]](), list[dict[str, Any]]()
    for _ in range(TRIALS):
        found.append(peer.ask())
        waiting.append(found[-1])
        if len(waiting) == pending:
            params = waiting.popleft()
            peer.tell(params, -((math.log10(params["lr"]) + 3.0) ** 2) - abs(params["layers"] - 5) / 10)
    return found


@pytest.mark.parametrize("pending", [1, 3])
def test_suggestions(peer: str, pending: int) -> None:
    """They are values of the space, of the types it has, and the same again for the same seed but for no other."""
    found = asked(peer, 3, pending)
    for params in found:
        assert list(params) == list(SPACES)
        for name, space in SPACES.items():
            assert space.contains(params[name])
            assert type(params[name]) is type(space.nearest(params[name]))
    assert asked(peer, 3, pending) == found
    assert asked(peer, 4, pending) != found


@pytest.mark.parametrize("name", [each.name for each in problems() if each.optimum is not None])
def test_minimizing_mirrors_maximizing(name: str) -> None:
    """On every function, losses make the same suggestions in mode="min" as their negatives do in mode="max"."""
    where, suggested = problem(name), []
    for mode, sign in (("max", 1), ("min", -1)):
        peer = Hpopt(where.space, 0, 50)
        peer._spec = replace(peer._spec, mode=mode)
        for _ in range(12):
            params = peer.ask()
            peer.tell(params, sign * where.truth(params))
        suggested.append([each.params for each in peer._observations])
    assert suggested[0] == suggested[1]


def test_told_in_any_order(peer: str) -> None:
    """A score finds its trial, also that of a configuration which was asked for twice."""
    optimizer = PEERS[peer]({"x": SearchSpace("choice", list(range(40)))}, 0, 12)
    for _ in range(3):
        configurations = [optimizer.ask() for _ in range(4)]
        for params in reversed(configurations):
            optimizer.tell(params, float(params["x"]))


def test_hpopt_says_when_the_space_is_exhausted() -> None:
    """A finite space has no more configurations than it has."""
    peer = PEERS["hpopt"]({"x": SearchSpace("choice", ["a", "b"])}, 0, 3)
    assert {peer.ask()["x"], peer.ask()["x"]} == {"a", "b"}
    with pytest.raises(LookupError, match="every configuration"):
        peer.ask()


def test_declarations() -> None:
    """Grids are declared as integers with the scale of their values, options as labels, and constants not at all."""
    declared = parameters(SPACES)
    assert list(declared) == ["x0", "x1", "x2", "x3", "x4", "x5"]
    assert declared["x1"] == Parameter(SPACES["lr"], "float", 1e-5, 1.0, log=True)
    assert declared["x3"] == Parameter(SPACES["batch"], "int", 1, 32, log=True)
    assert declared["x4"] == Parameter(SPACES["width"], "int", 1, 8)
    raw = {"x0": 2.0 + 1e-12, "x1": 1e-3, "x2": 12, "x3": 32.0, "x4": 3, "x5": "2"}
    expected = {"slope": 2.0, "lr": 1e-3, "layers": 12, "batch": 256, "width": 1.5, "optimizer": ["lamb", 1]}
    assert configuration(SPACES, raw) == {**expected, "fixed": 7}
    outside = {"x0": -99.0, "x1": 9.0, "x2": 10**6, "x3": 0.0, "x4": -3, "x5": "2"}
    ends = {name: parameter.inside(outside[name]) for name, parameter in parameters(SPACES).items()}
    assert all(each.kind == "label" or ends[name] in (each.low, each.high) for name, each in parameters(SPACES).items())
    assert [name for name in raw if parameters(SPACES)[name].inside(raw[name]) != raw[name]] == ["x0"]  # 2 + 1e-12


def test_versions(peer: str) -> None:
    """Every peer that is installed has a version; a name that is none is refused."""
    assert version(peer)[0].isdigit()
    with pytest.raises(KeyError, match="nobody"):
        version("nobody")
