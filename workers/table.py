"""The trials of a study as a table of plain text."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from hpopt import TrialRow

LONGEST_VALUE = 24
LONGEST_REASON = 60


class Spec(Protocol):
    """What is to be known of a study to show its trials; `HpOpt.spec` is one."""

    @property
    def metric(self) -> str:
        """Name of the score."""

    @property
    def search_space(self) -> Mapping[str, Any]:
        """The hyper-parameters by name."""

    @property
    def iterations(self) -> int:
        """Steps of a full trial."""

    @property
    def trials(self) -> int:
        """Trials in all."""


def trials_table(rows: Sequence[TrialRow], spec: Spec, best: TrialRow | None = None) -> str:
    """One line for each trial: its state, best score, steps, hyper-parameters and why it ended; `best` is marked."""
    names = list(spec.search_space)
    lines = [["trial", "state", clean(spec.metric), "steps", *map(clean, names), "why"]]
    lines += [
        [
            f"{row.id}{'*' if best is not None and row.id == best.id else ' '}",
            row.state.replace("_", " "),
            number(row.score),
            f"{row.step}/{spec.iterations}",
            *(value(row.params.get(name)) for name in names),
            clean(row.reason, LONGEST_REASON),
        ]
        for row in sorted(rows, key=lambda row: row.id)
    ]
    return _aligned(lines, left={1, len(lines[0]) - 1})


def params_text(params: dict[str, Any]) -> str:
    """Hyper-parameters on one line: `lr=0.01, optimizer=adam`."""
    return ", ".join(f"{clean(name)}={value(each)}" for name, each in params.items())


def number(score: float | None) -> str:
    """A score in four digits; a dash for none."""
    return "-" if score is None else f"{score:.4g}"


def value(each: Any) -> str:
    """A hyper-parameter's value, in a few characters."""
    return f"{each:.4g}" if isinstance(each, float) else clean(str(each), LONGEST_VALUE)


def clean(text: str, longest: int = LONGEST_VALUE) -> str:
    """The text without what could command a terminal, and not longer than `longest`."""
    text = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    return text if len(text) <= longest else f"{text[: longest - 1]}\N{HORIZONTAL ELLIPSIS}"


def _aligned(lines: list[list[str]], left: set[int]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
