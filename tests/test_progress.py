import io
import logging
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from hpopt import TrialRow
from workers.progress import News, PlainScreen, make_screen, show
from workers.snapshot import Estimate, Snapshot, duration
from workers.table import clean, trials_table

SPEC = SimpleNamespace(metric="loss", iterations=4, trials=3, search_space={"lr": None, "optimizer": None})
ROW = TrialRow(
    id=0, attempt=1, state="running", params={"lr": 0.0123456, "optimizer": "adam"}, score=0.51234, step=2, bracket=0,
    reason="", issued_at=1.0, started_at=2.0, ended_at=0.0,
)  # fmt: skip
DONE = replace(ROW, state="completed", step=4, score=0.25, reason="all iterations done", ended_at=3.0)
NEW = replace(ROW, id=1, score=None, step=0, params={"lr": 0.5, "optimizer": "sgd"})


def snapshot(*rows: TrialRow, best: TrialRow | None = None) -> Snapshot:
    """These trials, of which `best` leads."""
    return Snapshot(list(rows), best, share=0.5)


class Study:
    """Answers what a display asks of an HpOpt."""

    def __init__(self, *rows: TrialRow) -> None:
        self.spec = SPEC
        self.rows = list(rows)
        self.error: Exception | None = None
        self.asked = threading.Semaphore(0)

    def trials(self) -> list[TrialRow]:
        self.asked.release()
        if self.error is not None:
            raise self.error
        return self.rows

    def get_progress(self) -> float:
        return 0.5

    def get_best_config(self) -> dict[str, Any] | None:
        return self.rows[0].params if self.rows else None


class Terminal(io.StringIO):
    """A terminal, to those who ask."""

    def isatty(self) -> bool:
        return True


# --- plain lines


def test_news_are_ends_and_new_bests() -> None:
    """A trial's end is said once, and so is a new best score with its hyper-parameters."""
    news = News(SPEC)
    assert news.lines(snapshot(NEW), 0) == []
    assert news.lines(snapshot(DONE, NEW, best=DONE), 10) == [
        "trial 0 completed after 4 of 4 steps, loss 0.25: all iterations done [1/3 ended]",
        "best so far: loss 0.25 (trial 0) with lr=0.01235, optimizer=adam",
    ]
    assert news.lines(snapshot(DONE, NEW, best=DONE), 20) == []


def test_news_count_the_ends_one_by_one() -> None:
    """Of several trials that have ended since the last look, each line says how many had by then."""
    rows = [replace(DONE, id=number) for number in range(3)]
    lines = News(SPEC).lines(snapshot(*rows), 0)
    assert [line.rpartition("[")[2] for line in lines] == ["1/3 ended]", "2/3 ended]", "3/3 ended]"]


def test_news_of_running_trials_are_rare() -> None:
    """Scores of a running trial are not said more often than once a second, and none is forgotten."""
    news = News(SPEC)
    better = replace(ROW, score=0.4)
    assert len(news.lines(snapshot(ROW, best=ROW), 0.0)) == 1
    assert news.lines(snapshot(better, best=better), 0.5) == []
    assert news.lines(snapshot(better, best=better), 1.5) == [
        "best so far: loss 0.4 (trial 0) with lr=0.01235, optimizer=adam"
    ]


def test_news_of_a_trial_without_score() -> None:
    """A trial that failed has a dash for its score, and no best to announce."""
    failed = replace(NEW, state="failed", reason="its training crashed, without any score")
    assert News(SPEC).lines(snapshot(failed), 0) == [
        "trial 1 failed after 0 of 4 steps, loss -: its training crashed, without any score [1/3 ended]"
    ]


# --- time left


def test_estimate_counts_from_the_first_look() -> None:
    """What a resumed study had done before says nothing about how fast it is."""
    estimate = Estimate()
    assert estimate.left(0.5, now=100.0) is None
    assert estimate.left(0.5, now=110.0) is None
    assert estimate.left(0.6, now=110.0) == pytest.approx(40.0)


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "unknown"), (12.4, "12 s"), (700, "12 min"), (3 * 3600 + 300, "3 h 5 min")]
)
def test_duration(seconds: float | None, text: str) -> None:
    """Durations are as exact as an estimate is."""
    assert duration(seconds) == text


# --- the table


def test_table() -> None:
    """One aligned line for each trial by id, the best one marked, with hyper-parameters in four digits."""
    assert trials_table([NEW, DONE], SPEC, best=DONE).splitlines() == [
        "trial  state      loss  steps       lr  optimizer  why",
        "   0*  completed  0.25    4/4  0.01235       adam  all iterations done",
        "   1   running       -    0/4      0.5        sgd",
    ]


def test_table_of_no_trials() -> None:
    """A study without trials still has a head."""
    assert trials_table([], SPEC) == "trial  state  loss  steps  lr  optimizer  why"


def test_text_cannot_command_a_terminal() -> None:
    """What comes from outside loses its control characters, and its length."""
    assert "\x1b" not in clean("\x1b[2Jgone")
    assert clean("a\nb") == "a\N{REPLACEMENT CHARACTER}b"
    assert len(clean("x" * 100, 10)) == 10


