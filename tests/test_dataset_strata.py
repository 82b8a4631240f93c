from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from hpopt.dataset import createHpoDataset
from tests.datasets import Samples, config, numbers

LABELS = [index % 50 and 1 + index % 3 for index in range(1000)]  # class 0 is 2 % of the samples
SHARES = {0: 2, 1: 33, 2: 33, 3: 32}
"""Of 100 samples of them."""


def classes(subset: Any) -> dict[int, int]:
    """How many samples of each class there are in a subset of `numbers(1000)`."""
    return dict(sorted(Counter(LABELS[number] for number in subset).items()))


@pytest.mark.parametrize("name", ["targets", "labels"])
@pytest.mark.parametrize("make", [list, tuple, torch.tensor, np.array, lambda labels: np.array(labels)[:, None]])
def test_classes_known_to_the_dataset(name: str, make: Any) -> None:
    """With stratify=True, the dataset's own labels are the classes."""
    full = Samples(list(range(1000)), **{name: make(LABELS)})
    subset = createHpoDataset(full, config(0.1), stratify=True)
    assert classes(subset) == SHARES
    assert [int(label) for label in torch.as_tensor(getattr(subset, name)).flatten()] == [
        LABELS[number] for number in subset
    ]


@pytest.mark.parametrize("make", [list, torch.tensor, np.array, lambda labels: [f"class {label}" for label in labels]])
def test_classes_that_are_passed(make: Any) -> None:
    """Labels of any kind can be passed, and go before those of the dataset."""
    full = Samples(list(range(1000)), targets=[0] * 1000)
    assert classes(createHpoDataset(full, config(0.1), stratify=make(LABELS))) == SHARES


def test_classes_within_datasets_of_torch() -> None:
    """Labels are found in tensors, and in the datasets that others are made of."""
    tensors = TensorDataset(torch.arange(1000), torch.tensor(LABELS))
    labelled = Samples(list(range(1000)), targets=LABELS)
    whole: list[Any] = [tensors, ConcatDataset([Subset(labelled, range(600)), Subset(labelled, range(600, 1000))])]
    for full in whole:
        subset = createHpoDataset(full, config(0.1), stratify=True)
        assert classes(int(each[0] if full is tensors else each) for each in subset) == SHARES


def test_it_is_the_same_subset_every_time() -> None:
    """The samples of a class are the first ones of the fixed permutation, whatever the classes are called."""
    one = list(createHpoDataset(numbers(1000), config(0.1), stratify=LABELS))
    assert list(createHpoDataset(numbers(1000), config(0.1), stratify=[str(9 - label) for label in LABELS])) == one
    order = list(createHpoDataset(numbers(1000), config(0.999)))
    for label, count in SHARES.items():
        of_class = [number for number in order if LABELS[number] == label]
        assert [number for number in one if LABELS[number] == label] == of_class[:count]
    assert [order.index(number) for number in one] == sorted(order.index(number) for number in one)


def test_one_class_is_the_plain_subset() -> None:
    """Without a difference between samples, stratifying changes nothing, and neither does False."""
    plain = list(createHpoDataset(numbers(1000), config(0.1)))
    assert list(createHpoDataset(numbers(1000), config(0.1), stratify=[7] * 1000)) == plain
    assert list(createHpoDataset(numbers(1000), config(0.1), stratify=False)) == plain


def test_every_class_is_kept() -> None:
    """A class with a single sample is in every subset that has room for all classes."""
    labels = [0] * 990 + list(range(1, 11))
    subset = createHpoDataset(numbers(1000), config(0.011), stratify=labels)
    assert sorted(labels[number] for number in subset) == list(range(11))


def test_classes_that_have_no_room_are_named() -> None:
    """A subset with fewer samples than classes warns."""
    with pytest.warns(RuntimeWarning, match="subset of 5 samples has none of 5 of the 10 classes"):
        assert len(createHpoDataset(numbers(100), config(0.05), stratify=list(range(10)) * 10)) == 5


def test_full_dataset_needs_no_classes() -> None:
    """Nothing is drawn from a full dataset, so that its labels do not matter."""
    assert list(createHpoDataset(numbers(3), config(1), stratify=True)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("stratify", "message"),
    [
        (True, "Samples has no `targets` or `labels` with one entry per sample: pass stratify="),
        ([0, 1], "stratify has 2 entries for 10 samples"),
        ([0.5] * 10, "entry 0.5, which is no class: pass stratify=.a bin"),
        ([[0, 1]] * 10, r"entry \[0, 1\], which is not one class"),
        (torch.zeros(10, 2), r"entry \[0.0, 0.0\], which is not one class"),
        ([None] * 10, "entry None, which is not one class"),
        ([float("nan")] * 10, "entry nan, which is no class"),
    ],
)
def test_what_is_no_class_per_sample_is_refused(stratify: Any, message: str) -> None:
    """Unknown, missing, continuous or several classes of a sample are a ValueError that says what to pass."""
    with pytest.raises(ValueError, match=message):
        createHpoDataset(numbers(10), config(0.5), stratify=stratify)


@pytest.mark.parametrize("stratify", ["targets", 3, iter([0, 1]), {0, 1}, {0: 1}])
def test_what_is_no_list_is_refused(stratify: Any) -> None:
    """Neither a name nor a number, an iterator, a set or a dict is a list of classes."""
    with pytest.raises(TypeError, match="stratify="):
        createHpoDataset(numbers(10), config(0.5), stratify=stratify)
