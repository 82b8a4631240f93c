"""Why a supervisor does not start, or gives up: one exception that a program can read."""

from typing import Final

EXIT_CODES: Final = {"in_use": 3, "missing": 4, "refused": 5, "failed": 6}
"""Kind of refusal -> exit status of the supervisor."""


class Refused(Exception):
    """The supervisor will not go on; `kind` is a key of EXIT_CODES, `pids` names who is in the way (if anyone)."""

    def __init__(self, kind: str, message: str, **pids: int | None) -> None:
        super().__init__(message)
        self.kind = kind
        self.pids = pids

    @property
    def exit_code(self) -> int:
        """The exit status that tells this kind of refusal from the others."""
        return EXIT_CODES[self.kind]

    def as_dict(self) -> dict[str, object]:
        """What is printed, as one line of JSON, instead of the readiness line."""
        return {"error": self.kind, "message": str(self), **self.pids}
