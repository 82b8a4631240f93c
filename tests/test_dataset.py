import copy
import pickle
import subprocess
import sys
from collections import OrderedDict, namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, random_split

from hpopt import trainer
from hpopt.dataset import createHpoDataset
from hpopt.errors import MissingExtra

Sample = namedtuple("Sample", ["pixels", "label", "weight"])  # noqa: PYI024 - the untyped kind is what is tested


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


class Stream(IterableDataset[int]):
    """A dataset without indices."""

    def __iter__(self) -> Any:
        return iter(range(10))


class PillowLike:
    """What PIL.Image.Image looks like from outside."""

    def __init__(self, size: tuple[int, int], resample: int | None = None) -> None:
        self.size = size
        self.resample = resample

    def getbands(self) -> tuple[str, ...]:
        return ("R", "G", "B")

    def resize(self, size: tuple[int, int], resample: int | None = None) -> "PillowLike":
        return PillowLike(size, resample)


def numbers(count: int) -> Samples:
    """A dataset whose samples are 0, 1, 2, ..."""
    return Samples(list(range(count)))


def config(ratio: float = 1.0, width: int = 0, height: int = 0) -> dict[str, Any]:
    """What createHpoDataset needs of a config."""
    return {"subset_ratio": ratio, "resize_width": width, "resize_height": height}


def first(sample: Any, width: int = 4, height: int = 2) -> Any:
    """The sample, as it comes out of a dataset that resizes."""
    return createHpoDataset(Samples([sample]), config(width=width, height=height))[0]


# --- the subset


def test_subset_is_the_first_part_of_the_permutation_with_seed_42() -> None:
    """The subset is the one that random_split draws with the seed 42."""
    full = numbers(1000)
    expected, _ = random_split(full, [300, 700], generator=torch.Generator().manual_seed(42))
    assert list(createHpoDataset(full, config(0.3))) == [expected[index] for index in range(300)]


def test_subset_depends_on_nothing_but_the_ratio() -> None:
    """Every trial and rank gets the same subset, and the global random state is neither used nor changed."""
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = list(createHpoDataset(numbers(1000), config(0.25)))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert list(createHpoDataset(numbers(1000), config(0.25))) == one


def test_ratio_of_500_samples_gives_exactly_500() -> None:
    """500 / D of D samples is 500 samples, although the product may be a little less in floating point."""
    totals = [*range(501, 1300), 73_257, 1_281_167]
    assert any(int(total * (500 / total)) == 499 for total in totals)
    assert {len(createHpoDataset(range(total), config(500 / total))) for total in totals} == {500}


@pytest.mark.parametrize(
    ("total", "ratio", "kept"),
    [(1000, 0.2, 200), (1001, 0.2, 200), (999, 0.5, 499), (10, 0.99, 9), (3, 0.1, 1), (0, 0.5, 0), (7, 1e-9, 1)],
)
def test_size_is_rounded_down_but_never_to_nothing(total: int, ratio: float, kept: int) -> None:
    """A subset has int(D * ratio) samples, and at least one if there are any."""
    assert len(createHpoDataset(numbers(total), config(ratio))) == kept


@pytest.mark.parametrize("ratio", [1, 1.0, 2.5, 0, -1.0])
def test_full_dataset(ratio: float) -> None:
    """A ratio of 1 or more, or of 0 or less, is the full dataset in its own order."""
    assert list(createHpoDataset(numbers(20), config(ratio))) == list(range(20))


def test_config_without_the_keys_changes_nothing() -> None:
    """A training script can run with a plain dict of hyper-parameters, outside any study."""
    assert list(createHpoDataset(numbers(20), {"lr": 0.1})) == list(range(20))


def test_negative_and_outlying_indices() -> None:
    """Indices count within the subset, as in a list."""
    subset = createHpoDataset(numbers(100), config(0.1))
    assert subset[-1] == subset[9]
    with pytest.raises(IndexError):
        subset[10]


