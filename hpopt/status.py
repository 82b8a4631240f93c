"""What hpopt answers."""

from enum import IntEnum


class Status(IntEnum):
    """What `report` answers is RUNNING or STOP; the other values are those of the original's files."""

    UNKNOWN = -1
    READY = 0
    RUNNING = 1
    STOP = 2
    CUDAOOM = 3
    NORESULT = 4
    PARTIALRESULT = 5
    COMPLETERESULT = 6

    def __str__(self) -> str:
        return self.name
