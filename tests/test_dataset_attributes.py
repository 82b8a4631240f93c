from array import array
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset

from hpopt.dataset import createHpoDataset
from tests.datasets import Samples, config, numbers


@pytest.mark.parametrize("name", ["targets", "labels", "flag"])
@pytest.mark.parametrize("make", [list, tuple, torch.tensor, np.array])
def test_entries_per_sample_are_those_of_the_subset(name: str, make: Any) -> None:
    """An attribute that has one entry per sample goes with the samples, and keeps its type."""
    full = Samples(list(range(100)), **{name: make(list(range(100)))})
    subset = createHpoDataset(full, config(0.2))
    entries = getattr(subset, name)
    assert type(entries) is type(getattr(full, name))
    assert [int(entry) for entry in entries] == list(subset)


def test_entries_are_picked_once_and_follow_the_source() -> None:
    """Reading `targets[i]` in a loop does not make the list each time; a new list in the source is seen."""
    full: Any = Samples(list(range(100)), targets=list(range(100)))
    subset = createHpoDataset(full, config(0.2))
    assert subset.targets is subset.targets
    full.targets = [0] * 100
    assert subset.targets == [0] * 20


@pytest.mark.parametrize("flag", ["four", 4, None, torch.tensor(4), [1, 2]])
def test_attribute_of_another_length_is_left_alone(flag: Any) -> None:
    """`flag` is an entry per sample only if it is as long as the dataset."""
    assert createHpoDataset(Samples([0, 1, 2, 3], flag=flag), config(0.5)).flag is flag


def test_full_dataset_passes_its_own_entries() -> None:
    """Without a subset, attributes are the very objects of the dataset."""
    full: Any = Samples([1, 2], targets=[3, 4])
    assert createHpoDataset(full, config()).targets is full.targets


def test_other_attributes_are_passed_through() -> None:
    """Class names, methods and what is set later are those of the dataset; what it lacks is an AttributeError."""
    full: Any = numbers(100)
    subset: Any = createHpoDataset(full, config(0.1))
    full.transform = "later"
    assert (subset.classes, subset.double(7), subset.transform) == (("cat", "dog"), 14, "later")
    with pytest.raises(AttributeError, match=r"Samples.*nothing_such"):
        _ = subset.nothing_such


def test_batched_access_of_the_source_is_not_passed_through() -> None:
    """A source that fetches whole batches by its own indices does not bypass the subset."""
    source = Subset(numbers(100), list(range(100)))
    subset = createHpoDataset(source, config(0.1))
    assert hasattr(source, "__getitems__")
    batches = DataLoader(subset, batch_size=5, collate_fn=list)
    assert [number for batch in batches for number in batch] == list(subset)


@pytest.mark.parametrize("name", ["samples", "imgs", "ids", "data", "weights", "_labels"])
@pytest.mark.parametrize("make", [list, tuple, torch.tensor, np.array, lambda entries: array("q", entries)])
def test_any_attribute_with_an_entry_per_sample(name: str, make: Any) -> None:
    """Whatever its name, what has one entry per sample is the subset's."""
    full: Any = numbers(100)
    setattr(full, name, make(list(range(100))))
    subset = createHpoDataset(full, config(0.2))
    entries = getattr(subset, name)
    assert type(entries) is type(getattr(full, name))
    assert [int(entry) for entry in entries] == [subset._hpopt_indices[index] for index in range(20)]


def test_class_names_stay_whole() -> None:
    """Labels are indices into `classes`, also where there happen to be as many classes as samples."""
    full: Any = Samples([0, 1, 2, 3], classes=["a", "b", "c", "d"], targets=[3, 2, 1, 0])
    subset = createHpoDataset(full, config(0.5))
    assert (subset.classes, len(subset.targets)) == (["a", "b", "c", "d"], 2)


@pytest.mark.parametrize("rows", [10, 2])
def test_tensors_of_a_tensor_dataset(rows: int) -> None:
    """Each of the tensors has the subset's rows, also where there are as many tensors as samples."""
    subset = createHpoDataset(TensorDataset(torch.arange(rows), torch.arange(rows) * 2), config(0.5))
    assert [tensor.tolist() for tensor in subset.tensors] == list(map(list, zip(*subset, strict=True)))


