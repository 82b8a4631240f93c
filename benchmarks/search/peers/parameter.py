"""Parameter: a hyper-parameter as every optimizer knows it, a float, an integer or a label, and the way back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hpopt.core.search_space import SearchSpace


@dataclass(frozen=True)
class Parameter:
    """What is declared to an optimizer for one SearchSpace that has more than one value.

    A "float" lies in [low, high]. An "int" in [low, high] counts steps: the value is q times it, so that a step grid of
    any q is a range of integers, and a logarithmic one has the scale of its values. A "label" is one of `labels`, which
    are strings without any order. `log` says that the scale is logarithmic.
    """

    space: SearchSpace
    kind: Literal["float", "int", "label"]
    low: float = 0
    high: float = 0
    log: bool = False
    labels: tuple[str, ...] = ()

    @classmethod
    def of(cls, space: SearchSpace) -> "Parameter":
        """The declaration of a search space."""
        log = space.type in {"loguniform", "qloguniform"}
        if space.is_choice:
            return cls(space, "label", labels=tuple(str(index) for index in range(space.size or 0)))
        if space.is_quantized:
            first = round(space.value_at(0) / space.range[2])
            return cls(space, "int", first, first + (space.size or 0) - 1, log)
        low, high = space.range[:2]
        return cls(space, "float", float(low), float(high), log)

    def value(self, raw: Any) -> Any:
        """The hyper-parameter's value for a float, integer or label of the optimizer; rounding errors are put right."""
        if self.kind == "float":
            return self.space.nearest(float(raw))
        return self.space.value_at(int(raw) - int(self.low))

    def inside(self, raw: Any) -> Any:
        """What an optimizer gave, moved to the end of the range if it lies outside, as some integers of BOHB's do."""
        return raw if self.kind == "label" else min(max(raw, self.low), self.high)


def parameters(spaces: Mapping[str, SearchSpace]) -> dict[str, Parameter]:
    """The declarations of all that can vary, under names that every optimizer accepts: x0, x1, ..."""
    return {f"x{i}": Parameter.of(space) for i, space in enumerate(spaces.values()) if space.size != 1}


def configuration(spaces: Mapping[str, SearchSpace], raw: Mapping[str, Any]) -> dict[str, Any]:
    """The hyper-parameters for what an optimizer gave for `parameters(spaces)`."""
    declared = parameters(spaces)
    names = {name: f"x{i}" for i, name in enumerate(spaces)}
    return {
        name: declared[names[name]].value(raw[names[name]]) if names[name] in declared else space.value_at(0)
        for name, space in spaces.items()
    }
