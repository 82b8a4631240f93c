"""The locks that the images are built from: every file has a hash, and what pyproject.toml asks for is all there."""

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.server import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
COORDINATOR, BUILD = "requirements/coordinator.lock", "requirements/build.lock"
ENTRY = re.compile(r"[a-z0-9-]+==[0-9][\w.]*( ; [^-]+)?( +--hash=sha256:[0-9a-f]{64})+")


def entries(lock: str) -> list[str]:
    """The entries of a lock, each of them a requirement with its hashes on one line."""
    text = (ROOT / lock).read_text(encoding="utf-8").replace("\\\n", "")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def locked(lock: str) -> dict[str, str]:
    """Name and version of everything in a lock."""
    found = (Requirement(entry.partition("--hash")[0]) for entry in entries(lock))
    return {canonicalize_name(each.name): str(each.specifier).removeprefix("==") for each in found}


def needed(asked: list[Requirement]) -> Iterator[Requirement]:
    """What is asked for, and all that it needs in turn, as what is installed here says."""
    seen: set[str] = set()
    while asked:
        each = asked.pop()
        if str(each) in seen:
            continue
        seen.add(str(each))
        yield each
        for extra in ("", *each.extras):
            below = [Requirement(text) for text in requires(each.name) or ()]
            asked += [one for one in below if one.marker is None or one.marker.evaluate({"extra": extra})]


@pytest.mark.parametrize("lock", [COORDINATOR, BUILD])
def test_everything_has_an_exact_version_and_a_hash(lock: str) -> None:
    """A file whose hash is not in the lock is refused by pip, and so is a lock with an entry that has none."""
    assert [entry for entry in entries(lock) if not ENTRY.fullmatch(entry)] == []


@pytest.mark.parametrize(
    ("lock", "asked"),
    [
        (
            COORDINATOR,
            [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["coordinator"]],
        ),
        (BUILD, PROJECT["build-system"]["requires"]),
    ],
)
def test_the_lock_is_that_of_the_project(lock: str, asked: list[str]) -> None:
    """Everything that the project asks for is there, in versions that it allows; `make lock` brings it up to date."""
    versions = locked(lock)
    wanted = [Requirement(text) for text in asked]
    assert [
        str(each) for each in wanted if not each.specifier.contains(versions.get(canonicalize_name(each.name), "0"))
    ] == []


def test_the_coordinators_lock_is_complete() -> None:
    """What its packages need in turn is there as well, and nothing besides."""
    extra = PROJECT["project"]["optional-dependencies"]["coordinator"]
    asked = [Requirement(text) for text in (*PROJECT["project"]["dependencies"], *extra)]
    names = {canonicalize_name(each.name) for each in needed(asked)}
    assert names - {"async-timeout"} == set(locked(COORDINATOR)) - {"async-timeout"}  # of Python 3.11.2 and before


def test_what_is_tested_is_what_is_shipped() -> None:
    """The versions of the coordinator's lock are those of constraints.txt, which the tests run with."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    shipped = locked(COORDINATOR)
    shared = tested.keys() & shipped.keys()
    assert {name: shipped[name] for name in shared} == {name: tested[name] for name in shared}
    assert shipped.keys() - shared == {"async-timeout"}
