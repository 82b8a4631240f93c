from collections.abc import Mapping
from pathlib import Path

import pytest

from hpopt.core.curve import Point, pack
from hpopt.core.trial import Trial, TrialState
from hpopt.curves import FILE, HEAD, CurvesFile, load_curves
from tests.conftest import Create
from tests.studies import curve, run_all

Scores = list[float | None]


class Server:
    """Holds curves, and counts the bytes that are read of them."""

    def __init__(self, *curves: Scores) -> None:
        self.curves = {trial: bytearray() for trial in range(len(curves))}
        self.trials = [Trial(trial, {}, state=TrialState.RUNNING) for trial in self.curves]
        self.read = 0
        for trial, scores in enumerate(curves):
            self.report(trial, *scores)

    def report(self, trial: int, *scores: float | None, attempt: int = 1) -> None:
        """The trial's next scores."""
        for score in scores:
            self.curves[trial] += pack(Point(attempt, len(self.curves[trial]) // 14 + 1, score))

    def tails(self, begins: Mapping[int, int]) -> dict[int, bytes]:
        """See hpopt.curves.Tails."""
        found = {trial: bytes(self.curves[trial][begin:]) for trial, begin in begins.items()}
        self.read += sum(map(len, found.values()))
        return found


def scores(path: Path) -> dict[int, Scores]:
    """The scores in the file by trial."""
    return {trial: [point.score for point in points] for trial, points in load_curves(path).items()}


def test_the_file_has_a_line_for_each_report(tmp_path: Path) -> None:
    """Trial, attempt, step and score to the last digit; nothing for a score that was not finite."""
    server = Server([0.1 + 0.2, None], [-1e-300])
    server.report(0, 3.0, attempt=2)
    CurvesFile(tmp_path / FILE, server.tails).update(server.trials)
    assert (tmp_path / FILE).read_text() == f"{HEAD}\n0,1,1,0.30000000000000004\n0,1,2,\n0,2,3,3.0\n1,1,1,-1e-300\n"
    assert load_curves(tmp_path / FILE)[0] == [Point(1, 1, 0.1 + 0.2), Point(1, 2, None), Point(2, 3, 3.0)]


def test_only_what_is_new_is_read_and_appended(tmp_path: Path) -> None:
    """The file stays the same one; curves of trials that have ended are not read again."""
    server = Server([0.1] * 100, [0.2] * 100)
    file = CurvesFile(tmp_path / FILE, server.tails)
    server.trials[0].state = TrialState.COMPLETED
    file.update(server.trials)
    inode, server.read = (tmp_path / FILE).stat().st_ino, 0
    server.report(1, 0.3)
    file.update(server.trials)
    assert ((tmp_path / FILE).stat().st_ino, server.read) == (inode, 2 * 14)
    assert scores(tmp_path / FILE) == {0: [0.1] * 100, 1: [*[0.2] * 100, 0.3]}


def test_a_trial_that_comes_later_is_appended(tmp_path: Path) -> None:
    """As is one that has no score for a while."""
    server = Server([0.1], [])
    file = CurvesFile(tmp_path / FILE, server.tails)
    file.update(server.trials[:1])
    file.update(server.trials)
    server.report(1, 0.5)
    file.update(server.trials)
    assert scores(tmp_path / FILE) == {0: [0.1], 1: [0.5]}


@pytest.mark.parametrize("damage", ["", f"{HEAD}\n", "something else", None])
def test_a_file_that_somebody_touched_is_written_anew(tmp_path: Path, damage: str | None) -> None:
    """Whatever was done to it, the next time it is whole again."""
    server = Server([0.1], [0.2])
    file = CurvesFile(tmp_path / FILE, server.tails)
    file.update(server.trials)
    (tmp_path / FILE).unlink() if damage is None else (tmp_path / FILE).write_text(damage)
    server.report(1, 0.3)
    file.update(server.trials)
    assert scores(tmp_path / FILE) == {0: [0.1], 1: [0.2, 0.3]}


def test_two_who_write_do_no_harm(tmp_path: Path) -> None:
    """Two sessions with one save_path: each sees that the other has written."""
    server = Server([0.1])
    files = [CurvesFile(tmp_path / FILE, server.tails) for _ in range(2)]
    for n in range(6):
        server.report(0, float(n))
        files[n % 2].update(server.trials)
    assert (tmp_path / FILE).read_text().count("\n") == 1 + 7
    assert scores(tmp_path / FILE) == {0: [0.1, 0, 1, 2, 3, 4, 5]}


@pytest.mark.parametrize("again", [[0.5], [0.5, 0.6], [0.5, 0.6, 0.7, 0.8]])
def test_points_that_a_server_lost_are_dropped(tmp_path: Path, again: Scores) -> None:
    """After a failover a curve may be shorter, or have grown in another way: the file follows."""
    server = Server([0.1, 0.2, 0.3])
    file = CurvesFile(tmp_path / FILE, server.tails)
    file.update(server.trials)
    server.curves[0].clear()
    server.report(0, *again)
    file.update(server.trials)
    assert scores(tmp_path / FILE) == {0: again}


def test_an_update_that_failed_is_made_up_for(tmp_path: Path) -> None:
    """An error of the server leaves a file that can be read; the next update is a whole one."""
    server = Server([0.1])
    file = CurvesFile(tmp_path / FILE, server.tails)
    file.update(server.trials)
    server.trials.append(Trial(7, {}, state=TrialState.RUNNING))
    with pytest.raises(KeyError):
        file.update(server.trials)
    server.trials.pop()
    server.report(0, 0.2)
    file.update(server.trials)
    assert scores(tmp_path / FILE) == {0: [0.1, 0.2]}
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    """Readers need no lock; what came twice counts once."""
    path = tmp_path / FILE
    path.write_text(f"{HEAD}\n3,1,1,0.5\n3,1,2,0.6\n3,1,1,0.5\n3,2,1,0.7\n3,2,2,0.")
    assert load_curves(path) == {3: [Point(1, 1, 0.5), Point(1, 2, 0.6), Point(2, 1, 0.7)]}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a,b\n", f"does not begin with '{HEAD}': delete the file"),
        ("", "does not begin with"),
        (f"{HEAD}\n1,1,1,0.5\n1,1,2\n", f"line 3: '1,1,2' is no '{HEAD}'"),
        (f"{HEAD}\n1,1,x,0.5\n", "line 2"),
    ],
)
def test_a_file_that_is_none_of_ours_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    """The error names the file and the line."""
    path = tmp_path / FILE
    path.write_text(text)
    with pytest.raises(ValueError, match=problem):
        load_curves(path)


def test_the_file_follows_a_study(create: Create, tmp_path: Path) -> None:
    """After close() the file holds what is committed, also when a study was resumed."""
    with create(num_trials=2) as hpo:
        run_all(hpo)
        committed = {trial: curve(hpo, trial) for trial in range(2)}
    assert load_curves(tmp_path / FILE) == committed
    with create(num_trials=3, resume=True) as hpo:
        run_all(hpo, lambda _, step: float("nan") if step == 2 else step)
        committed[2] = curve(hpo, 2)
    assert load_curves(tmp_path / FILE) == committed
    assert [point.score for point in committed[2]] == [1, None, 3, 4]