# --- where it is shown


def test_show_ends_with_the_table() -> None:
    """Lines while the study runs, the table when the block has ended, messages in between."""
    out = io.StringIO()
    with show(Study(DONE), out=out) as say:  # type: ignore[arg-type]
        say("something went wrong")
    lines = out.getvalue().splitlines()
    assert "something went wrong" in lines
    assert any(line.startswith("trial 0 completed") for line in lines)
    assert lines[-1].split()[:2] == ["0*", "completed"]


def test_show_shows_the_table_after_an_interruption() -> None:
    """Whoever interrupts a study wants to know how far it was."""
    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt), show(Study(DONE), out=out):  # type: ignore[arg-type]
        raise KeyboardInterrupt
    assert out.getvalue().splitlines()[-1].split()[:2] == ["0*", "completed"]


def test_a_worker_that_joined_speaks_of_its_own_trials() -> None:
    """One worker of many says what it begins and how that ends, and at the end how the whole study stands."""
    out, other = io.StringIO(), replace(DONE, id=1, score=0.75)
    with show(Study(DONE, other), out=out, joined=True) as voice:  # type: ignore[arg-type]
        voice.trained = {1}
        voice.mention("trial 1 (attempt 1) begins: lr=0.1")
    lines = out.getvalue().splitlines()
    assert "trial 1 (attempt 1) begins: lr=0.1" in lines
    assert [line for line in lines if "completed after" in line] == [
        "trial 1 completed after 4 of 4 steps, loss 0.75: all iterations done [2/3 ended]"
    ]
    assert lines[-2].split()[:2] == ["1", "completed"]
    assert lines[-1] == "2 of 3 trials of the study have ended; trained here: 1; best: loss 0.25 (trial 0)"


def test_what_a_live_table_shows_is_not_mentioned(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a terminal the beginning of a trial is no line, and neither is it in a study of one's own."""
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "xterm")
    for out, joined in ((Terminal(), True), (io.StringIO(), False)):
        with show(Study(DONE), out=out, joined=joined) as voice:  # type: ignore[arg-type]
            voice.mention("begins")
        assert "begins" not in out.getvalue()


def test_show_survives_an_outage() -> None:
    """A server that does not answer ends neither the display nor the study."""
    study, out = Study(DONE), io.StringIO()
    study.error = ConnectionError("away")
    with show(study, out=out):  # type: ignore[arg-type]
        assert study.asked.acquire(timeout=10)
        study.error = None
    assert "trial 0 completed" in out.getvalue()


def test_a_look_that_had_to_wait_is_soon_followed_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage that was waited out does not make a display silent for twenty times as long."""
    study, there = Study(DONE), threading.Event()
    monkeypatch.setattr(study, "get_progress", lambda: float(there.wait(timeout=10)))
    with show(study, out=io.StringIO()):  # type: ignore[arg-type]
        assert study.asked.acquire(timeout=10)
        assert not there.wait(timeout=1.0)
        there.set()
        assert study.asked.acquire(timeout=10)


def test_show_nothing_but_logged_messages(caplog: pytest.LogCaptureFixture) -> None:
    """Without progress, messages are warnings in the log, and the study is not looked at."""
    study, out = Study(DONE), io.StringIO()
    with show(study, progress=False, out=out) as say:  # type: ignore[arg-type]
        say("a message")
    assert not out.getvalue()
    assert not study.asked.acquire(blocking=False)
    assert caplog.record_tuples == [("hpopt", logging.WARNING, "hpopt: a message")]


def test_terminal_without_rich_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """The live table needs rich, which the base install does not have."""
    monkeypatch.delitem(sys.modules, "workers.live", raising=False)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert isinstance(make_screen(SPEC, Terminal()), PlainScreen)
    assert isinstance(make_screen(SPEC, io.StringIO()), PlainScreen)


def test_live_table_shows_what_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials under way come before ended ones when there is no room for all, and text is never markup."""
    pytest.importorskip("rich")
    from rich.console import Console

    from workers.live import render

    monkeypatch.delenv("COLUMNS", raising=False)
    tricky = replace(NEW, params={"lr": 0.5, "optimizer": "[red]sgd"})
    early, late = (replace(DONE, id=number, ended_at=float(number)) for number in (3, 4))
    view = Snapshot([early, late, tricky], late, share=0.75, left=100.0)
    out = io.StringIO()
    Console(file=out, width=120).print(render(view, SPEC, room=2))
    text = out.getvalue()
    assert "2 of 3 trials ended, 1 running, time left: 2 min" in text
    assert text.splitlines()[1] == "━" * 60
    assert text.splitlines()[2].startswith("best: loss 0.25 (trial 4)")
    assert [line.split()[0] for line in text.splitlines()[-2:]] == ["1", "4"]
    assert "[red]sgd" in text


def test_live_screen_draws_and_clears_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a terminal the table is drawn in place; messages stay, and the cursor is given back."""
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    screen = make_screen(SPEC, out)
    screen.show(snapshot(DONE, best=DONE))
    screen.say("[bold]a message")
    screen.close()
    text = out.getvalue()
    assert "1 of 3 trials ended" in text
    assert "[bold]a message" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
