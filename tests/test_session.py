"""An operator's session with a study: its results, its end, its secrets."""

import contextlib
import csv
import json
import logging
import math
import os
import pickle
import signal
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import hpopt
from hpopt import session
from hpopt.embedded import EmbeddedServer
from tests.conftest import Create, InBackground
from tests.server import DEADLINE, Server, start_coordinator, until
from tests.studies import SMALL, SPACE, run_all, start_python, train

Config = dict[str, Any]

# --- results


def test_print_results_prints_as_the_original_did(create: Create, capsys: pytest.CaptureFixture[str]) -> None:
    """A row per scored trial: its number, its values in columns of 20 or more, its best score."""
    long = "a_name_of_22_character"
    space = {long: hpopt.search_space("quniform", [0, 10, 5]), "opt": hpopt.search_space("choice", ["sgd", None])}
    defaults = [{long: 5, "opt": "sgd"}, {long: 10, "opt": None}, {long: 0, "opt": "sgd"}]
    hpo = create(search_space=space, default_hyper_parameters=defaults, num_trials=3)
    for score in (0.5, math.nan, -1e-05):
        config = hpo.get_next_sample() or {}
        hpopt.report(config, score)
        hpopt.report(config, score - 1, current_iters=4)
    hpo.print_results()
    assert capsys.readouterr().out == (
        "|  #  | a_name_of_22_character  |        opt          |        score        |\n"
        "|   1 |                       5 |                 sgd |                 0.5 |\n"
        "|   2 |                       0 |                 sgd |              -1e-05 |\n"
    )


def test_progress_counts_trials_and_their_iterations(create: Create) -> None:
    """get_progress() goes from 0 to 1, and a trial under way counts in part."""
    hpo = create(num_trials=2)
    assert hpo.get_progress() == 0
    config = hpo.get_next_sample() or {}
    assert hpo.get_progress() == 0
    hpopt.report(config, 0.5)
    assert hpo.get_progress() == 1 / 8
    hpopt.finalize_trial(config)
    assert hpo.get_progress() == 1 / 2
    run_all(hpo)
    assert hpo.get_progress() == 1


def test_there_is_no_best_config_without_a_score(create: Create) -> None:
    """get_best_config() is None rather than a guess; waiting for it has an end."""
    hpo = create(num_trials=1)
    assert hpo.get_best_config() is None
    config = hpo.get_next_sample() or {}
    with pytest.raises(TimeoutError, match=r"timeout=0\.1"):
        hpo.get_best_config(wait=True, timeout=0.1)
    hpopt.report(config, math.nan)
    assert hpo.get_best_config() is None
    hpopt.report(config, 0.25)
    assert hpo.get_best_config() == config["params"]


def test_trials_are_rows_for_a_table(create: Create) -> None:
    """trials() tells of every trial what it is, where it stands and when."""
    hpo = create(num_trials=2)
    first = hpo.get_next_sample() or {}
    hpopt.report(first, 0.5)
    (row,) = hpo.trials()
    assert (row.id, row.attempt, row.state, row.params, row.score, row.step) == (
        0,
        1,
        "running",
        first["params"],
        0.5,
        1,
    )
    assert 0 < row.issued_at <= row.started_at
    assert row.ended_at == 0
    train(first)
    (row,) = hpo.trials()
    assert (row.state, row.reason, row.step) == ("completed", "all iterations done", 4)
    assert row.started_at <= row.ended_at


