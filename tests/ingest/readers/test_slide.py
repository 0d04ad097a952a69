"""Whole slides: the colours of Aperio's JPEG 2000 tiles, and a tile that cannot be decoded."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile

from ingest.raw.items import RawFile
from ingest.readers import RawImage, ReadOptions
from ingest.readers.slide import read
from tests.ingest.material import ingest, public_spec, write_folder


def tissue() -> Any:
    rng = np.random.default_rng(0)
    smooth = cv2.resize(rng.integers(60, 220, (32, 32, 3), dtype=np.uint8), (1024, 1024), interpolation=cv2.INTER_CUBIC)
    smooth[..., 1] //= 2
    return smooth


def slide(compression: int) -> bytes:
    import imagecodecs

    def tile(pixels: Any) -> bytes:
        if compression == 33003:
            pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
        plain = np.ascontiguousarray(pixels)
        return bytes(imagecodecs.jpeg2k_encode(plain, level=0, codecformat="j2k", mct=False, reversible=True))

    whole = tissue()
    tiles = (tile(whole[y : y + 256, x : x + 256]) for y in range(0, 1024, 256) for x in range(0, 1024, 256))
    text = "Aperio Image Library v10.0.50\r\n1024x1024 [0,0 1024x1024] (256x256) J2K Q=70|AppMag = 20|MPP = 0.5"
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as tiff:
        tiff.write(
            tiles,
            shape=whole.shape,
            dtype=whole.dtype,
            tile=(256, 256),
            photometric="rgb",
            compression=compression,
            description=text,
            metadata=None,
        )
    return buffer.getvalue()


@pytest.mark.slow
def test_a_slide_on_disk_is_read_by_a_job(tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "raw", {"case 1.svs": slide(33005)})
    report = ingest(raw, tmp_path / "data", public_spec(modality="Microscopy", reader="slide"))
    assert (report.kept, report.rejected) == (4, 0), report.reasons


def images(data: bytes) -> list[RawImage]:
    return list(read(RawFile.of_bytes(data, "a.svs"), ReadOptions()))


@pytest.mark.slow
@pytest.mark.parametrize("compression", [33003, 33005])
def test_jpeg_2000_tiles_are_shown_in_their_colours(compression: int) -> None:
    found = {image.frame: image.pixels for image in images(slide(compression))}
    assert sorted(found) == [f"y{y:06d}x{x:06d}" for y in (0, 512) for x in (0, 512)]
    for frame, pixels in found.items():
        y, x = int(frame[1:7]), int(frame[8:])
        assert np.abs(pixels.astype(int) - tissue()[y : y + 512, x : x + 512]).mean() < 2