def test_tuple_of_images_is_no_table() -> None:
    """A tuple of one tensor per sample is picked from, however many rows the tensors have."""
    images = tuple(torch.full((3, 4, 4), index) for index in range(10))
    subset: Any = createHpoDataset(Samples(images), config(0.2))
    assert [int(image[0, 0, 0]) for image in subset.samples] == [int(image[0, 0, 0]) for image in subset]


def test_indices_of_a_part() -> None:
    """`dataset.dataset.targets[i] for i in dataset.indices` are the labels of the subset of a random_split."""
    full: Any = Samples(list(range(100)), targets=[index * 10 for index in range(100)])
    subset = createHpoDataset(Subset(full, list(range(50, 100))), config(0.2))
    assert [subset.dataset.targets[index] for index in subset.indices] == [sample * 10 for sample in subset]


def test_pandas_objects_are_picked_by_position() -> None:
    """A table with a row per sample goes along; pandas itself is not needed for that."""

    class Table:
        def __init__(self, rows: list[int]) -> None:
            self.rows = rows
            self.shape = (len(rows), 3)

        @property
        def iloc(self) -> Any:
            return _Located(self.rows)

    class _Located:
        def __init__(self, rows: list[int]) -> None:
            self.rows = rows

        def __getitem__(self, where: list[int]) -> Table:
            return Table([self.rows[index] for index in where])

    full: Any = Samples(list(range(100)), frame=Table(list(range(100))))
    subset = createHpoDataset(full, config(0.2))
    assert subset.frame.rows == list(subset)


def test_methods_that_take_an_index_count_within_the_subset() -> None:
    """What torchvision's references and OpenMMLab ask a dataset about a sample is asked about the subset's sample."""
    full: Any = numbers(100)
    full.get_height_and_width = lambda index: (index, 2 * index)
    subset = createHpoDataset(full, config(0.1))
    assert [subset.get_height_and_width(index)[0] for index in range(10)] == list(subset)


def test_attribute_that_is_set_reaches_the_dataset() -> None:
    """A transform that is set on the subset transforms; a new name is the subset's own."""
    full: Any = Samples(list(range(100)), transform=None)
    subset: Any = createHpoDataset(full, config(0.1))
    subset.transform, subset.note = abs, "mine"
    assert (full.transform, subset.note, hasattr(full, "note")) == (abs, "mine", False)


@pytest.mark.parametrize("name", ["targets", "samples"])
def test_entries_per_sample_cannot_be_set(name: str) -> None:
    """New targets would not come out of the samples, so they are refused, and nothing changes."""
    full: Any = Samples(list(range(100)), targets=list(range(100)))
    subset = createHpoDataset(full, config(0.1))
    with pytest.raises(AttributeError, match="set it in the dataset before"):
        setattr(subset, name, [0] * 10)
    assert len(full.targets) == len(full.samples) == 100


def test_batched_access_is_the_subset_s_and_is_resized() -> None:
    """A source that fetches batches at once is asked for the batch, by its own indices."""

    class Batched(Samples):
        asked: ClassVar[list[Any]] = []

        def __getitems__(self, indices: list[int]) -> list[Any]:
            self.asked.append(indices)
            return [self.samples[index] for index in indices]

    source = Batched([(torch.zeros(1, 8, 8), index) for index in range(40)])
    subset = createHpoDataset(source, config(0.25, width=4, height=2))
    (batch,) = DataLoader(subset, batch_size=10, collate_fn=list)
    assert source.asked == [[label for _, label in batch]] == [[label for _, label in subset]]
    assert {image.shape for image, _ in batch} == {(1, 2, 4)}


def test_slices_are_what_the_dataset_makes_of_a_list_of_indices() -> None:
    """A dataset that understands lists, such as a TensorDataset, understands slices of its subset."""
    subset = createHpoDataset(TensorDataset(torch.arange(100)), config(0.1))
    assert subset[2:5][0].tolist() == subset[[2, 3, 4]][0].tolist() == [int(subset[index][0]) for index in (2, 3, 4)]
