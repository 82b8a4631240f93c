"""The command line of `hpopt-coordinator`."""

from typing import Any

import pytest

from coordinator import supervisor
from coordinator.__main__ import main


def test_options_of_the_coordinator_go_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--serve` starts its coordinator with the times and the log level of the command line."""
    served: list[tuple[Any, ...]] = []

    def serve(where: str, *, port: int, coordinator_args: list[str]) -> int:
        served.append((where, port, coordinator_args))
        return 7

    monkeypatch.setattr(supervisor, "serve", serve)
    assert main(["--serve", "here", "--port", "7000", "--grace", "180", "--tick", "0.5", "--log-level", "DEBUG"]) == 7
    assert main(["--serve", "here"]) == 7
    assert served == [
        ("here", 7000, ["--log-level=DEBUG", "--grace=180.0", "--tick=0.5"]),
        ("here", 0, ["--log-level=INFO"]),
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--serve here --check", "--check: it is for a coordinator with --url"),
        ("--serve here --url redis://host", "--url: it is for a coordinator with --url"),
        ("--serve here --heartbeat file", "--heartbeat: it is for"),
        ("--url redis://host --port 7000", "--port: it is for --serve DIR"),
        ("--url redis://host --grace 0", "argument --grace: '0' is no such time: pass a number of seconds above 0"),
        ("--url redis://host --lease inf", "argument --lease: 'inf' is no such time"),
        ("--url redis://host --tick soon", "argument --tick: 'soon' is no such time"),
    ],
)
def test_wrong_options(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What an option cannot be, or not together with another, is said before anything is started."""
    with pytest.raises(SystemExit) as end:
        main(words.split())
    assert end.value.code == 2
    assert said in capsys.readouterr().err
