import copy
from collections import OrderedDict, namedtuple
from typing import Any

import numpy as np
import pytest
import torch

from hpopt.dataset import createHpoDataset
from tests.datasets import Samples, config

Sample = namedtuple("Sample", ["pixels", "label", "weight"])  # noqa: PYI024 - the untyped kind is what is tested


class PillowLike:
    """What PIL.Image.Image looks like from outside."""

    def __init__(self, size: tuple[int, int], resample: int | None = None) -> None:
        self.size = size
        self.resample = resample

    def getbands(self) -> tuple[str, ...]:
        return ("R", "G", "B")

    def resize(self, size: tuple[int, int], resample: int | None = None) -> "PillowLike":
        return PillowLike(size, resample)


def first(sample: Any, width: int = 4, height: int = 2) -> Any:
    """The sample, as it comes out of a dataset that resizes."""
    return createHpoDataset(Samples([sample]), config(width=width, height=height))[0]


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


# --- resize=, and what needs it


class BoundingBoxes(torch.Tensor):
    """What a tv_tensor looks like from outside."""


BoundingBoxes.__module__ = "torchvision.tv_tensors._bounding_boxes"
IMAGE = torch.zeros(3, 6, 8)
BOXES = torch.tensor([[0.0, 0.0, 8.0, 6.0]])


@pytest.mark.parametrize(
    ("sample", "named"),
    [
        ((IMAGE, {"boxes": BOXES, "labels": torch.ones(1)}), "'boxes'"),
        ([IMAGE, {"masks": torch.ones(1, 6, 8)}], "'masks'"),
        ((IMAGE, 3, {"keypoints": torch.ones(1, 4, 3)}), "'keypoints'"),
        ((IMAGE, [{"area": 1, "bbox": [0, 0, 8, 6]}]), "'bbox'"),
        ((IMAGE, {"annotation": {"object": [{"bndbox": {"xmin": "1"}}]}}), "'bndbox'"),
        ((IMAGE, BOXES.as_subclass(BoundingBoxes)), "a BoundingBoxes"),
        ((IMAGE, torch.zeros(6, 8)), "a second Tensor of the image's size"),
        ((PillowLike((8, 6)), PillowLike((8, 6))), "a second PillowLike of the image's size"),
        ({"img": IMAGE, "gt_bboxes": BOXES}, "'gt_bboxes'"),
        ({"image": IMAGE, "mask": torch.zeros(6, 8)}, "'mask'"),
        ({"image": IMAGE, "depth": torch.zeros(6, 8)}, "a second Tensor of the image's size"),
    ],
    ids=["boxes", "masks", "keypoints", "COCO", "VOC", "tv_tensor", "map", "PIL map", "OpenMMLab", "mask", "depth"],
)
def test_boxes_and_masks_are_left_alone_with_one_warning(sample: Any, named: str) -> None:
    """Boxes and masks stay what they are, and the first sample of the dataset that has some says what to pass."""
    dataset = createHpoDataset([sample] * 3, config(width=4, height=2))
    with pytest.warns(RuntimeWarning, match=rf"has {named}, which is left as it is.*resize=function") as caught:
        resized = [dataset[index] for index in range(3)]
    assert len(caught) == 1
    pairs = zip(flattened(sample), flattened(resized[0]), strict=True)
    assert sum(before is not after for before, after in pairs) == 1, "only the image is another object"


@pytest.mark.parametrize("sample", [(IMAGE, 1), (IMAGE, torch.tensor(1)), (IMAGE, "a"), {"img": IMAGE, "boxed": BOXES}])
def test_other_samples_give_no_warning(sample: Any) -> None:
    """Classes, names and numbers beside the image are no boxes. Warnings are errors here."""
    first(sample)


def test_boxes_of_an_image_that_is_not_resized_give_no_warning() -> None:
    """Boxes still fit an image that has the size already, or that is to keep its own."""
    first((torch.zeros(3, 2, 4), {"boxes": BOXES}))
    first((IMAGE, {"boxes": BOXES}), width=0, height=0)


def halved(sample: Any, size: tuple[int, int]) -> Any:
    """A whole sample resized, boxes too."""
    image, target = sample
    scale = torch.tensor([size[1] / image.shape[-1], size[0] / image.shape[-2]]).repeat(2)
    return image[..., : size[0], : size[1]], {**target, "boxes": target["boxes"] * scale}


def test_resize_sees_the_sample_and_the_size() -> None:
    """With resize=, the sample is what the function makes of it, and nothing is warned of."""
    sample = (IMAGE, {"boxes": BOXES})
    dataset = createHpoDataset([sample], config(width=4, height=3), resize=halved)
    image, target = dataset[0]
    assert (image.shape, target["boxes"].tolist()) == ((3, 3, 4), [[0, 0, 4, 3]])


def test_resize_is_not_called_without_a_size() -> None:
    """A study that keeps the size of images keeps samples as they are."""
    sample = (IMAGE, {"boxes": BOXES})
    assert createHpoDataset([sample], config(), resize=halved)[0] is sample


@pytest.mark.parametrize("resize", [(4, 2), "bilinear", True])
def test_resize_has_to_be_a_function(resize: Any) -> None:
    """A size or a name is refused, with the form of the function."""
    with pytest.raises(TypeError, match=r"function\(sample, \(height, width\)\)"):
        createHpoDataset([1], config(), resize=resize)