def test_results_are_mirrored_into_save_path(create: Create, tmp_path: Path) -> None:
    """results.json, trials.csv and curves.csv follow the study while it runs, and hold its end after close()."""
    space = {**SPACE, "opt": hpopt.search_space("choice", ["a,b", 'say "c"'])}
    hpo = create(search_space=space, num_trials=2)

    def mirrored() -> Config:
        with contextlib.suppress(FileNotFoundError):
            found: Config = json.loads((tmp_path / "results.json").read_text())
            return found
        return {"trials": []}

    config = hpo.get_next_sample() or {}
    until(lambda: len(mirrored()["trials"]) == 1, "the trial is in results.json")
    assert mirrored()["best_config"] is None
    train(config)
    run_all(hpo)
    rows, best = hpo.trials(), hpo.get_best_config()
    hpo.close()
    results = mirrored()
    assert (results["best_config"], results["study"]["num_trials"]) == (best, 2)
    assert [trial["score"] for trial in results["trials"]] == [row.score for row in rows]
    with (tmp_path / "trials.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(line["score"]) for line in table] == [row.score for row in rows]
    assert [json.loads(line["params.opt"]) for line in table] == [row.params["opt"] for row in rows]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.csv", "results.json", "trials.csv"]


def test_results_name_the_log_of_every_attempt(create: Create, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HPOPT_LOG says where a trainer's output goes; results.json has it by attempt, trials.csv that of the last one."""
    hpo = create(num_trials=1)
    for log in ("one:/1.log", "two:/2\udcff.log"):
        monkeypatch.setenv("HPOPT_LOG", log)
        config = hpo.get_next_sample() or {}
        hpopt.trial(config).__enter__().release()
    monkeypatch.delenv("HPOPT_LOG")
    train(hpo.get_next_sample() or {})
    hpo.close()
    (trial,) = json.loads((tmp_path / "results.json").read_text())["trials"]
    assert (trial["attempt"], trial["logs"]) == (3, {"1": "one:/1.log", "2": "two:/2?.log"})
    with (tmp_path / "trials.csv").open(newline="") as file:
        assert [line["log"] for line in csv.DictReader(file)] == ["two:/2?.log"]


# --- the session


def test_a_closed_session_says_so(create: Create) -> None:
    """After close(), which may come twice, every question is answered with what to do instead."""
    hpo = create()
    hpo.close()
    hpo.close()
    for ask in (hpo.get_next_sample, hpo.get_next_samples, hpo.get_best_config, hpo.trials, hpo.get_progress,
                hpo.print_results, lambda: hpo.get_best_config(wait=True)):  # fmt: skip
        with pytest.raises(ValueError, match=r"this HpOpt is closed: call hpopt\.create\(\.\.\., resume=True\)"):
            ask()


def test_who_waits_for_a_sample_hears_that_the_session_is_closed(create: Create, in_background: InBackground) -> None:
    """A request that waits in another thread ends with its session, and holds no trial of the study afterwards."""
    hpo = create(num_workers=1, num_init_trials=1)
    config = hpo.get_next_sample() or {}
    heard: list[str] = []
    ended = threading.Event()

    def wait() -> None:
        try:
            other.get_next_sample()
        except ValueError as error:
            heard.append(str(error))
        ended.set()

    other = create(num_workers=1, num_init_trials=1, resume=True)
    in_background(wait)
    until(lambda: other._session._asked == 1, "a request")
    other.close()
    assert ended.wait(DEADLINE)
    assert heard == [session.CLOSED]
    hpopt.finalize_trial(config)
    assert (hpo.get_next_sample(timeout=DEADLINE) or {})["attempt"] == 2


def test_a_session_gives_back_only_what_it_handed_out(create: Create, embedded: EmbeddedServer) -> None:
    """Who only looks at the results, in the process that trains, leaves the training alone."""
    hpo = create()
    config = hpo.get_next_sample() or {}
    assert hpopt.report(config, 0.5) == hpopt.status.RUNNING
    with hpopt.join(hpo.study, embedded.url) as looks:
        assert looks.get_best_config() == config["params"]
    assert hpopt.report(config, 0.6) == hpopt.status.RUNNING


def test_leaving_the_with_block_closes(create: Create) -> None:
    """A session is a context manager, which lets exceptions through; what it trained itself is given back."""
    hpo = create()
    config = hpo.get_next_sample() or {}
    with pytest.raises(ZeroDivisionError), hpo:
        _ = hpopt.report(config, 0.5) / 0
    with pytest.raises(ValueError, match="closed"):
        hpo.trials()
    assert hpopt.report(config, 0.6) == hpopt.status.STOP
    with create(resume=True) as again:
        config = again.get_next_sample() or {}
        assert (config["trial_id"], config["attempt"]) == (0, 2)


def test_a_session_stays_in_its_process(create: Create) -> None:
    """A session is not pickled; configs are what goes to other processes."""
    with pytest.raises(TypeError, match="pass configs to other processes"):
        pickle.dumps(create())


def test_one_embedded_server_per_save_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second create() on a save_path in use says who uses it; after close() it is free, with its study in it."""
    monkeypatch.delenv("HPOPT_URL", raising=False)
    with hpopt.create(**SMALL, save_path=tmp_path) as hpo:
        train(hpo.get_next_sample() or {})
        with pytest.raises(hpopt.SavePathInUse, match=r"which is this process: close\(\) what uses it first"):
            hpopt.create(**SMALL, save_path=tmp_path)
        code = "import sys, hpopt; from tests.studies import SMALL; hpopt.create(**SMALL, save_path=sys.argv[1][1:-1])"
        other = start_python(code, str(tmp_path))
        assert other.wait() == 1
        assert f"SavePathInUse: {tmp_path}" in other.output
        assert str(os.getpid()) in other.output
    with hpopt.create(**SMALL, save_path=tmp_path, resume=True) as hpo:
        assert [trial.state for trial in hpo.trials()] == ["completed"]
    with hpopt.create(**SMALL, save_path=tmp_path) as hpo:  # it belongs to nobody else: no StudyExists
        assert hpo.trials() == []


def test_an_operator_hears_why_its_server_has_ended(tmp_path: Path) -> None:
    """If the embedded server ends under its operator, what waits for it is told why, with the ends of its logs."""
    with EmbeddedServer.start(tmp_path) as server, hpopt.create(**SMALL, url=server.url, save_path=tmp_path) as hpo:
        os.kill(server.pid, signal.SIGTERM)
        with pytest.raises(hpopt.HpoptUnavailable, match=r"(?s)the bundled server has ended.*supervisor\.log.*SIGTERM"):
            _ = [hpo.get_next_sample() for _ in range(6)]  # the sixth has to wait


# --- secrets


TRAINER = """
import json, sys
import hpopt

try:
    print(hpopt.report(json.loads(sys.argv[1]), 0.5).name)
except hpopt.HpoptError as error:
    print(type(error).__name__, error)
"""


def test_credentials_go_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A password in the URL is in no config, log, repr, error or file: trainers take it from their environment."""
    caplog.set_level(logging.DEBUG)
    secret = tmp_path.name[-12:] + "-s3cr3t"
    server = Server(tmp_path, requirepass=secret).start()
    url = f"unix://:{secret}@{server.socket}"
    coordinator = start_coordinator(url)
    try:
        with hpopt.create(**SMALL, url=url, study="hidden", save_path=tmp_path / "results") as hpo:
            config = hpo.get_next_sample() or {}
            assert config["hpopt"]["url"] == server.url
            train(config)  # this process knows the password
            config = hpo.get_next_sample() or {}
            without, knowing = (start_python(TRAINER, config, environment=env) for env in ({}, {"HPOPT_URL": url}))
            assert (without.wait(), knowing.wait(), knowing.output) == (0, 0, "RUNNING")
            assert "HpoptUnavailable" in without.output
            assert "check the credentials in HPOPT_URL" in without.output
            with pytest.raises(hpopt.HpoptUnavailable) as caught:
                hpopt.create(**SMALL, url=f"unix://:{secret}no@{server.socket}", study="refused", save_path=tmp_path)
        shown = [repr(hpo), json.dumps(config), caplog.text, without.output, str(caught.value), coordinator.output]
        shown += [path.read_text() for path in (tmp_path / "results").iterdir()]
        assert [text for text in shown if secret in text] == []
    finally:
        coordinator.kill()
        server.close()


# --- requests that were given up


def test_who_waits_for_the_end_asks_for_no_more_samples(create: Create) -> None:
    """A request that timed out before takes no trial that would then be waited for."""
    hpo = create(num_trials=3, num_init_trials=1)
    config = hpo.get_next_sample() or {}
    with pytest.raises(TimeoutError):
        hpo.get_next_sample(timeout=0.1)
    train(config)
    assert hpo.get_best_config(wait=True, timeout=DEADLINE) == config["params"]
    assert [row.attempt for row in hpo.trials()] in ([1], [1, 1])  # the second may have been given to that request
    assert len(run_all(hpo)) == 2
    assert [(row.attempt, row.state) for row in hpo.trials()] == [(1, "completed")] * 3


def test_who_gave_up_and_only_looks_on_holds_nothing_back(create: Create, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while the request is withdrawn, and the trial that it was given meanwhile goes to another operator."""
    monkeypatch.setattr(session, "WITHDRAW_AFTER", 0.5)
    watching = create(num_trials=2, num_init_trials=1)
    config = watching.get_next_sample() or {}
    with pytest.raises(TimeoutError):
        watching.get_next_sample(timeout=0.05)
    train(config)  # now it is given the second trial, and nobody is there to take it
    other = create(resume=True, num_trials=2, num_init_trials=1)
    second = other.get_next_sample(timeout=DEADLINE) or {}
    assert (second["trial_id"], second["attempt"]) == (1, 1)
    train(second)
    assert watching.get_progress() == 1


@pytest.mark.parametrize("operator", [None, "launcher"])
def test_what_an_operator_has_seen_stays_its_own(create: Create, operator: str | None) -> None:
    """It may have launched what it was not handed but found among its open samples: that is waited for."""
    hpo = create(num_trials=2, num_init_trials=1, operator=operator)
    config = hpo.get_next_sample() or {}
    with pytest.raises(TimeoutError):
        hpo.get_next_sample(timeout=0.1)
    train(config)
    until(lambda: len(hpo.get_open_samples(started=False)) == 1, "the request is answered")
    (open_one,) = hpo.get_open_samples(started=False)
    with pytest.raises(TimeoutError, match=r"under way are the trials 1 \(issued\)"):
        hpo.get_best_config(wait=True, timeout=0.5)
    train(open_one)
    assert hpo.get_best_config(wait=True, timeout=DEADLINE) is not None
    assert [row.attempt for row in hpo.trials()] == [1, 1]


def test_a_withdrawal_that_fails_is_made_again(create: Create, monkeypatch: pytest.MonkeyPatch) -> None:
    """A timeout and an outage often come together."""
    hpo = create(num_trials=2, num_init_trials=1)
    hpo.get_next_sample()
    with pytest.raises(TimeoutError):
        hpo.get_next_sample(timeout=0.05)
    monkeypatch.setattr(session, "WITHDRAW_AFTER", 0.05)
    get, sent = hpo._server.client.get, []

    def away_at_first(*command: Any) -> Any:
        sent.append(command[0])
        if len(sent) < 3:
            raise ConnectionError("away")
        return get(*command)

    with monkeypatch.context() as patch:
        patch.setattr(hpo._server.client, "get", away_at_first)
        hpo._session.withdraw()
        until(lambda: not hpo._session._withdrawn, "the request is withdrawn")
    assert sent == ["XADD"] * 3


@pytest.mark.parametrize(
    ("timeout", "error"), [("5", TypeError), (True, TypeError), (-1, ValueError), (math.nan, ValueError)]
)
def test_a_timeout_is_a_number_of_seconds(create: Create, timeout: Any, error: type[Exception]) -> None:
    """Anything else is refused by its value."""
    hpo = create()
    for wait in (hpo.get_next_sample, partial(hpo.get_best_config, True)):  # noqa: FBT003
        with pytest.raises(error, match=f"timeout={timeout!r}: pass seconds"):
            wait(timeout=timeout)
    assert hpo.trials() == []


# --- a folder of its own


def test_a_renamed_folder_goes_on_with_its_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """resume=True finds the one study that is there, however the folder is called; one of several has to be named."""
    monkeypatch.delenv("HPOPT_URL", raising=False)
    first, second = tmp_path / "first", tmp_path / "second"
    with hpopt.create(save_path=first, **SMALL) as hpo:
        train(hpo.get_next_sample() or {})
        found = hpo.trials()
    first.rename(second)
    with hpopt.create(save_path=second, resume=True, **SMALL) as hpo:
        assert (hpo.study, hpo.trials()) == ("first", found)
    with hpopt.create(save_path=second, study="other", **SMALL) as hpo:
        assert hpo.trials() == []
    with pytest.raises(ValueError, match=r"no study 'default/second', but the studies 'first', 'other': pass study="):
        hpopt.create(save_path=second, resume=True, **SMALL)
    with hpopt.create(save_path=second, study="first", resume=True, **SMALL) as hpo:
        assert hpo.trials() == found


def test_results_are_written_where_the_study_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, create: Create
) -> None:
    """Also after the process has gone to another folder."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    hpo = create(save_path="runs", num_trials=1)
    monkeypatch.chdir("elsewhere")
    run_all(hpo)
    hpo.close()
    assert json.loads((tmp_path / "runs" / "results.json").read_text())["trials"][0]["state"] == "completed"
    assert not list((tmp_path / "elsewhere").iterdir())
