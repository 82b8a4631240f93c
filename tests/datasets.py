"""Datasets to wrap, and the config to wrap them with."""

from typing import Any

from torch.utils.data import Dataset


class Samples(Dataset[Any]):
    """A dataset of the given samples, with the given attributes."""

    classes = ("cat", "dog")

    def __init__(self, samples: Any, **attributes: Any) -> None:
        self.samples = samples
        self.__dict__.update(attributes)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]

    def double(self, index: int) -> Any:
        return self.samples[index] * 2


def numbers(count: int) -> Samples:
    """A dataset whose samples are 0, 1, 2, ..."""
    return Samples(list(range(count)))


def config(ratio: float = 1.0, width: int = 0, height: int = 0) -> dict[str, Any]:
    """What createHpoDataset needs of a config."""
    return {"subset_ratio": ratio, "resize_width": width, "resize_height": height}
