"""Decoding on a device: torchvision decodes the batch (nvJPEG on CUDA), torch crops and resizes it there.

The same boxes and the same rules for what can be decoded as on the CPU. There is no reduction while decoding, so both
modes give the pixels of `exact` (within the rounding of the device's arithmetic). Images that the device cannot take
(PNG, CMYK) are decoded by the library decoder and copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from shards.decode.base import Blob, Crops, Mode, Status, slot_channels
from shards.decode.boxes import Boxes, crop_boxes
from shards.decode.header import ImageHeader, read_header
from shards.decode.library import decode_pixels
from shards.errors import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = ["DeviceDecoder"]

_BATCH: Final = 64
"""Images decoded at once: bounds the memory that whole images take on the device."""


class DeviceDecoder:
    """The decoder on a torch device; see `shards.decode.base.Decoder`.

    `out` may hold tensors on the device, so that nothing returns to the host, or numpy arrays.

    Args:
        mode: Kept for the interface; both modes give the pixels of `exact`.
        device: Torch device, such as `cuda`, `cuda:1` or `cpu`.

    Raises:
        ConfigError: torch or torchvision is missing, or the device is not there.
    """

    name = "device"

    def __init__(self, *, mode: Mode = "fast", device: str = "cuda") -> None:
        self.mode: Mode = mode
        try:
            import torch
            import torchvision.io  # noqa: F401 - asked for now, so that a missing one is told before the stream starts
        except ImportError as error:
            message = f"decoding on a device needs torch and torchvision: {error}"
            raise ConfigError(message, hint="pip install 'biovfm[train]', or use the decoder auto") from error
        self.device = torch.device(device)
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise ConfigError(f"there is no CUDA device for decoding on {device}", hint="use the decoder auto")

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
        status = np.full(len(blobs), Status.OK, np.int32)
        headers = [read_header(blob) for blob in blobs]
        for start in range(0, len(blobs), _BATCH):
            rows = range(start, min(start + _BATCH, len(blobs)))
            for row, image in self._images(blobs, headers, rows, channels):
                if isinstance(image, Status):
                    status[row] = image
                else:
                    self._write(image, seeds[row : row + 1], crops, [array[row] for array in out])
        return status

    def _images(
        self, blobs: Sequence[Blob], headers: Sequence[ImageHeader | Status], rows: range, channels: int
    ) -> Iterator[tuple[int, torch.Tensor | Status]]:
        """Upright images `(C, H, W)` uint8 on the device, or why there is none."""
        import torch

        direct: list[tuple[int, ImageHeader]] = []
        for row in rows:
            header = headers[row]
            if isinstance(header, Status):
                yield row, header
            elif header.codec == "jpeg" and header.components != 4:
                direct.append((row, header))
            else:
                pixels = decode_pixels(blobs[row], header, channels)
                if isinstance(pixels, Status):
                    yield row, pixels
                else:
                    yield row, torch.from_numpy(pixels).permute(2, 0, 1).to(self.device)
        decoded = self._decode_jpegs([blobs[row] for row, _ in direct], channels)
        for (row, header), image in zip(direct, decoded, strict=True):
            fits = image is not None and image.shape[1:] == (header.height, header.width)
            yield row, _upright(image, header.orientation) if image is not None and fits else Status.CORRUPT

    def _decode_jpegs(self, blobs: Sequence[Blob], channels: int) -> list[torch.Tensor | None]:
        """Stored images `(C, H, W)`; where the batch fails, one by one, so that one bad image costs only itself."""
        import torch
        from torchvision.io import ImageReadMode, decode_jpeg

        mode = ImageReadMode.RGB if channels == 3 else ImageReadMode.GRAY
        data = [torch.from_numpy(np.frombuffer(blob, np.uint8).copy()) for blob in blobs]
        try:
            return list(decode_jpeg(data, mode=mode, device=self.device)) if data else []
        except RuntimeError:
            return [self._decode_single(one, mode) for one in data]

    def _decode_single(self, data: torch.Tensor, mode: Any) -> torch.Tensor | None:
        from torchvision.io import decode_jpeg

        try:
            image: torch.Tensor = decode_jpeg(data, mode=mode, device=self.device)
        except RuntimeError:
            return None
        return image

    def _write(
        self, image: torch.Tensor, seed: NDArray[np.uint64], crops: Sequence[Crops], slots: Sequence[Any]
    ) -> None:
        size = np.array([image.shape[2]]), np.array([image.shape[1]])
        for group, (wanted, slot) in enumerate(zip(crops, slots, strict=True)):
            made = _take(image, crop_boxes(seed, group, wanted, *size).row(0), wanted)
            if isinstance(slot, np.ndarray):
                slot[...] = made.cpu().numpy()
            else:
                slot.copy_(made)


def _upright(image: torch.Tensor, orientation: int) -> torch.Tensor:
    """Turn a stored `(C, H, W)` image as EXIF orientation 1 to 8 says."""
    if orientation >= 5:
        image = image.transpose(1, 2)
    axes = [2] * (orientation in {2, 3, 6, 7}) + [1] * (orientation in {3, 4, 7, 8})
    return image.flip(axes) if axes else image


def _take(image: torch.Tensor, boxes: Boxes, crops: Crops) -> torch.Tensor:
    """All crops of one `(C, H, W)` image, `(num, size_px, size_px, C)` uint8."""
    import torch

    made = []
    for box, flip in zip(boxes.box, boxes.flip, strict=True):
        crop = _resize(image, box, crops)
        made.append(crop.flip(2) if flip else crop)
    return torch.stack(made).permute(0, 2, 3, 1).contiguous()


def _resize(image: torch.Tensor, box: NDArray[np.float64], crops: Crops) -> torch.Tensor:
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
    pixels = interpolate(part[None].float(), target, mode=crops.interpolation, antialias=True)[0]
    pixels = pixels[:, corner[0] : corner[0] + size, corner[1] : corner[1] + size]
    return pixels.round().clamp(0, 255).to(torch.uint8)
