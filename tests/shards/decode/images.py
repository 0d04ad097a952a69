"""JPEG and PNG files of every kind that the decoders must meet, made on the spot."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from shards.decode import Crops, Decoder
from shards.decode.boxes import crop_boxes

SIZES = [(17, 33), (64, 64), (100, 37), (251, 333), (301, 700), (1, 1), (3, 500), (500, 3), (48, 49), (413, 640)]


def picture(height: int, width: int, seed: int = 0, *, sharpness: float = 1.2) -> NDArray[np.uint8]:
    """`(height, width, 3)` coloured noise with the spectrum of a blurred picture."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), sharpness).reshape(height, width, 3).astype(float)
    return np.clip((smooth - 128) * 3 * sharpness + 128, 0, 255).astype(np.uint8)


def jpeg(pixels: NDArray[np.uint8], *, mode: str = "RGB", **options: Any) -> bytes:
    """Pixels as a JPEG, by Pillow's options."""
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, "JPEG", **{"quality": 88, "subsampling": 0, **options})
    return stream.getvalue()


def jpeg_kinds(pixels: NDArray[np.uint8]) -> dict[str, bytes]:
    """One picture in every subsampling and coding."""
    codings: dict[str, dict[str, Any]] = {
        "plain": {},
        "progressive": {"progressive": True},
        "restart": {"restart_marker_blocks": 3},
        "restart-rows": {"restart_marker_rows": 1},
        "optimised": {"optimize": True},
    }
    kinds = {
        f"{chroma}-{name}": jpeg(pixels, subsampling=chroma, **options)
        for chroma in ("4:4:4", "4:2:2", "4:2:0")
        for name, options in codings.items()
    }
    kinds |= {f"gray-{name}": jpeg(pixels, mode="L", **options) for name, options in codings.items()}
    kinds |= {chroma: simplejpeg.encode_jpeg(pixels, 88, "RGB", chroma) for chroma in ("440", "411")}
    return kinds | {"cmyk": jpeg(pixels, mode="CMYK")}


def blank(num: int, crops: Sequence[Crops], channels: int = 3, value: int = 0) -> list[NDArray[np.uint8]]:
    """Output arrays for `num` images."""
    return [np.full((num, g.num, g.size_px, g.size_px, channels), value, np.uint8) for g in crops]


def decode(
    decoder: Decoder, blobs: Sequence[bytes], crops: Sequence[Crops], *, channels: int = 3, first_seed: int = 0
) -> tuple[list[NDArray[np.uint8]], NDArray[np.int32]]:
    """Decode with the seeds `first_seed`, `first_seed` + 1, ..."""
    out = blank(len(blobs), crops, channels)
    seeds = np.arange(first_seed, first_seed + len(blobs)).astype(np.uint64)
    return out, decoder.decode(blobs, seeds, crops, out)


def by_pillow(pixels: NDArray[np.uint8], seed: int, crops: Sequence[Crops]) -> list[NDArray[np.uint8]]:
    """The crops that Pillow makes of decoded pixels `(H, W)` or `(H, W, 3)`: cut, antialiased resize, flip."""
    height, width = pixels.shape[:2]
    made = []
    for number, group in enumerate(crops):
        boxes = crop_boxes(np.array([seed], np.uint64), number, group, np.array([width]), np.array([height]))
        filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
        results = []
        for box, flip in zip(boxes.box[0], boxes.flip[0], strict=True):
            size = (group.size_px, group.size_px)
            if group.kind == "random":
                left, top, wide, high = (int(value) for value in box)
                part = Image.fromarray(pixels[top : top + high, left : left + wide])
                crop = part.resize(size, filters[group.interpolation])
            else:
                crop = center_by_pillow(Image.fromarray(pixels), group.size_px, filters[group.interpolation])
            results.append(np.asarray(crop)[:, ::-1] if flip else np.asarray(crop))
        made.append(np.stack(results))
    return made


def center_by_pillow(image: Image.Image, size: int, resample: Image.Resampling) -> Image.Image:
    """Resize the short side, cut the centre: what evaluation pipelines do."""
    short = min(image.size)
    wide, high = (size if side == short else int(size * side / short) for side in image.size)
    left, top = round((wide - size) / 2), round((high - size) / 2)
    return image.resize((wide, high), resample).crop((left, top, left + size, top + size))


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB."""
    error = float(((a.astype(float) - b.astype(float)) ** 2).mean())
    return 10 * float(np.log10(255**2 / max(error, 1e-9)))
