import pytest

from hpopt.core.keys import StudyKeys

KEYS = StudyKeys("team", "run-1")
PINNED = [
    (KEYS.meta, "meta"),
    (KEYS.lease, "lease"),
    (KEYS.inbox, "inbox"),
    (KEYS.dead, "dead"),
    (KEYS.trials("u"), "trials:u"),
    (KEYS.curve("u", 3), "curve:u:3"),
    (KEYS.verdicts("u", 3), "verdicts:u:3"),
    (KEYS.replies("s"), "replies:s"),
    (KEYS.alive("u", 3, 2, "a"), "alive:u:3:2:a"),
    (KEYS.session("s"), "session:s"),
]


@pytest.mark.parametrize(("key", "name"), PINNED, ids=[name for _, name in PINNED])
def test_keys_are_pinned(key: str, name: str) -> None:
    """Every key of a study has the hash tag {namespace/study}, so that all are in one cluster slot."""
    assert key == "hpopt:{team/run-1}:" + name


def test_a_path_names_a_study() -> None:
    """Namespace and study, as they stand in the set of all studies."""
    assert StudyKeys.parse("team/run-1") == KEYS
    assert KEYS.path == "team/run-1"


@pytest.mark.parametrize("name", ["", "x" * 65, "a b", "a/b", "a{b", "a}b", "a*b", "a\n", "ä", "[a]", "a\\b", "a:b"])
def test_names_that_could_reach_other_keys(name: str) -> None:
    """A name is 1 to 64 harmless characters: no separators, no glob characters."""
    with pytest.raises(ValueError, match=r"namespace=.*: use 1 to 64 of the characters"):
        StudyKeys(name, "run-1")
    with pytest.raises(ValueError, match=r"study=.*: use 1 to 64 of the characters"):
        StudyKeys("team", name)


@pytest.mark.parametrize("path", ["", "team", "team/", "/run", "team/run/1"])
def test_paths_that_are_none(path: str) -> None:
    """What another program left in the set of all studies is refused."""
    with pytest.raises(ValueError, match="use 1 to 64"):
        StudyKeys.parse(path)
