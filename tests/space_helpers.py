"""What the tests of search spaces share."""

import json
from typing import Any

import msgpack

from hpopt.core.space import SearchSpace


def over_the_wire(wire: Any) -> Any:
    """What a peer reads."""
    return msgpack.unpackb(msgpack.packb(wire))


def typed(value: Any) -> str:
    """The JSON of a value: unlike ==, it tells 1, 1.0 and True apart."""
    return json.dumps(value, sort_keys=True)


def all_values(space: SearchSpace) -> list[Any]:
    """Every value of a small finite search space."""
    return [space.value_at(i) for i in range(space.size or 0)]
