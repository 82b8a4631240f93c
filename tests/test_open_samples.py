import json

import pytest

import hpopt
from hpopt.embedded import EmbeddedServer
from tests.conftest import Create
from tests.studies import SMALL, sample, start_python, train

KILLED = """
import json, os, signal, sys
import hpopt
from tests.studies import SMALL

where = json.loads(sys.argv[1])
hpo = hpopt.create(**{**SMALL, **where})
print(json.dumps(hpo.get_next_sample()), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_an_operator_hears_what_it_was_handed_before_it_was_killed(embedded: EmbeddedServer, create: Create) -> None:
    """The operator of the same name is told at once, and the config is the same, byte for byte."""
    hpo = create(operator="jobs")
    killed = start_python(KILLED, {"url": embedded.url, "study": hpo.study, "resume": True, "operator": "jobs",
                                   "save_path": str(hpo.save_path)})  # fmt: skip
    killed.wait()
    config = json.loads(killed.lines[0])
    assert [json.dumps(each) for each in hpo.get_open_samples()] == [json.dumps(config)]
    train(config)
    assert hpo.get_open_samples() == []


def test_samples_that_no_trainer_has_begun(create: Create) -> None:
    """`started` tells those that may have no job yet from those that have one."""
    hpo = create(operator="jobs")
    first, second = sample(hpo), sample(hpo)
    hpopt.report(first, 0.5)
    assert hpo.get_open_samples(started=True) == [first]
    assert hpo.get_open_samples(started=False) == [second]
    assert hpo.get_open_samples() == [first, second]


@pytest.mark.parametrize("other", [None, "jobs.b", "job"])
def test_what_others_were_handed_is_theirs(embedded: EmbeddedServer, create: Create, other: str | None) -> None:
    """Runners and operators of other names launch their own; a session without a name knows its own only."""
    hpo = create(operator="jobs")
    config = sample(hpo)
    with hpopt.join(hpo.study, embedded.url, operator=other) as beside:
        its = sample(beside)
        assert (hpo.get_open_samples(), beside.get_open_samples()) == ([config], [its])


@pytest.mark.parametrize("operator", ["", "a b", "x" * 41, 5])
def test_names_of_operators_are_checked(operator: object) -> None:
    """A bad one is refused before anything is made."""
    with pytest.raises(ValueError, match=r"operator=.*: use 1 to 40 of the characters"):
        hpopt.create(**SMALL, operator=operator)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"operator=.*: use 1 to 40 of the characters"):
        hpopt.join("none", "redis://localhost:1", operator=operator)  # type: ignore[arg-type]
