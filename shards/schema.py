"""The columns of the sample index and the words that may stand in them.

Other programs read these tables: a column may be added, never renamed or re-typed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT_VERSION: Final = 1
SETTINGS_FILE: Final = "dataset.json"
"""The file by which a folder is a dataset."""
MADE_BY: Final = "biovfm"
"""What that file says of who made it."""

PARTITIONS: Final = ("modality", "source")
"""The columns by which the files of the index lie in folders."""

MODALITIES: Final = (
    "CT",
    "MR",
    "X-Ray",
    "US",
    "NM",
    "OCT",
    "OCTA",
    "Fundus",
    "Dermoscopy",
    "Endoscopy",
    "Microscopy",
)
"""The modality tags of a sample."""

WITHDRAWAL_REASONS: Final = ("consent", "rights", "quality", "other")
"""Why samples are withdrawn: a person has, the right to use them has gone, they are wrong, or else."""

_NAME = re.compile(r"[0-9a-z_-]+")


def is_name(text: str) -> bool:
    """Whether `text` may be used in a key, a source name or a shard name: `[0-9a-z_-]+` alone."""
    return _NAME.fullmatch(text) is not None


def modality_folder(modality: str) -> str:
    """The folder name of a modality below `shards/<source>/`, e.g. `x-ray` for `X-Ray`."""
    return modality.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexRow:
    """One sample of the index.

    Attributes:
        key: `<source>-<first 16 hex of the pixel SHA-256>`, plus a disambiguator where needed; unique in a dataset.
        source: Source id, `[0-9a-z_-]+`.
        modality: One of `MODALITIES`.
        anatomy: Body part, lower case; empty where unknown.
        group_id: Patient, volume or video as a keyed hash; equal ids are never deduplicated against each other.
        shard: Path of the tar below the dataset, `shards/<source>/<modality>/<id>.tar`.
        shard_row: 0-based position of the sample in its shard.
        byte_offset: First byte of the image inside the tar.
        byte_length: Length of the image in bytes.
        crc32c: CRC-32C of these bytes.
        extension: `jpg` or `png`.
        width: Stored width in pixels.
        height: Stored height in pixels.
        channels: 1 or 3.
        pixel_sha256: SHA-256 (hex) of the canonical pixels.
        raw_path: Where the image came from, an fsspec chain relative to the source's raw URL.
        raw_frame: Frame, slice or tile inside the raw file; empty for single images.
        licence: Licence of the source or the image; `unknown` where it is not known.
        bit_depth: Bits stored per raw sample.
        window_center: Centre of the intensity window applied, NaN where none was.
        window_width: Width of the intensity window applied, NaN where none was.
        job_id: The ingest job that added the row.
        burned_in: Whether text is burned into the pixels: `yes`, `no` or `unknown`; null where nobody asked.
        burned_in_by: What says so: a DICOM attribute or rule, `text detector`; empty where nothing does.
    """

    key: str
    source: str
    modality: str
    anatomy: str
    group_id: str
    shard: str
    shard_row: int
    byte_offset: int
    byte_length: int
    crc32c: int
    extension: str
    width: int
    height: int
    channels: int
    pixel_sha256: str
    raw_path: str
    raw_frame: str
    licence: str
    bit_depth: int
    window_center: float
    window_width: float
    job_id: str
    burned_in: str | None = None
    burned_in_by: str | None = None


INDEX_COLUMNS: Final = tuple(IndexRow.__dataclass_fields__)
LATER_COLUMNS: Final[frozenset[str]] = frozenset({"burned_in", "burned_in_by"})
"""Columns that the first release did not have: rows that it wrote hold null in them."""
DISTINCT_COLUMNS: Final = frozenset({"key", "pixel_sha256", "raw_path"})
"""Columns of the tables whose texts hardly ever repeat: a dictionary of them takes memory and saves nothing."""


def index_schema() -> pa.Schema:
    """The Arrow schema of `index/`, columns in the order of `IndexRow`."""
    import pyarrow as pa

    integer = {
        "shard_row": pa.int32(),
        "byte_offset": pa.int64(),
        "byte_length": pa.int64(),
        "crc32c": pa.int64(),
    }
    integer |= dict.fromkeys(("width", "height", "channels", "bit_depth"), pa.int32())
    real = dict.fromkeys(("window_center", "window_width"), pa.float64())
    types = {**dict.fromkeys(INDEX_COLUMNS, pa.string()), **integer, **real}
    return pa.schema([pa.field(name, types[name], nullable=name in LATER_COLUMNS) for name in INDEX_COLUMNS])


def rejects_schema() -> pa.Schema:
    """The Arrow schema of `rejects/`: one row a rejected image (or an unreadable raw file)."""
    import pyarrow as pa

    names = ("source", "modality", "raw_path", "raw_frame", "reason", "detail", "job_id")
    return pa.schema([pa.field(name, pa.string(), nullable=False) for name in names])


def raw_files_schema() -> pa.Schema:
    """The Arrow schema of `raw_files/`: one row per raw file and job that read it or tried to.

    `raw_path` is that of the index; `size` and `stamp` (a checksum, entity tag or time, empty where unknown) tell
    whether the file has changed; `state` is `read` or `pending`; `rules` is a digest of all but the raw data that
    decides a job's result.
    """
    import pyarrow as pa

    names = ("source", "raw_path", "stamp", "state", "rules", "job_id")
    fields = [pa.field(name, pa.string(), nullable=False) for name in names]
    return pa.schema([*fields[:2], pa.field("size", pa.int64(), nullable=False), *fields[2:]])


def withdrawn_schema() -> pa.Schema:
    """The Arrow schema of `withdrawn/`: the tombstones, one row per mark.

    `withdrawal` names the command that left the row, `kind` says what `mark` is a keyed hash of (`pixels`, `origin`,
    `group` or `asked`), `withdrawn_at` is UTC as ISO 8601, `reason` one of `WITHDRAWAL_REASONS`.
    """
    import pyarrow as pa

    names = ("withdrawal", "kind", "mark", "source", "withdrawn_at", "reason")
    return pa.schema([pa.field(name, pa.string(), nullable=False) for name in names])


def fingerprint_schema() -> pa.Schema:
    """The Arrow schema of `fingerprints/`: one row per sample.

    `phash` and `phash_centre` are 32 bytes (`ingest.picture.fingerprint`), `thumb` the 64 × 64 gray bytes.
    """
    import pyarrow as pa

    text = [pa.field(name, pa.string(), nullable=False) for name in ("key", "source", "group_id", "pixel_sha256")]
    binary = [pa.field(name, pa.binary(), nullable=False) for name in ("phash", "phash_centre", "thumb")]
    return pa.schema([*text, *binary])
