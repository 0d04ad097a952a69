"""What a person chooses of a probe, declared once: options of `biovfm probe` and `knn`, and a section of a sweep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

from pydantic import ConfigDict, Field

DEFAULT_SIZE_PX: Final = 28


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeChoice:
    """Which tasks are probed, and how.

    Attributes:
        tasks: `all`, or names separated by commas.
        data: Folder, .npz or URL of the MedMNIST archives; the medmnist cache, else a download, without it.
        size: Edge of the archive's images in pixels: 28 unless given, 224 with --paper-protocol.
        image_size: Edge that the network sees; the one that it was trained on without it.
        pooling: Mean of the patch tokens, the CLS token, or both. `auto` goes by the method that the checkpoint
            records: both for DINOv2, which trains both; patches for MAE, whose CLS token no loss sees, and otherwise.
        skip_missing: Name tasks whose images are missing and go on without them.
        resamples: Bootstrap resamples.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    tasks: str = "all"
    data: str | None = None
    size: Literal[28, 64, 128, 224] | None = None
    image_size: int | None = None
    pooling: Literal["auto", "patch_mean", "cls", "cls_patch_mean"] = "auto"
    skip_missing: bool = False
    resamples: Annotated[int, Field(gt=0)] = 1000

    def size_px(self, default: int = DEFAULT_SIZE_PX) -> int:
        """Edge of the archive's images: the one that was chosen, else `default`."""
        return self.size or default
