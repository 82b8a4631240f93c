"""Images of samples, resized. Importing this file imports torch."""

import copy
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import torch
from torch.nn import functional

Size = tuple[int, int]
"""Height and width, in pixels."""
Resize = Callable[[Any, Size], Any]
"""Makes a sample of that size from a sample."""
Warn = Callable[[str], None]

IMAGE_KEYS = ("img", "image")
PLACES = frozenset({
    "boxes", "bboxes", "bbox", "bndbox", "gt_bboxes", "masks", "mask", "gt_masks", "segmentation", "gt_semantic_seg",
    "gt_seg_map", "keypoints", "gt_keypoints", "polygons",
})  # fmt: skip
"""Keys of what is measured in an image's pixels, in samples of torchvision, COCO, VOC, OpenMMLab and Albumentations."""
TV_TENSORS = frozenset({"BoundingBoxes", "Mask", "KeyPoints"})
"""The same in torchvision.tv_tensors, which may not be installed."""
LOOKED_AT = 8
"""Items of a list that are searched for boxes: they are all of one kind."""
PIL_BILINEAR = 2
"""PIL.Image.Resampling.BILINEAR; it antialiases when it makes an image smaller."""


def resized_sample(sample: Any, size: Size, warn: Warn) -> Any:
    """The sample with its image resized and all else as it is; `warn` is told if that is not all it takes."""
    if isinstance(sample, (tuple, list)) and sample:
        image = _resized_part(sample[0], size, warn)
        _look_for_places(sample[0], sample[1:], image, warn)
        if isinstance(sample, list):
            return [image, *sample[1:]]
        items = (image, *sample[1:])
        return sample._make(items) if hasattr(sample, "_make") else items
    resized = _resized_part(sample, size, warn)
    _look_for_places(sample, (), resized, warn)
    return resized


def _resized_part(part: Any, size: Size, warn: Warn) -> Any:
    if not isinstance(part, dict):
        return _resized_image(part, size, warn)
    keys = [key for key in IMAGE_KEYS if key in part]
    if not keys:
        _warn_unresized("a dict without 'img' or 'image'", warn)
        return part
    images = {key: _resized_image(part[key], size, warn) for key in keys}
    if all(image is part[key] for key, image in images.items()):
        return part
    resized = copy.copy(part)  # the dataset may keep the sample
    resized.update(images)
    return resized


def _resized_image(image: Any, size: Size, warn: Warn) -> Any:
    if isinstance(image, torch.Tensor) and image.ndim in (2, 3) and not image.is_complex():
        return image if image.shape[-2:] == size else _resized_tensor(image, size)
    if _is_pil(image):
        return image if image.size == size[::-1] else image.resize(size[::-1], PIL_BILINEAR)
    shape = f" of shape {tuple(image.shape)}" if hasattr(image, "shape") else ""
    _warn_unresized(f"{type(image).__name__}{shape}", warn)
    return image


def _is_pil(image: Any) -> bool:
    return hasattr(image, "resize") and hasattr(image, "getbands")


def _resized_tensor(image: torch.Tensor, size: Size) -> torch.Tensor:
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


# --- what should have been resized along, or instead


def _look_for_places(first: Any, rest: Sequence[Any], resized: Any, warn: Warn) -> None:
    """Warn if the image was resized, but not the boxes, masks or points beside it."""
    if resized is first:
        return
    image, beside = first, [*rest]
    if isinstance(first, dict):
        image = next(first[key] for key in IMAGE_KEYS if key in first)
        beside += [value for key, value in first.items() if key not in IMAGE_KEYS]
    found = _place([first, *rest]) or _map(image, beside)
    if found is not None:
        warn(
            f"images are resized (image_resize), but a sample has {found}, which is left as it is and no longer fits: "
            "pass createHpoDataset(..., resize=function), called as function(sample, (height, width)), that returns "
            "the whole sample resized; with torchvision.transforms, v2.Resize(size)(*sample) is one"
        )


def _place(part: Any) -> str | None:
    """A name for the first boxes, mask or points within a part of a sample, None if there are none."""
    kinds = {base.__name__ for base in type(part).__mro__ if base.__module__.startswith("torchvision.")}
    if kinds & TV_TENSORS:
        return f"a {type(part).__name__}"
    if isinstance(part, dict):
        key = next((key for key in part if isinstance(key, str) and key in PLACES), None)
        return repr(key) if key is not None else _first_place(part.values())
    return _first_place(part) if isinstance(part, (list, tuple)) else None


def _first_place(parts: Any) -> str | None:
    found = (_place(part) for part in islice(parts, LOOKED_AT))
    return next((name for name in found if name is not None), None)


def _map(image: Any, rest: Sequence[Any]) -> str | None:
    """A name for an item beside the image that is as large: a segmentation mask, a depth map, a second view."""
    size = _size_of(image)
    same = (item for item in rest if size is not None and _size_of(item) == size)
    return next((f"a second {type(item).__name__} of the image's size" for item in same), None)


def _size_of(image: Any) -> Size | None:
    if isinstance(image, torch.Tensor) and image.ndim in (2, 3):
        return (image.shape[-2], image.shape[-1])
    return tuple(image.size[::-1]) if _is_pil(image) else None


def _warn_unresized(what: str, warn: Warn) -> None:
    warn(
        f"image_resize is set, but a sample has {what} where its image is expected; it is left as it is: return a "
        "tensor (C, H, W) or (H, W) or a PIL image, as the sample, its first item, or 'img' or 'image' of a dict, or "
        "pass createHpoDataset(..., resize=function), called as function(sample, (height, width))"
    )
