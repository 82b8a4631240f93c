"""HpoDataset, a subset of a PyTorch dataset with images resized. Importing this file imports torch."""

import contextlib
import warnings
from array import array
from collections.abc import Iterator, Mapping, Sized
from functools import partial
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from hpopt.core.subset import MIN_SAMPLES
from hpopt.torch_resize import Resize, Size, resized_sample
from hpopt.torch_subset import draw, draw_stratified, labels_of

OF_CLASSES = frozenset({"classes", "class_names", "CLASSES", "PALETTE", "categories"})
"""Attributes with one entry per class: they stay whole, because labels are indices into them."""
BY_INDEX = frozenset({"get_ann_info", "get_cat_ids", "get_data_info", "get_height_and_width"})
"""Methods of datasets of torchvision's references and OpenMMLab whose first argument is the index of a sample."""


def make_dataset(source: Any, ratio: float, size: Size | None, resize: Resize | None, stratify: Any) -> "HpoDataset":
    """The part `ratio` in (0, 1] of a dataset, with images resized to `size` (height, width) unless it is None."""
    kind = type(source).__name__
    if isinstance(source, (IterableDataset, Mapping)) or not hasattr(source, "__getitem__"):
        raise TypeError(
            f"createHpoDataset cannot take a subset of {kind}, which has no samples to choose by index: pass a dataset "
            "with __len__ and __getitem__, or cut your stream to config['subset_ratio'] yourself"
        )
    if ratio < 1 and not isinstance(source, Sized):
        raise TypeError(f"{kind} has no __len__, so {ratio:g} of it is not known: add __len__ to the dataset")
    return HpoDataset(source, None if ratio >= 1 else _indices(source, ratio, stratify), size, resize)


def warn_of_few(subset: "HpoDataset", promised: float) -> None:
    """Warn of a subset with fewer than MIN_SAMPLES, made from another dataset than the one the study was told of.

    `promised` is the study's full_dataset_size.
    """
    samples, total = len(subset), len(subset._hpopt_source)  # noqa: SLF001 - its maker
    if samples < min(MIN_SAMPLES, total) and total != promised:
        warnings.warn(
            f"a subset of {samples} of {total} samples is below {MIN_SAMPLES}: the study's subset_ratio was made "
            f"for full_dataset_size={promised}; pass the length of the dataset to hpopt.create",
            RuntimeWarning,
            stacklevel=3,  # the caller of createHpoDataset
        )


def _indices(source: Any, ratio: float, stratify: Any) -> "array[int]":
    return draw(len(source), ratio) if stratify is None else draw_stratified(labels_of(source, stratify), ratio)


