"""HpoDataset, a subset of a PyTorch dataset with images resized. Importing this file imports torch."""

import copy
import warnings
from array import array
from collections.abc import Iterator, Sized
from typing import Any

import torch
from torch.nn import functional
from torch.utils.data import Dataset, IterableDataset

SEED = 42
"""Every trial and every rank draws the same subset."""
PER_SAMPLE = frozenset({"targets", "labels", "flag"})
"""Attributes that have one entry per sample, in datasets of torchvision, MedMNIST and OpenMMLab."""
IMAGE_KEYS = ("img", "image")
PIL_BILINEAR = 2
"""PIL.Image.Resampling.BILINEAR; it antialiases when it makes an image smaller."""


def make_dataset(source: Any, ratio: float, size: tuple[int, int] | None) -> "HpoDataset":
    """The part `ratio` in (0, 1] of a dataset, with images resized to `size` (height, width) unless it is None."""
    kind = type(source).__name__
    if isinstance(source, IterableDataset) or not hasattr(source, "__getitem__"):
        raise TypeError(
            f"createHpoDataset cannot take a subset of {kind}, which has no samples to choose by index: pass a dataset "
            "with __len__ and __getitem__, or cut your stream to config['subset_ratio'] yourself"
        )
    if ratio < 1 and not isinstance(source, Sized):
        raise TypeError(f"{kind} has no __len__, so {ratio:g} of it is not known: add __len__ to the dataset")
    return HpoDataset(source, None if ratio >= 1 else _draw(len(source), ratio), size)


def _draw(total: int, ratio: float) -> "array[int]":
    """Indices of the subset: the first ones of a fixed permutation, at least one of a dataset that has any."""
    kept = int(total * ratio + 1e-6)  # 500 / 531 of 531 is 499.99999999999994 in floating point
    generator = torch.Generator(device="cpu").manual_seed(SEED)
    order = torch.randperm(total, generator=generator, device="cpu")
    return array("q", order[: max(1, kept)].tolist())


class HpoDataset(Dataset[Any]):
    """A subset of `source`; its own attributes begin with `_hpopt_`, all others are those of the source."""

    def __init__(self, source: Any, indices: "array[int] | None", size: tuple[int, int] | None) -> None:
        """`indices` of the samples in the source, None for all; `size` (height, width) of images, None to keep it."""
        self._hpopt_source = source
        self._hpopt_indices = indices
        self._hpopt_size = size
        self._hpopt_picked: dict[str, tuple[Any, Any]] = {}  # name -> (all entries, those of the subset)

    def __len__(self) -> int:
        return len(self._hpopt_source) if self._hpopt_indices is None else len(self._hpopt_indices)

    def __getitem__(self, index: Any) -> Any:
        where = index if self._hpopt_indices is None else self._hpopt_indices[index]
        sample = self._hpopt_source[where]
        return sample if self._hpopt_size is None else _resized_sample(sample, self._hpopt_size)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def __getattr__(self, name: str) -> Any:
        # Special methods are not passed on: the source's __getitems__ or __reduce__ speaks of other samples.
        if name.startswith(("__", "_hpopt_")):
            raise AttributeError(f"HpoDataset has no attribute {name!r}")
        value = getattr(self._hpopt_source, name)
        return self._picked(name, value) if name in PER_SAMPLE else value

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_hpopt_picked": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def _picked(self, name: str, entries: Any) -> Any:
        """The subset's entries, made once as long as the source keeps the same object: loops read `targets[i]`."""
        indices = self._hpopt_indices
        if indices is None or _length(entries) != len(self._hpopt_source):
            return entries
        known = self._hpopt_picked.get(name)
        if known is None or known[0] is not entries:
            known = self._hpopt_picked[name] = (entries, _pick(entries, indices))
        return known[1]


def _length(entries: Any) -> int | None:
    has_none = not isinstance(entries, Sized) or getattr(entries, "ndim", 1) == 0
    return None if has_none else len(entries)


def _pick(entries: Any, indices: "array[int]") -> Any:
    if isinstance(entries, (list, tuple)):
        picked = [entries[index] for index in indices]
        return picked if isinstance(entries, list) else tuple(picked)
    if isinstance(entries, torch.Tensor) or hasattr(entries, "__array_interface__"):
        return entries[list(indices)]
    return entries


# --- resizing


def _resized_sample(sample: Any, size: tuple[int, int]) -> Any:
    if isinstance(sample, tuple) and sample:
        items = (_resized_part(sample[0], size), *sample[1:])
        return sample._make(items) if hasattr(sample, "_make") else items
    if isinstance(sample, list) and sample:
        return [_resized_part(sample[0], size), *sample[1:]]
    return _resized_part(sample, size)


def _resized_part(part: Any, size: tuple[int, int]) -> Any:
    if not isinstance(part, dict):
        return _resized_image(part, size)
    keys = [key for key in IMAGE_KEYS if key in part]
    if not keys:
        _warn_unresized("a dict without 'img' or 'image'")
        return part
    resized = copy.copy(part)  # the dataset may keep the sample
    resized.update((key, _resized_image(part[key], size)) for key in keys)
    return resized


def _resized_image(image: Any, size: tuple[int, int]) -> Any:
    if isinstance(image, torch.Tensor) and image.ndim in (2, 3) and not image.is_complex():
        return image if image.shape[-2:] == size else _resized_tensor(image, size)
    if hasattr(image, "resize") and hasattr(image, "getbands"):  # PIL, which may not be installed
        return image.resize((size[1], size[0]), PIL_BILINEAR)
    shape = f" of shape {tuple(image.shape)}" if hasattr(image, "shape") else ""
    _warn_unresized(f"{type(image).__name__}{shape}")
    return image


def _resized_tensor(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The image (C, H, W) or (H, W) resized bilinearly, antialiased; same dtype and class, integers rounded."""
    plain = image.as_subclass(torch.Tensor)
    small = plain.dtype.itemsize <= 2 or plain.dtype is torch.float32
    exact = torch.float32 if small else torch.float64
    planes = plain.reshape(1, -1, *plain.shape[-2:]).to(exact)
    planes = functional.interpolate(planes, size=size, mode="bilinear", antialias=True)
    resized = _as_dtype(planes.reshape(*plain.shape[:-2], *size), plain.dtype)
    return resized if type(image) is torch.Tensor else resized.as_subclass(type(image))


def _as_dtype(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if dtype.is_floating_point:
        return values.to(dtype)
    if dtype is torch.bool:
        return values >= 0.5
    limits = torch.iinfo(dtype)
    return values.round().clamp(limits.min, limits.max).to(dtype)


def _warn_unresized(what: str) -> None:
    warnings.warn(
        f"image_resize is set, but a sample has {what} where its image is expected; it is left as it is: return a "
        "tensor (C, H, W) or (H, W) or a PIL image, as the sample, its first item, or 'img' or 'image' of a dict",
        RuntimeWarning,
        stacklevel=2,
    )
