"""Decoding on a device: a library decodes a batch of JPEGs there, a kernel or torch cuts and resizes the crops there.

The same boxes and the same rules for what can be decoded as on the CPU. There is no reduction while decoding, so both
modes give the pixels of `exact`, as far as the library's chroma upsampling goes: a measured difference, not a promise.
Images that the libraries do not take (PNG, CMYK) are decoded by a decoder of the host, and so are those that a library
fails on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypeGuard

import numpy as np
from numpy.typing import NDArray

from shards.decode.base import Blob, Crops, Decoder, Mode, Status, slot_channels
from shards.decode.check import Checked, check_images
from shards.decode.engines import EngineName, open_engine
from shards.decode.kernels.choice import KernelName, kernels_for
from shards.decode.kernels.cut import write_crops
from shards.errors import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = ["DeferringDecoder", "DeviceDecoder", "is_for_device"]

_BATCH_PIXELS: Final = 1 << 27
"""Pixels decoded by a call, 384 MiB of RGB: bounds the memory that whole images take on the device."""


def is_for_device(checked: Checked) -> NDArray[np.bool_]:
    """`(B,)` bool, whether the libraries of a device take an image: a good JPEG of one or three components."""
    taken: NDArray[np.bool_] = (checked.status == Status.OK) & checked.is_jpeg & (checked.components != 4)
    return taken


class DeferringDecoder:
    """Judges every image on the host and decodes there what the device does not take; the rest is `DEFERRED`.

    Whether an image is bad is decided here, before a device sees it: by the check for a JPEG, which promises pixels in
    every decoder, and by the host's decoder for all others.

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
        checked = check_images(blobs)
        direct = is_for_device(checked)
        status = np.where(direct, np.int32(Status.DEFERRED), checked.status)
        for row in np.flatnonzero(status == Status.OK).tolist():
            here = slice(row, row + 1)
            status[row] = self._host.decode([blobs[row]], seeds[here], crops, [array[here] for array in out])[0]
        return status


class DeviceDecoder:
    """The decoder on a torch device; see `shards.decode.base.Decoder`.

    `out` may hold tensors on the device, so that nothing returns to the host, or numpy arrays. Not for several threads
    at once; on CUDA it is to be called in a stream that computes nothing else and has been drained (`engines`).

    Args:
        mode: Kept for the interface; both modes give the pixels of `exact`.
        device: Torch device, such as `cuda:1` or `cpu`.
        engine: Library; `auto` takes the preferred one of those installed.
        kernels: What cuts the crops; what `kernels_for` finds here where None.

    Attributes:
        kernels: What cuts the crops.
        num_on_host: Images that were decoded on the host after all.

    Raises:
        ConfigError: torch or a library is missing, or the device is not there.
    """

    name = "device"

    def __init__(
        self,
        *,
        mode: Mode = "fast",
        device: str | torch.device = "cuda",
        engine: EngineName | Literal["auto"] = "auto",
        kernels: KernelName | None = None,
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
        self.kernels: KernelName = kernels or kernels_for(self.device).name
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
        checked = check_images(blobs)
        status = checked.status
        direct = is_for_device(checked)
        left = set(np.flatnonzero((status == Status.OK) & ~direct).tolist())
        for rows in _by_pixels(np.flatnonzero(direct).tolist(), checked):
            self._drain()
            images = self.engine.decode([blobs[row] for row in rows], channels)
            given = zip(rows, images, strict=True)
            made = {row: image for row, image in given if _is_whole(image, checked.upright[row])}
            left |= set(rows) - set(made)
            places = list(made)
            turned = checked.turned[places]
            write_crops(list(made.values()), seeds[places], crops, out, places, turned=turned, by=self.kernels)
        for row in sorted(left):
            status[row] = self._on_host(blobs[row], seeds[row : row + 1], crops, [array[row] for array in out])
        return status

    def _drain(self) -> None:
        """Wait for the crops of the images before: a GPU's engine writes at once, whatever is queued."""
        if self.device.type == "cuda":
            import torch

            torch.cuda.current_stream(self.device).synchronize()

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


def _is_whole(image: torch.Tensor | None, size: NDArray[np.int32]) -> TypeGuard[torch.Tensor]:
    """Whether a library gave an image of this width and height."""
    return image is not None and [image.shape[2], image.shape[1]] == size.tolist()


def _host_decoder() -> Decoder:
    from shards.decode.opening import open_decoder

    return open_decoder("auto", "exact")


def _by_pixels(rows: Sequence[int], checked: Checked) -> Iterator[list[int]]:
    """Rows in groups of at most `_BATCH_PIXELS`, at least one row each."""
    group: list[int] = []
    pixels = 0
    for row in rows:
        size = int(checked.upright[row].prod(dtype=np.int64))
        if group and pixels + size > _BATCH_PIXELS:
            yield group
            group, pixels = [], 0
        group.append(row)
        pixels += size
    if group:
        yield group