class HpoDataset(Dataset[Any]):
    """A subset of `source`; its own attributes begin with `_hpopt_`, all others are those of the source.

    A list, tuple, array, tensor or table that has one entry per sample of the source is read with those of the subset
    only, in the subset's order, unless it is named in OF_CLASSES.
    """

    def __init__(self, source: Any, indices: "array[int] | None", size: Size | None, resize: Resize | None) -> None:
        """`indices` of the samples in the source, None for all; `size` (height, width) of images, None to keep it."""
        own = {
            "_hpopt_source": source,
            "_hpopt_indices": indices,
            "_hpopt_size": size,
            "_hpopt_resize": resize,
            "_hpopt_picked": {},  # name -> (all entries, those of the subset)
            "_hpopt_warned": _flag() if size is not None and resize is None else None,
        }
        self.__dict__.update(own)

    def __len__(self) -> int:
        return len(self._hpopt_source) if self._hpopt_indices is None else len(self._hpopt_indices)

    def __getitem__(self, index: Any) -> Any:
        return self._sized(self._hpopt_source[self._where(index)])

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """A batch at once, for sources that read one faster than its samples. A DataLoader calls it."""
        if not hasattr(self._hpopt_source, "__getitems__"):
            return [self[index] for index in indices]
        return [self._sized(sample) for sample in self._hpopt_source.__getitems__(self._where(list(indices)))]

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def _where(self, index: Any) -> Any:
        """The index in the source; a list of them for a slice or a list, as torch's Subset does it."""
        known = self._hpopt_indices
        if known is None:
            return index
        if isinstance(index, slice):
            return known[index].tolist()
        return [known[each] for each in index] if isinstance(index, list) else known[index]

    def _sized(self, sample: Any) -> Any:
        if self._hpopt_size is None:
            return sample
        if self._hpopt_resize is not None:
            return self._hpopt_resize(sample, self._hpopt_size)
        return resized_sample(sample, self._hpopt_size, self._warn_once)

    def _warn_once(self, message: str) -> None:
        """Warn for the first sample that needs it, in this process or in a DataLoader's first worker."""
        worker = get_worker_info()
        if self._hpopt_warned is not None and not self._hpopt_warned and (worker is None or worker.id == 0):
            self._hpopt_warned.fill_(1)
            warnings.warn(message, RuntimeWarning, stacklevel=2)

    # --- the attributes of the source

    def __getattr__(self, name: str) -> Any:
        # Special methods are not passed on: the source's __reduce__ speaks of other samples.
        if name.startswith(("__", "_hpopt_")):
            raise AttributeError(f"HpoDataset has no attribute {name!r}")
        value = getattr(self._hpopt_source, name)
        if self._hpopt_indices is None or name in OF_CLASSES:
            return value
        if name in BY_INDEX and callable(value):
            return partial(_at, value, self._hpopt_indices)
        return self._picked(name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        # `dataset.transform = ...` has to reach the dataset that transforms.
        if name.startswith("_hpopt_") or not hasattr(self._hpopt_source, name):
            super().__setattr__(name, value)
        elif self._hpopt_indices is not None and self._has_entry_per_sample(name, getattr(self._hpopt_source, name)):
            raise AttributeError(
                f"{name} has an entry for each of the {len(self._hpopt_source)} samples of the full dataset, of which "
                f"this is a subset: set it in the dataset before it is passed to createHpoDataset"
            )
        else:
            setattr(self._hpopt_source, name, value)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_hpopt_picked": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def _picked(self, name: str, entries: Any) -> Any:
        """The subset's entries, made once as long as the source keeps the same object: loops read `targets[i]`."""
        if not self._has_entry_per_sample(name, entries):
            return entries
        known = self._hpopt_picked.get(name)
        if known is None or known[0] is not entries:
            picked = _pick(entries, self._hpopt_indices, len(self._hpopt_source))
            known = self._hpopt_picked[name] = (entries, picked)
        return known[1]

    def _has_entry_per_sample(self, name: str, entries: Any) -> bool:
        if name in OF_CLASSES:
            return False
        total = len(self._hpopt_source)
        return _length(entries) == total or _is_columns(entries, total)


def _flag() -> torch.Tensor:
    """False, in memory that the workers of a DataLoader share, so that each does not say the same."""
    flag = torch.zeros((), dtype=torch.uint8)
    with contextlib.suppress(OSError, RuntimeError):  # a container without /dev/shm has no workers either
        flag.share_memory_()
    return flag


def _at(method: Any, indices: "array[int]", index: int, *others: Any, **named: Any) -> Any:
    return method(indices[index], *others, **named)


# --- entries per sample


def _length(entries: Any) -> int | None:
    """Entries of a list or the like, None of what cannot be picked from."""
    return len(entries) if isinstance(entries, (list, tuple, array)) else _rows(entries)


def _rows(table: Any) -> int | None:
    """Rows of a tensor, an array or a pandas object; None of anything else."""
    kinds = ("__array_interface__", "iloc")
    shape: tuple[Any, ...] = getattr(table, "shape", ())
    is_table = isinstance(table, torch.Tensor) or any(hasattr(table, kind) for kind in kinds)
    return int(shape[0]) if is_table and len(shape) > 0 else None


def _is_columns(entries: Any, total: int) -> bool:
    """Whether this is a tuple of tensors or arrays of so many rows each, as the `tensors` of a TensorDataset."""
    return isinstance(entries, tuple) and bool(entries) and all(_rows(column) == total for column in entries)


def _pick(entries: Any, indices: "array[int]", total: int) -> Any:
    if _is_columns(entries, total):
        return tuple(_pick(column, indices, total) for column in entries)
    if isinstance(entries, (list, tuple, array)):
        picked = [entries[index] for index in indices]
        if isinstance(entries, array):
            return array(entries.typecode, picked)
        return tuple(picked) if isinstance(entries, tuple) else picked
    return entries.iloc[indices.tolist()] if hasattr(entries, "iloc") else entries[indices.tolist()]
