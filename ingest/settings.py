"""What a person may set for an ingest job, with the defaults."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

MIB = 1 << 20


class QualitySettings(BaseModel):
    """Thresholds below which an image is rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_side_px: int = Field(28, ge=1, description="Shorter side under this: too_small.")
    max_aspect: float = Field(8.0, ge=1, description="Long side over short side above this: extreme_aspect.")
    blank_std: float = Field(2.0, ge=0, description="Standard deviation of the 8-bit gray values under this: blank.")
    blank_fraction: float = Field(0.98, gt=0, le=1, description="Share of one gray value above this: blank.")


class LimitSettings(BaseModel):
    """Guards against absurd, hostile or poisonous raw files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_file_bytes: int = Field(16 << 30, ge=1, description="Raw files (unpacked) above this are rejected.")
    max_ratio: float = Field(400.0, ge=1, description="Archive members packed tighter than this are bombs.")
    decoded_bytes: int = Field(
        2 << 30, ge=1 << 20, description="Decoded bytes that one raw file may need in memory at a time: over_budget."
    )
    max_pixels: int = Field(1 << 28, ge=1, description="Pixels of one 2-D image.")
    max_voxels: int = Field(1 << 32, ge=1, description="Voxels of one volume, frames of one file included.")
    item_timeout_seconds: float = Field(
        600.0, gt=0, description="A raw file that gives no sign of progress for so long is given up."
    )
    item_attempts: int = Field(2, ge=1, description="Tries before a file that brings down a fresh worker is given up.")


class DedupSettings(BaseModel):
    """Near duplicates and evaluation overlap; exact duplicates are always dropped."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    near: bool = Field(True, description="Drop near duplicates across groups.")
    radius_bits: int = Field(16, ge=0, le=31, description="Hamming radius on the 256-bit perceptual hash.")
    min_ncc: float = Field(0.99, ge=-1, le=1, description="Correlation of 64 px thumbnails that confirms a pair.")
    vote: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of two groups' slices whose match, in order, drops the later group; 0: none.",
    )
    bucket_cap: int = Field(1000, ge=2, description="Hash buckets larger than this are cut again, then skipped.")
    neighbours: Literal["keep", "drop"] = Field(
        "keep",
        description="Near duplicates among files of one folder that are numbered neighbours, or of which many are "
        "alike: slices or frames stored as single pictures. Without effect where the source states groups.",
    )
    evaluation: tuple[str, ...] = Field((), description="MedMNIST .npz files to compare with (any of their sizes).")
    evaluation_policy: Literal["report", "exclude"] = Field(
        "report", description="Images that match a test image: count them, or reject them as eval_overlap."
    )
    evaluation_ncc: float = Field(
        0.95, ge=-1, le=1, description="Correlation that confirms a match; thumbnails of 28 px images are coarse."
    )


class IngestSettings(BaseModel):
    """All settings of an ingest job; they are part of the job's id.

    The secret is not stored anywhere: it keys the hashes of group ids (and of raw paths where these are hashed).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    unit_bytes: int = Field(64 * MIB, ge=1, description="Raw bytes of one unit of work.")
    unit_files: int = Field(2048, ge=1, description="Raw files of one unit of work.")
    shard_bytes: int = Field(64 * MIB, ge=1, description="Target size of a shard.")
    raw_paths: Literal["source", "keep", "hash"] = Field(
        "source", description="Raw paths in the index: as they are, as keyed hashes, or as the source says."
    )
    burned_in: Literal["source", "keep", "crop", "reject"] = Field(
        "source", description="Images with burned-in annotations: keep, crop to the image region, or reject."
    )
    find_text: bool = Field(
        False,
        description="Look for text in the pixels as stored (extra text). What is found is burned_in `yes`, and the "
        "policy above acts on it; what crop leaves text in is rejected.",
    )
    quality: QualitySettings = QualitySettings()
    limits: LimitSettings = LimitSettings()
    dedup: DedupSettings = DedupSettings()
    secret: SecretStr = Field(SecretStr(""), exclude=True, repr=False)
