"""Which samples are in a subset. Importing this file imports torch."""

import warnings
from array import array
from collections import Counter
from collections.abc import Hashable, Sized
from typing import Any

import torch
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from hpopt.core.subset import class_sizes, subset_size

SEED = 42
"""Every trial and every rank draws the same subset."""
LABELS = ("targets", "labels")
"""Where datasets of torchvision, MedMNIST and others keep one label per sample."""
REMEDY = "pass stratify=[the class of each sample], in the dataset's order"


def draw(total: int, ratio: float) -> "array[int]":
    """Indices of the subset: the first ones of a fixed permutation."""
    return _order(total)[: subset_size(total, ratio)]


def draw_stratified(labels: list[Hashable], ratio: float) -> "array[int]":
    """Indices of as many samples as `draw` gives, each class with its share of them; see `class_sizes`."""
    size = subset_size(len(labels), ratio)
    left = class_sizes(Counter(labels), size)
    absent = [label for label, count in left.items() if count == 0]
    if absent:
        warnings.warn(
            f"a subset of {size} samples has none of {len(absent)} of the {len(left)} classes, {absent[0]!r} for "
            "example: raise subset_ratio if trials have to see every class",
            RuntimeWarning,
            stacklevel=5,  # the caller of createHpoDataset
        )
    indices = array("q")
    for index in _order(len(labels)):
        if left[labels[index]]:
            left[labels[index]] -= 1
            indices.append(index)
    return indices


def _order(total: int) -> "array[int]":
    """The permutation that torch's random_split draws from a generator with this seed."""
    generator = torch.Generator(device="cpu").manual_seed(SEED)
    return array("q", torch.randperm(total, generator=generator, device="cpu").tolist())


# --- labels


def labels_of(source: Any, stratify: Any) -> list[Hashable]:
    """The class of each sample: `stratify` itself, or what the dataset knows if it is True.

    Raises TypeError or ValueError, with a remedy, if that is not one class per sample.
    """
    name, found = ("stratify", stratify) if stratify is not True else _known_labels(source)
    if found is None:
        raise ValueError(
            f"stratify=True: {type(source).__name__} has no `targets` or `labels` with one entry per sample: {REMEDY}"
        )
    labels = _as_list(found)
    if len(labels) != len(source):
        raise ValueError(f"{name} has {len(labels)} entries for {len(source)} samples: {REMEDY}")
    return [_label(name, label) for label in labels]


def _known_labels(source: Any) -> tuple[str, Any]:
    """Name and value of the labels in a dataset, also in one that torch's own classes are made of; None if unknown."""
    for name in LABELS:
        found = getattr(source, name, None)
        if isinstance(found, Sized) and getattr(found, "ndim", None) != 0 and len(found) == len(source):
            return name, found
    if isinstance(source, Subset):
        name, found = _known_labels(source.dataset)
        return name, None if found is None else [found[index] for index in source.indices]
    if isinstance(source, ConcatDataset):
        parts = [_known_labels(part) for part in source.datasets]
        known = parts and all(found is not None for _, found in parts)
        return parts[0][0], [label for _, found in parts for label in found] if known else None
    if isinstance(source, TensorDataset) and len(source.tensors) > 1 and source.tensors[-1].ndim == 1:
        return "the last tensor", source.tensors[-1]
    return "targets", None


def _as_list(labels: Any) -> list[Any]:
    """As plain Python values; a column (N, 1), as MedMNIST has it, as its N entries."""
    if getattr(labels, "ndim", 1) == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    return list(labels.tolist() if hasattr(labels, "tolist") else labels)


def _label(name: str, label: Any) -> Hashable:
    value = label.item() if getattr(label, "ndim", None) == 0 else label
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(f"{name} has the entry {value!r}, which is no class: pass stratify=[a bin for each sample]")
    if value is None or not isinstance(value, Hashable):
        raise ValueError(f"{name} has the entry {value!r}, which is not one class: {REMEDY}")
    return value
