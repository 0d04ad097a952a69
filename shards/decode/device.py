"""Decoding on a device: a library decodes a batch of JPEGs there, torch cuts and resizes the crops there.

The same boxes and the same rules for what can be decoded as on the CPU. There is no reduction while decoding, so both
modes give the pixels of `exact`, as far as the library's chroma upsampling goes: a measured difference, not a promise.
Images that the libraries do not take (PNG, CMYK) are decoded by a decoder of the host, and so are those that a library
fails on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from shards.decode.base import Blob, Crops, Decoder, Mode, Status, slot_channels
from shards.decode.boxes import crop_boxes
from shards.decode.engines import EngineName, open_engine
from shards.decode.header import ImageHeader, read_header
from shards.decode.library import upright_size
from shards.errors import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = ["DeferringDecoder", "DeviceDecoder", "is_for_device"]

_BATCH_PIXELS: Final = 1 << 27
"""Pixels decoded by a call, 384 MiB of RGB: bounds the memory that whole images take on the device."""


def is_for_device(header: ImageHeader | Status) -> bool:
    """Whether the libraries of a device take an image: a JPEG of one or three components."""
    return isinstance(header, ImageHeader) and header.codec == "jpeg" and header.components != 4


class DeferringDecoder:
    """Judges every image on the host and decodes there what the device does not take; the rest is `DEFERRED`.

    Args:
        host: Decodes on the host.
    """

    name = "device"

    def __init__(self, host: Decoder) -> None:
        self._host = host
        self.mode: Mode = host.mode

    def decode(
        self,
        blobs: Sequence[Blob],
        seeds: NDArray[np.uint64],
        crops: Sequence[Crops],
        out: Sequence[NDArray[np.uint8]],
    ) -> NDArray[np.int32]:
        """See `shards.decode.base.Decoder.decode`."""
        status = np.full(len(blobs), Status.DEFERRED, np.int32)
        for row, blob in enumerate(blobs):
            header = read_header(blob)
            if isinstance(header, Status):
                status[row] = header
            elif not is_for_device(header):
                here = slice(row, row + 1)
                status[row] = self._host.decode([blob], seeds[here], crops, [array[here] for array in out])[0]
        return status


class DeviceDecoder:
    """The decoder on a torch device; see `shards.decode.base.Decoder`.

    `out` may hold tensors on the device, so that nothing returns to the host, or numpy arrays. Not for several threads
    at once; on CUDA it is to be called in a stream that computes nothing else and has been drained (`engines`).

    Args:
        mode: Kept for the interface; both modes give the pixels of `exact`.
        device: Torch device, such as `cuda:1` or `cpu`.
        engine: Library; `auto` takes the preferred one of those installed.

    Attributes:
        num_on_host: Images that were decoded on the host after all.

    Raises:
        ConfigError: torch or a library is missing, or the device is not there.
    """

    name = "device"

    def __init__(
        self, *, mode: Mode = "fast", device: str | torch.device = "cuda", engine: EngineName | Literal["auto"] = "auto"
    ) -> None:
        self.mode: Mode = mode
        self.num_on_host = 0
        try:
            import torch
        except ImportError as error:
            message = f"decoding on a device needs torch: {error}"
            raise ConfigError(message, hint="pip install 'biovfm[train,gpu]', or use the decoder auto") from error
        self.device = torch.device(device)
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise ConfigError(f"there is no CUDA device for decoding on {device}", hint="use the decoder auto")
        self.engine = open_engine(self.device, engine)
        self._host = _host_decoder()

    def decode(
        self,
        blobs: Sequence[Blob],
        seeds: NDArray[np.uint64],
        crops: Sequence[Crops],
        out: Sequence[NDArray[np.uint8] | torch.Tensor],
    ) -> NDArray[np.int32]:
        """Decode every blob once and write all its crops; see `shards.decode.base.Decoder.decode`."""
        channels = slot_channels(len(blobs), crops, out)
        seeds = np.asarray(seeds, np.uint64)
        headers = [read_header(blob) for blob in blobs]
        status = np.array([one if isinstance(one, Status) else Status.OK for one in headers], np.int32)
        direct = [row for row, header in enumerate(headers) if is_for_device(header)]
        left = set(np.flatnonzero(status == Status.OK).tolist()) - set(direct)
        for rows in _by_pixels(direct, headers):
            images = self.engine.decode([blobs[row] for row in rows], channels)
            for row, image in zip(rows, images, strict=True):
                header = headers[row]
                assert isinstance(header, ImageHeader)
                if image is None or tuple(image.shape[1:]) != upright_size(header)[::-1]:
                    left.add(row)
                else:
                    slots = [array[row] for array in out]
                    write_crops(image, seeds[row : row + 1], crops, slots, turned=header.orientation >= 5)
        for row in sorted(left):
            status[row] = self._on_host(blobs[row], seeds[row : row + 1], crops, [array[row] for array in out])
        return status

    def _on_host(self, blob: Blob, seed: NDArray[np.uint64], crops: Sequence[Crops], slots: Sequence[Any]) -> int:
        import torch

        made = [np.empty((1, *slot.shape), np.uint8) for slot in slots]
        status = int(self._host.decode([blob], seed, crops, made)[0])
        self.num_on_host += 1
        if status == Status.OK:
            for slot, array in zip(slots, made, strict=True):
                if isinstance(slot, np.ndarray):
                    slot[...] = array[0]
                else:
                    slot.copy_(torch.from_numpy(array[0]))
        return status


def _host_decoder() -> Decoder:
    from shards.decode.opening import open_decoder

    return open_decoder("auto", "exact")


def _by_pixels(rows: Sequence[int], headers: Sequence[ImageHeader | Status]) -> Iterator[list[int]]:
    """Rows in groups of at most `_BATCH_PIXELS`, at least one row each."""
    group: list[int] = []
    pixels = 0
    for row in rows:
        header = headers[row]
        size = header.width * header.height if isinstance(header, ImageHeader) else 0
        if group and pixels + size > _BATCH_PIXELS:
            yield group
            group, pixels = [], 0
        group.append(row)
        pixels += size
    if group:
        yield group


def write_crops(
    image: torch.Tensor, seed: NDArray[np.uint64], crops: Sequence[Crops], slots: Sequence[Any], *, turned: bool
) -> None:
    """Cut all crops of one image.

    Args:
        image: `(C, H, W)` uint8, upright.
        seed: `(1,)` uint64, of its boxes.
        crops: The groups.
        slots: One `(num, size_px, size_px, C)` uint8 a group.
        turned: Whether EXIF has it lie on its side: then the host resizes down before across.
    """
    size = np.array([image.shape[2]]), np.array([image.shape[1]])
    for group, (wanted, slot) in enumerate(zip(crops, slots, strict=True)):
        boxes = crop_boxes(seed, group, wanted, *size).row(0)
        for number, (box, flip) in enumerate(zip(boxes.box, boxes.flip, strict=True)):
            crop = _resize(image, box, wanted, turned=turned)
            made = (crop.flip(2) if flip else crop).permute(1, 2, 0)
            if isinstance(slot, np.ndarray):
                slot[number] = made.cpu().numpy()
            else:
                slot[number].copy_(made)


def _resize(image: torch.Tensor, box: NDArray[np.float64], crops: Crops, *, turned: bool) -> torch.Tensor:
    import torch
    from torch.nn.functional import interpolate

    size = crops.size_px
    left, top, width, height = box.tolist()
    target, corner = (size, size), (0, 0)
    if crops.kind == "random":
        part = image[:, int(top) : int(top + height), int(left) : int(left + width)]
    else:
        part = image
        target = (round(image.shape[1] * size / height), round(image.shape[2] * size / width))
        corner = (round(top * size / height), round(left * size / width))
    first = (target[0], part.shape[2]) if turned else (part.shape[1], target[1])
    pixels = part[None].float()
    for shape in (first, target):  # rounded between the two passes, as on the host
        pixels = interpolate(pixels, shape, mode=crops.interpolation, antialias=True).round().clamp(0, 255)
    return pixels[0, :, corner[0] : corner[0] + size, corner[1] : corner[1] + size].to(torch.uint8)