def test_fullset_is_another_name_for_dataset() -> None:
    """The dataset may be passed as `fullset`."""
    assert list(createHpoDataset(fullset=numbers(3), config=config())) == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"config": {}}, "exactly one dataset"),
        ({"dataset": [1], "fullset": [1], "config": {}}, "exactly one dataset"),
        ({"dataset": [1]}, "config=None"),
        ({"dataset": Stream(), "config": {"subset_ratio": 0.5}}, "Stream.*__len__ and __getitem__"),
        ({"dataset": Stream(), "config": {}}, "Stream.*__len__ and __getitem__"),
        ({"dataset": iter([1]), "config": {}}, "__len__ and __getitem__"),
        ({"dataset": Dataset(), "config": {"subset_ratio": 0.5}}, "no __len__"),
        ({"dataset": [1], "config": {"subset_ratio": "0.5"}}, "subset_ratio.*'0.5'"),
        ({"dataset": [1], "config": {"subset_ratio": True}}, "subset_ratio.*True"),
        ({"dataset": [1], "config": {"resize_width": 1.5}}, "resize_width.*1.5"),
        ({"dataset": [1], "config": {"resize_height": float("inf")}}, "resize_height.*inf"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    """What cannot be a dataset or its config raises TypeError that says what to pass."""
    with pytest.raises(TypeError, match=message):
        createHpoDataset(**arguments)


def test_nan_ratio_is_refused() -> None:
    """A subset_ratio that is not a number is a ValueError."""
    with pytest.raises(ValueError, match="subset_ratio"):
        createHpoDataset([1], {"subset_ratio": float("nan")})


# --- attributes


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


# --- resizing


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int64]
)
@pytest.mark.parametrize("shape", [(3, 6, 8), (1, 6, 8), (6, 8)])
def test_tensor_gets_the_size_and_keeps_its_type(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Images (C, H, W) and (H, W) become (height, width), in the same dtype."""
    resized = first(torch.ones(shape, dtype=dtype), width=4, height=2)
    assert (resized.shape, resized.dtype) == ((*shape[:-2], 2, 4), dtype)
    assert torch.equal(resized, torch.ones_like(resized))


def test_values_are_bilinear_and_antialiased() -> None:
    """Halving an image averages with the triangle filter of twice the width: weights 1, 3, 3, 1 within an edge."""
    row = torch.tensor([[0.0, 8.0, 16.0, 24.0]])
    # centre 1 (between pixels 0 and 1, filter cut at the border): weights 3, 3, 1 of 7; centre 3 likewise
    assert first(row, width=2, height=1).tolist() == [[pytest.approx(40 / 7), pytest.approx(128 / 7)]]


def test_integers_are_rounded_and_stay_in_range() -> None:
    """uint8 images are rounded to the nearest value; black and white stay what they are."""
    row = torch.tensor([[0, 8, 16, 24]], dtype=torch.uint8)
    assert first(row, width=2, height=1).tolist() == [[6, 18]]
    noise = torch.randint(0, 2, (3, 31, 17), generator=torch.Generator().manual_seed(0), dtype=torch.uint8) * 255
    enlarged = first(noise, width=64, height=64)
    assert (enlarged.min().item(), enlarged.max().item()) == (0, 255)


def test_mask_stays_boolean() -> None:
    """A boolean image is True where at least half of the area is."""
    mask = torch.tensor([[True, True, True, True, False, False, False, False]])
    assert first(mask, width=4, height=1).tolist() == [[True, True, False, False]]


def test_subclass_of_tensor_is_resized_and_kept() -> None:
    """Tensor subclasses, as torchvision's images, are resized too."""

    class Image(torch.Tensor):
        pass

    resized = first(torch.zeros(3, 6, 8).as_subclass(Image))
    assert (type(resized), resized.shape) == (Image, (3, 2, 4))


def test_image_of_the_right_size_is_passed_as_it_is() -> None:
    """Nothing is computed for an image that has the size already."""
    image = torch.rand(3, 2, 4)
    assert first(image) is image


@pytest.mark.parametrize(
    "sample",
    [
        torch.zeros(3, 6, 8),
        (torch.zeros(3, 6, 8), 1),
        [torch.zeros(3, 6, 8), 1],
        (torch.zeros(3, 6, 8),),
        (torch.zeros(3, 6, 8), 1, "name"),
        Sample(torch.zeros(3, 6, 8), 1, 0.5),
        {"img": torch.zeros(3, 6, 8), "label": 1},
        OrderedDict(image=torch.zeros(3, 6, 8), label=1),
        ({"image": torch.zeros(3, 6, 8), "name": "a"}, 1),
    ],
    ids=["tensor", "pair", "list", "single", "triple", "namedtuple", "dict", "OrderedDict", "dict first"],
)
def test_where_the_image_of_a_sample_is(sample: Any) -> None:
    """The image is the sample, its first item, or its "img" or "image"; the rest and the container are kept."""
    original = copy.deepcopy(sample)
    resized = first(sample)
    assert type(resized) is type(sample)
    assert shapes(resized) == [(3, 2, 4)]
    assert others(resized) == others(sample)
    assert shapes(sample) == shapes(original), "the dataset's own sample must not change"


def flattened(sample: Any) -> list[Any]:
    """The leaves of a sample, in order."""
    if isinstance(sample, dict):
        return [leaf for key, value in sample.items() for leaf in (key, *flattened(value))]
    if isinstance(sample, (list, tuple)):
        return [leaf for value in sample for leaf in flattened(value)]
    return [sample]


def shapes(sample: Any) -> list[tuple[int, ...]]:
    """The shapes of the tensors in a sample."""
    return [tuple(leaf.shape) for leaf in flattened(sample) if isinstance(leaf, torch.Tensor)]


def others(sample: Any) -> list[Any]:
    """All that is no tensor in a sample."""
    return [leaf for leaf in flattened(sample) if not isinstance(leaf, torch.Tensor)]


def test_pil_image_is_resized_by_itself() -> None:
    """PIL images are asked for (width, height), bilinear, which is 2 in PIL."""
    image, label = first((PillowLike((8, 6)), 1), width=4, height=2)
    assert (image.size, image.resample, label) == ((4, 2), 2, 1)


@pytest.mark.parametrize("sample", ["text", (7, 1), torch.zeros(5), np.zeros((6, 8, 3)), {"pixels": 1}, None, (), []])
def test_what_is_no_image_is_passed_with_a_warning(sample: Any) -> None:
    """A sample without an image known to us stays as it is, and not silently."""
    with pytest.warns(RuntimeWarning, match="image_resize is set"):
        assert first(sample) is sample or isinstance(sample, tuple)


@pytest.mark.parametrize(("width", "height"), [(0, 0), (4, 0), (0, 2), (-1, -1)])
def test_one_size_of_zero_switches_resizing_off(width: int, height: int) -> None:
    """Images are resized only if both sizes are above 0."""
    image = torch.rand(3, 6, 8)
    assert first((image, 1), width, height)[0] is image


def test_sizes_may_come_back_as_floats() -> None:
    """JSON tools turn 4 into 4.0."""
    dataset = createHpoDataset([torch.zeros(1, 8, 8)], {"resize_width": 4.0, "resize_height": 2.0})
    assert dataset[0].shape == (1, 2, 4)


# --- processes


def test_pickled_and_copied_dataset_is_the_same() -> None:
    """A pickled dataset, and a copied one, has the same samples and attributes."""
    full: Any = TensorDataset(torch.rand(40, 1, 6, 8), torch.arange(40))
    full.targets = list(range(40))
    dataset = createHpoDataset(full, config(0.25, width=4, height=2))
    targets = dataset.targets
    for twin in (pickle.loads(pickle.dumps(dataset)), copy.deepcopy(dataset), copy.copy(dataset)):  # noqa: S301 - ours
        assert (len(twin), twin.targets) == (10, targets)
        assert all(torch.equal(mine[0], its[0]) for mine, its in zip(dataset, twin, strict=True))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_loader_processes_read_the_same_subset(method: str) -> None:
    """DataLoader's worker processes see the subset, in its order."""
    full = TensorDataset(torch.rand(40, 1, 6, 8), torch.arange(40))
    dataset = createHpoDataset(full, config(0.25, width=4, height=2))
    batches = list(DataLoader(dataset, batch_size=5, num_workers=1, multiprocessing_context=method))
    assert [tuple(images.shape) for images, _ in batches] == [(5, 1, 2, 4)] * 2
    assert torch.cat([labels for _, labels in batches]).tolist() == [int(label) for _, label in dataset]


def test_creation_starts_the_contact_with_the_study(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an identity in the config the study is told that the trial starts, once the dataset is made."""
    started: list[Any] = []
    monkeypatch.setattr(trainer, "start_of_contact", started.append)
    mine = {**config(), "hpopt": {"trial": 3}}
    with pytest.raises(TypeError):
        createHpoDataset(Stream(), mine)
    createHpoDataset(numbers(3), config())
    assert started == []
    createHpoDataset(numbers(3), mine)
    assert started == [mine]


def test_missing_torch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PyTorch the error says what to install."""
    monkeypatch.delitem(sys.modules, "hpopt.torch_dataset", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra, match=r"hpopt\[torch\]"):
        createHpoDataset([1], {})


def test_importing_it_loads_no_torch() -> None:
    """A trainer without torch can import hpopt, and so can one that is in a hurry."""
    code = "import sys, hpopt, hpopt.dataset; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
