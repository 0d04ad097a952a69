"""Damaged files: any bytes give a status, never a crash, and a slot that is not `OK` is left as it was.

`fuzz/fuzz_decode.c` is the same under libFuzzer and the sanitizers.
"""

from __future__ import annotations

import numpy as np
import pytest

from shards.decode import Crops, Status, open_decoder
from tests.shards.decode.images import blank, jpeg_kinds, picture

CROPS = [Crops(num=2, size_px=24, scale=(0.02, 1.0)), Crops(size_px=17, kind="center", interpolation="bicubic")]
SEEDS = [blob for h, w in ((40, 56), (64, 64)) for blob in jpeg_kinds(picture(h, w, h)).values()]


def damage(blob: bytes, rng: np.random.Generator) -> bytes:
    """Bits flipped, bytes replaced, parts cut out, doubled or moved, the end cut off (with and without its marker)."""
    data = bytearray(blob)
    for _ in range(int(rng.integers(1, 5))):
        at, length = int(rng.integers(2, len(data))), int(rng.integers(1, 40))
        match rng.integers(6):
            case 0:
                data[at] ^= 1 << int(rng.integers(8))
            case 1:
                data[at : at + length] = rng.integers(0, 256, len(data[at : at + length]), dtype=np.uint8).tobytes()
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = data[at : at + length]
            case 4:
                data[at:] = data[at:-2][: int(rng.integers(len(data)))] + b"\xff\xd9"
            case _:
                header = int(rng.integers(2, min(len(data), 700)))
                data[header] = int(rng.integers(256))
        if len(data) < 4:
            break
    return bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "turns"), [("auto", 60), ("library", 8)])
@pytest.mark.parametrize("mode", ["fast", "exact"])
def test_damaged_images_have_a_status(name: str, turns: int, mode: str) -> None:
    rng = np.random.default_rng(5)
    decoder = open_decoder(name, mode)  # type: ignore[arg-type]
    seen = set()
    for turn in range(turns):
        blobs = [damage(blob, rng) for blob in SEEDS]
        channels = 1 + 2 * (turn % 2)
        out = blank(len(blobs), CROPS, channels, value=91)
        status = decoder.decode(blobs, rng.integers(0, 2**63, len(blobs)).astype(np.uint64), CROPS, out)
        seen |= set(status.tolist())
        for array in out:
            assert (array[status != Status.OK] == 91).all()
    assert seen == {Status.OK, Status.CORRUPT, Status.UNSUPPORTED}


@pytest.mark.parametrize("name", ["auto", "library"])
def test_every_truncation_is_corrupt(name: str) -> None:
    decoder = open_decoder(name)  # type: ignore[arg-type]
    for blob in SEEDS[::9]:
        cuts = [blob[:length] for length in range(0, len(blob), 7)]
        out = blank(len(cuts), CROPS, value=3)
        status = decoder.decode(cuts, np.arange(len(cuts)).astype(np.uint64), CROPS, out)
        assert (status == Status.CORRUPT).all()
        assert all((array == 3).all() for array in out)
