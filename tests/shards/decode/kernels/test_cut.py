"""Crops by torch: each one is cut and resized by itself, exactly as its description says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from shards.decode import Crops
from shards.decode.boxes import crop_boxes
from shards.decode.kernels.cut import write_crops

pytestmark = pytest.mark.torch

torch = pytest.importorskip("torch")

CROPS = [
    Crops(num=3, size_px=24),
    Crops(num=1, size_px=20, kind="center"),
    Crops(num=2, size_px=33, interpolation="bicubic"),
    Crops(num=1, size_px=40, kind="center", interpolation="bicubic"),
]


def plainly(image: Any, seed: int, group: int, *, turned: bool) -> list[Any]:
    """The crops of one group of one image, one after the other."""
    crops, made = CROPS[group], []
    height, width = image.shape[1:]
    boxes = crop_boxes(np.array([seed], np.uint64), group, crops, np.array([width]), np.array([height])).row(0)
    for (left, top, wide, high), flip in zip(boxes.box.tolist(), boxes.flip, strict=True):
        size, x, y, part = (crops.size_px, crops.size_px), 0, 0, image
        if crops.kind == "random":
            part = image[:, int(top) : int(top + high), int(left) : int(left + wide)]
        else:
            size = (round(height * crops.size_px / high), round(width * crops.size_px / wide))
            x, y = round(left * crops.size_px / wide), round(top * crops.size_px / high)
        pixels = part[None].float()
        for shape in ((size[0], part.shape[2]) if turned else (part.shape[1], size[1]), size):
            pixels = torch.nn.functional.interpolate(pixels, shape, mode=crops.interpolation, antialias=True)
            pixels = pixels.round().clamp(0, 255)
        crop = pixels[0, :, y : y + crops.size_px, x : x + crops.size_px].to(torch.uint8)
        made.append((crop.flip(2) if flip else crop).permute(1, 2, 0))
    return made


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("as_array", [False, True])
def test_torch_gives_every_crop_bit_for_bit(channels: int, as_array: bool) -> None:
    generator = torch.Generator().manual_seed(channels)
    sizes, rows = [(50, 70), (31, 30), (120, 44)], [2, 0, 3]
    images = [torch.randint(256, (channels, *size), dtype=torch.uint8, generator=generator) for size in sizes]
    seeds, turned = np.array([5, 2**63 + 1, 9], np.uint64), np.array([False, True, True])
    out: list[Any] = [
        torch.full((4, one.num, one.size_px, one.size_px, channels), 7, dtype=torch.uint8) for one in CROPS
    ]
    given = [array.numpy() for array in out] if as_array else out
    write_crops(images, seeds, CROPS, given, rows, turned=turned, by="torch")
    for group, made in enumerate(out):
        for index, row in enumerate(rows):
            want = plainly(images[index], int(seeds[index]), group, turned=bool(turned[index]))
            assert torch.equal(made[row], torch.stack(want))
        assert (made[1] == 7).all()


def test_no_images_are_no_work() -> None:
    out = [torch.zeros((0, one.num, one.size_px, one.size_px, 3), dtype=torch.uint8) for one in CROPS]
    write_crops([], np.zeros(0, np.uint64), CROPS, out, [], turned=np.zeros(0, np.bool_), by="torch")
