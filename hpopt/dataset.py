"""createHpoDataset: the part of a training set that the trials of a study train with."""

from collections.abc import Callable, Mapping, Sized
from typing import TYPE_CHECKING, Any

from hpopt.errors import MissingExtra

if TYPE_CHECKING:
    from hpopt.torch_dataset import HpoDataset


def createHpoDataset(
    dataset: Any = None,
    config: Mapping[str, Any] | None = None,
    *,
    fullset: Any = None,
    resize: Callable[[Any, tuple[int, int]], Any] | None = None,
    stratify: Any = None,
) -> "HpoDataset":
    """A stand-in for `dataset` (or `fullset`, the same under another name) with config's subset and image size.

    The subset holds `config["subset_ratio"]` of the samples, rounded down, drawn at random, but the same ones for
    every trial and every rank; 1 or more, 0 or less, or no such key is the full dataset. With `stratify`, each class
    has the same share of the subset as of the dataset, and one sample at least where the subset is large enough.

    If `config["resize_width"]` and `config["resize_height"]` (pixels) are both above 0, the image of each sample is
    resized to them: the sample itself, the first item of a tuple or list, or item "img" or "image" of a dict; a tensor
    (C, H, W) or (H, W), or a PIL image. Everything else of a sample, boxes and masks too, stays as it is, with one
    warning where it no longer fits, unless `resize` is given.

    Attributes of the dataset that have one entry per sample (`targets`, `samples`, `data`, `ids`, `tensors`, ...) are
    those of the subset, others (`classes`, `transform`, methods) are passed through. The result can be pickled if the
    dataset and `resize` can. Creating it also tells the study that the trial has started to train.

    Args:
        dataset: Has `__getitem__` and, for a subset, `__len__`.
        config: What `get_next_sample` returned.
        fullset: Instead of `dataset`.
        resize: Called as `resize(sample, (height, width))` in place of the above, if the config has a size; returns
            the whole sample, resized.
        stratify: True to take the classes from `targets` or `labels` of the dataset, or one class for each of its
            samples, in their order: numbers or strings. None or False draws without regard to classes.

    Raises:
        TypeError: The dataset is none that can be indexed, or an argument or a value of the config has the wrong type.
        ValueError: The ratio is NaN, or there is not one class for each sample.
        MissingExtra: PyTorch is not installed.
    """
    if (dataset is None) == (fullset is None):
        raise TypeError("createHpoDataset(dataset, config): pass exactly one dataset, as `dataset` or as `fullset`")
    if not isinstance(config, Mapping):
        raise TypeError(f"config={config!r}: pass the dict that get_next_sample() returned")
    if resize is not None and not callable(resize):
        raise TypeError(f"resize={resize!r}: pass a function(sample, (height, width)) that returns the sample resized")
    if stratify is not None and (isinstance(stratify, (str, Mapping, set)) or not isinstance(stratify, (bool, Sized))):
        raise TypeError(f"stratify={stratify!r}: use True, or a list of the class of each sample")
    try:
        from hpopt.torch_dataset import make_dataset, warn_of_few
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtra("createHpoDataset needs PyTorch: pip install 'hpopt[torch]'") from error
    source = fullset if dataset is None else dataset
    ratio, promised = _ratio(config), config.get("dataset_size")
    subset = make_dataset(source, ratio, _size(config), resize, None if stratify is False else stratify)
    if ratio < 1 and isinstance(promised, (int, float)) and promised > 0:  # 0: its size is not known
        warn_of_few(subset, promised)
    if "hpopt" in config:
        from hpopt.trainer import start_of_contact

        start_of_contact(config)
    return subset


def _ratio(config: Mapping[str, Any]) -> float:
    ratio = config.get("subset_ratio", 1.0)
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)):
        raise TypeError(f"config['subset_ratio']={ratio!r}: use a number, the part of the dataset to train with")
    if ratio != ratio:  # noqa: PLR0124 - NaN
        raise ValueError("config['subset_ratio'] is NaN: use a number, the part of the dataset to train with")
    return ratio if 0 < ratio < 1 else 1.0


def _size(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """(height, width) to resize to, None to leave images alone."""
    height, width = (_pixels(config, name) for name in ("resize_height", "resize_width"))
    return (height, width) if height > 0 and width > 0 else None


def _pixels(config: Mapping[str, Any], name: str) -> int:
    pixels = config.get(name, 0)
    if isinstance(pixels, bool) or not isinstance(pixels, (int, float)) or not float(pixels).is_integer():
        raise TypeError(f"config[{name!r}]={pixels!r}: use a whole number of pixels, or 0 to keep the size")
    return int(pixels)
