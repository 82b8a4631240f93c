"""examples/digits.py as an operator whose trials are trained elsewhere, as compose.yaml runs it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import hpopt
from examples import digits
from tests.conftest import Quick
from tests.server import DEADLINE, Server
from tests.studies import sample

USAGE = 2


def test_workers_elsewhere(server: Server, quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for workers that are yet to come, and for every trial, and returns the best of them."""
    monkeypatch.setenv("HPOPT_URL", server.url)
    quick()
    study = tmp_path / "digits"
    with digits.create(study, 0, 2, jobs=2), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(digits.wait, study, 0, 2, jobs=2, resume=True)
        with hpopt.join("digits") as worker:
            first, second = sample(worker), sample(worker)
            hpopt.report(first, 0.5)
            hpopt.report(second, 0.25)
            hpopt.finalize_trial(first)
            assert not waiting.done()
            hpopt.finalize_trial(second)
        assert waiting.result(DEADLINE) == second["params"]


def test_no_server_to_share(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Workers elsewhere cannot reach an embedded server: the error names the variable to set."""
    monkeypatch.delenv("HPOPT_URL", raising=False)
    monkeypatch.setattr("sys.argv", ["digits.py", "--workers", "2", "--save-path", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        digits.main()
    assert ended.value.code == USAGE
    assert "--workers: say in HPOPT_URL where the server is" in capsys.readouterr().err
