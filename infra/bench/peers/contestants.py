"""Who runs: ours and the peers, with the packages that each one's environment gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

TORCH: Final = ("torch==2.14.1", "torchvision==0.29.1", "pillow==13.0.0", "numpy")
"""The environment that those on torch are layered on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One row of the table.

    Attributes:
        name: What the command line calls it.
        label: What the table calls it.
        script: Module in `loaders`.
        variant: Passed to the script: a decoder, an image library.
        corpus: The format it reads, one of `formats.FORMATS` or made by the script's own `write`.
        requirements: What its environment gets on top of `base`; None runs in the interpreter of the harness.
        base: Name of the environment below, or nothing.
        workloads: Letters out of A, B, C and M.
    """

    name: str
    label: str
    script: str
    corpus: str
    variant: str = ""
    requirements: tuple[str, ...] | None = None
    base: str = ""
    workloads: str = "ABC"

    @property
    def ours(self) -> bool:
        """Whether it is our stream."""
        return self.script == "ours"


def _ours(variant: str, label: str, workloads: str) -> Contestant:
    name = f"ours-{variant}"
    return Contestant(
        name=name, label=f"biovfm, {label}", script="ours", corpus="shards", variant=variant, workloads=workloads
    )


CONTESTANTS: Final = (
    _ours("fast", "native fast", "ABCM"),
    _ours("exact", "native exact", "ABM"),
    _ours("library", "without the extension", "ABM"),
    Contestant(
        name="litdata",
        label="litdata 0.2.76",
        script="lit",
        corpus="litdata",
        requirements=("litdata==0.2.76",),
        base="torch",
    ),
    Contestant(
        name="torchvision-io",
        label="ImageFolder, torchvision.io 0.29.1",
        script="image_folder",
        corpus="files",
        variant="tensor",
        requirements=(),
        base="torch",
        workloads="ABM",
    ),
    Contestant(
        name="pillow",
        label="ImageFolder, Pillow 13.0.0",
        script="image_folder",
        corpus="files",
        variant="pillow",
        requirements=(),
        base="torch",
        workloads="ABCM",
    ),
    Contestant(
        name="pillow-simd",
        label="ImageFolder, pillow-simd 12.1.1",
        script="image_folder",
        corpus="files",
        variant="pillow",
        requirements=("pillow-simd==12.1.1.post0",),
        base="torch",
        workloads="ABM",
    ),
    Contestant(
        name="dali",
        label="DALI 2.4.0, CPU",
        script="dali",
        corpus="tars",
        requirements=("nvidia-dali-cuda130==2.4.0", "numpy"),
    ),
    Contestant(name="spdl", label="SPDL 0.8.0", script="spdl", corpus="tars", requirements=("spdl==0.8.0", "numpy")),
    Contestant(
        name="webdataset",
        label="webdataset 1.0.2",
        script="wds",
        corpus="tars",
        requirements=("webdataset==1.0.2",),
        base="torch",
    ),
    Contestant(
        name="datasets",
        label="Hugging Face datasets 5.2.0, parquet",
        script="hugging_face",
        corpus="parquet",
        requirements=("datasets==5.2.0",),
        base="torch",
    ),
    Contestant(
        name="mosaicml-streaming",
        label="mosaicml-streaming 0.13.0",
        script="mosaic",
        corpus="mds",
        requirements=("mosaicml-streaming==0.13.0",),
        base="torch",
    ),
)

WORKLOADS: Final = {
    "A": "decode, RandomResizedCrop(224, 0.08–1), flip",
    "B": "decode, short side to 224, centre",
    "C": "compressed bytes",
    "M": "decode, 2 × 224 (0.32–1) and 8 × 96 (0.05–0.32), flips",
}
