"""Libraries that decode JPEGs on a device, a batch per call; on the CPU they run the same way, without its speed.

`torchcodec` (PyTorch's decoder, nvJPEG on CUDA) and `nvimgcodec` (NVIDIA's, which uses the GPU's JPEG engine where the
container exposes it). Both give upright pixels. Where the engine of an H100 is used, a decode writes its output without
regard to work that is queued before it: the caller runs in a CUDA stream of its own and drains it first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib import util
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import numpy as np

from shards.decode.base import Blob
from shards.errors import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = ["ENGINES", "Engine", "EngineName", "engine_names", "open_engine"]

EngineName = Literal["torchcodec", "nvimgcodec"]


class Engine(Protocol):
    """Decodes batches of JPEGs on one device.

    Attributes:
        name: Of the library.
    """

    name: str

    def decode(self, blobs: Sequence[Blob], channels: int) -> list[torch.Tensor | None]:
        """Upright images `(C, H, W)` uint8 on the device; None in the place of one that the library cannot decode.

        Args:
            blobs: JPEGs of one or three components.
            channels: 3 for RGB, 1 for luma.
        """
        ...


class TorchcodecEngine:
    """`torchcodec.decoders.decode_jpeg`; see `Engine`."""

    name = "torchcodec"

    def __init__(self, device: torch.device) -> None:
        from torchcodec.decoders import decode_jpeg

        self._device = device
        self._decode = decode_jpeg

    def decode(self, blobs: Sequence[Blob], channels: int) -> list[torch.Tensor | None]:
        """One call for all; one for each where that fails, so that one image costs only itself."""
        import torch

        data = [torch.from_numpy(np.frombuffer(blob, np.uint8).copy()) for blob in blobs]
        mode = "RGB" if channels == 3 else "GRAY"
        try:
            return list(self._decode(data, mode=mode, device=self._device)) if data else []
        except RuntimeError:
            return [self._alone(one, mode) for one in data]

    def _alone(self, data: torch.Tensor, mode: str) -> torch.Tensor | None:
        try:
            image: torch.Tensor = self._decode(data, mode=mode, device=self._device)
        except RuntimeError:
            return None
        return image


class NvimgcodecEngine:
    """`nvidia.nvimgcodec.Decoder`; see `Engine`.

    Args:
        device: Where to decode.
        backend: One of the library's `BackendKind` alone; on a GPU all of them, the JPEG engine first, where None.
    """

    name = "nvimgcodec"

    def __init__(self, device: torch.device, *, backend: str | None = None) -> None:
        from nvidia import nvimgcodec

        self._library = nvimgcodec
        self._device = device
        cuda = device.type == "cuda"
        kind = backend or (None if cuda else "CPU_ONLY")
        backends = [] if kind is None else [nvimgcodec.Backend(getattr(nvimgcodec.BackendKind, kind))]
        place = device.index or 0 if cuda else nvimgcodec.NVIMGCODEC_DEVICE_CPU_ONLY
        threads = max((os.cpu_count() or 1) // 2, 1)
        self._decoder = nvimgcodec.Decoder(device_id=place, max_num_cpu_threads=threads, backends=backends)

    def decode(self, blobs: Sequence[Blob], channels: int) -> list[torch.Tensor | None]:
        """One call for all."""
        library = self._library
        colour = library.ColorSpec.SRGB if channels == 3 else library.ColorSpec.GRAY
        sources = [library.CodeStream(bytes(blob)) for blob in blobs]
        stream = {"cuda_stream": _current_stream(self._device)} if self._device.type == "cuda" else {}
        images = self._decoder.decode(sources, params=library.DecodeParams(color_spec=colour), **stream)
        return [None if image is None else self._as_tensor(image) for image in images]

    def _as_tensor(self, image: Any) -> torch.Tensor:
        import torch

        if self._device.type == "cuda":
            return torch.utils.dlpack.from_dlpack(image).permute(2, 0, 1)
        return torch.from_numpy(np.asarray(image.cpu())).permute(2, 0, 1)


def _current_stream(device: torch.device) -> int:
    import torch

    return torch.cuda.current_stream(device).cuda_stream


ENGINES: Final[dict[EngineName, tuple[str, Callable[[torch.device], Engine]]]] = {
    "torchcodec": ("torchcodec", TorchcodecEngine),
    "nvimgcodec": ("nvidia.nvimgcodec", NvimgcodecEngine),
}
"""Name → module and constructor, the preferred one first."""


def engine_names() -> list[EngineName]:
    """The libraries that are installed, the preferred one first."""
    return [name for name, (module, _) in ENGINES.items() if _is_installed(module)]


def open_engine(device: torch.device, name: EngineName | Literal["auto"] = "auto") -> Engine:
    """Open a library that decodes on a device.

    Raises:
        ConfigError: None is installed, or the chosen one cannot be used here.
    """
    names = engine_names() if name == "auto" else [name]
    if not names:
        raise ConfigError("decoding on a device needs torchcodec or nvimgcodec", hint="pip install 'biovfm[gpu]'")
    reasons = []
    for one in names:
        try:
            return ENGINES[one][1](device)
        except (ImportError, OSError, RuntimeError) as error:
            reasons.append(f"{one}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
    raise ConfigError(f"decoding on {device} is not possible: {'; '.join(reasons)}", hint="use run.decode=host")


def _is_installed(module: str) -> bool:
    try:
        return util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
