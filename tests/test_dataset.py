import copy
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, TensorDataset, random_split

from hpopt import trainer
from hpopt.dataset import createHpoDataset
from hpopt.errors import MissingExtra
from tests.datasets import config, numbers
from tests.server import ROOT


class Stream(IterableDataset[int]):
    """A dataset without indices."""

    def __iter__(self) -> Any:
        return iter(range(10))


# --- the subset


def test_subset_is_the_first_part_of_the_permutation_with_seed_42() -> None:
    """The subset is the one that random_split draws with the seed 42."""
    full = numbers(1000)
    expected, _ = random_split(full, [300, 700], generator=torch.Generator().manual_seed(42))
    assert list(createHpoDataset(full, config(0.3))) == [expected[index] for index in range(300)]


def test_subset_never_changes_between_versions() -> None:
    """Trials of one study may run with different versions of torch, and need the same samples."""
    assert list(createHpoDataset(numbers(1000), config(0.005))) == [542, 618, 816, 68, 94]


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


def cropped(sample: Any, size: tuple[int, int]) -> Any:
    """A sample whose image is cut, not resized, and that has seen the size."""
    image, label = sample
    return image[..., : size[0], : size[1]], label, torch.tensor(size)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_loader_processes_read_the_same_subset() -> None:
    """DataLoader's worker processes see the subset, in its order, and call resize."""
    full = TensorDataset(torch.rand(40, 1, 6, 8), torch.arange(40) % 4)
    dataset = createHpoDataset(full, config(0.25, width=4, height=2), resize=cropped, stratify=True)
    batches = list(DataLoader(dataset, batch_size=5, num_workers=2, multiprocessing_context="fork"))
    assert [tuple(images.shape) for images, _, _ in batches] == [(5, 1, 2, 4)] * 2
    assert torch.cat([labels for _, labels, _ in batches]).tolist() == [int(sample[1]) for sample in dataset]
    assert batches[0][2].tolist() == [[2, 4]] * 5


def test_spawned_loader_process_reads_the_same_subset() -> None:
    """The same in a process that was started afresh; what it has warned of is not warned of here again."""
    samples = [(torch.rand(1, 6, 8), {"boxes": torch.ones(1, 4), "number": number}) for number in range(40)]
    plain = createHpoDataset(samples, config(0.25, width=4, height=2))
    cut = createHpoDataset(samples, config(0.25, width=4, height=2), resize=cropped, stratify=[0, 1] * 20)
    both: ConcatDataset[Any] = ConcatDataset([plain, cut])
    (batch,) = DataLoader(both, 20, num_workers=1, multiprocessing_context="spawn", collate_fn=list)
    assert [sample[1]["number"] for sample in batch] == [both[index][1]["number"] for index in range(20)]
    assert {sample[0].shape for sample in batch} == {(1, 2, 4)}


TWO_EPOCHS = """
import torch
from torch.utils.data import DataLoader

import hpopt

if __name__ == "__main__":
    samples = [(torch.zeros(1, 8, 8), {"boxes": torch.ones(1, 4)}) for _ in range(40)]
    dataset = hpopt.createHpoDataset(samples, {"resize_width": 4, "resize_height": 4})
    loader = DataLoader(dataset, batch_size=5, num_workers=2, multiprocessing_context="fork")
    print(sum(len(images) for _ in range(2) for images, _ in loader))
"""


def test_loader_processes_warn_once(tmp_path: Path) -> None:
    """Boxes that no longer fit are warned of once, not by each process of each epoch."""
    script = tmp_path / "train.py"
    script.write_text(TWO_EPOCHS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "always"}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "80"
    assert done.stderr.count("RuntimeWarning: images are resized") == 1


# --- the study


@pytest.mark.parametrize(("total", "warned"), [(999, True), (5000, False), (1000, False), (90, True)])
def test_subset_below_the_minimum_of_another_dataset(total: int, warned: bool) -> None:
    """A dataset that is not the one the study was told of may get too few samples: a warning says so."""
    mine = {**config(0.5), "dataset_size": 1000}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        createHpoDataset(numbers(total), mine)
    assert [f"full_dataset_size={1000}" in str(warning.message) for warning in caught] == [True] * warned
    assert all(warning.filename == __file__ for warning in caught)


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
