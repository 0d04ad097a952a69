"""An audit of a finished dataset: its near duplicates, and its overlap with evaluation sets.

The result is a keep table; nothing is deleted. A subset can leave the rows with `keep = false` out, or the sources be
ingested again with other settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ingest.duplicates.evaluation import centre_thumbs, find_overlap, load_evaluation
from ingest.duplicates.near import Thumbs, judge
from ingest.duplicates.pairs import as_hashes
from ingest.duplicates.prints import Prints, arrival, committed_thumbs, standing_of
from ingest.duplicates.volumes import Slices, collect, group_codes
from ingest.settings import DedupSettings
from shards.dataset.dataset import Dataset


class Reason(NamedTuple):
    """Why a sample goes: what stays for it, bits and correlation (0 and 0 for a slice that goes with its volume)."""

    reason: str = ""
    stays: str = ""
    bits: int = 0
    ncc: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What an audit found.

    Attributes:
        table: One row a sample: `key, source, modality, keep, reason, representative, bits, ncc`. `representative` is
            the sample that stays, or the evaluation image.
        compared: Pairs of hashes that were compared.
        skipped_buckets: Buckets that were too crowded to search.
        num_samples: Samples of the dataset.
        near_duplicates: Samples that a near-duplicate rule drops.
        eval_overlap: Samples that match an evaluation image.
    """

    table: pa.Table
    compared: int
    skipped_buckets: int
    num_samples: int
    near_duplicates: int
    eval_overlap: int


def audit(dataset: Dataset, *, settings: DedupSettings | None = None, evaluation: Sequence[str] = ()) -> Audit:
    """Search a dataset for near duplicates across groups, and for images of evaluation sets.

    The rule is that of an ingest job (`ingest.duplicates.near`): the image that came first stays.

    Args:
        dataset: The dataset; its newest version is looked at.
        settings: Radius, correlation and bucket cap.
        evaluation: MedMNIST `.npz` files.
    """
    settings = settings or DedupSettings()
    rows = _rows(dataset)
    prints = Prints(
        keys=rows["key"].to_pylist(),
        hashes=as_hashes(rows["phash"].to_pylist()),
        groups=group_codes(rows["group_id"].to_pylist()),
        places=np.stack([np.zeros(len(rows), np.int64), np.arange(len(rows), dtype=np.int64)], axis=1),
        standing=standing_of(rows),
    )

    def thumbs(positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        return _thumbs(dataset, prints.keys, positions)

    def slices_of(codes: set[int]) -> dict[int, Slices]:
        found: dict[int, Slices] = {}
        collect(found, rows, codes, kind=1)
        return found

    found = judge(prints, thumbs, slices_of, settings)
    verdicts = {p: Reason("near_duplicate", v.stays, v.bits, v.ncc) for p, v in found.verdicts.items()}
    if evaluation:
        verdicts = {**_overlap(rows, thumbs, settings, evaluation), **verdicts}
    reasons = [verdict.reason for verdict in verdicts.values()]
    return Audit(
        table=_table(rows, verdicts),
        compared=found.compared,
        skipped_buckets=found.skipped_buckets,
        num_samples=len(rows),
        near_duplicates=reasons.count("near_duplicate"),
        eval_overlap=reasons.count("eval_overlap"),
    )


def _rows(dataset: Dataset) -> pa.Table:
    """Fingerprints joined with the index, in the order in which the images came.

    A job that died in its commit may have left fingerprints that another one has brought again.
    """
    names = (
        "key",
        "source",
        "modality",
        "group_id",
        "raw_path",
        "raw_frame",
        "job_id",
        "pixel_sha256",
        "width",
        "height",
    )
    rows = dataset.query(
        f"SELECT {', '.join(f's.{name}' for name in names)}, phash, phash_centre "  # noqa: S608 - our own names
        "FROM samples s JOIN (SELECT DISTINCT ON (key, pixel_sha256) * FROM fingerprints) p "
        "ON s.key = p.key AND s.pixel_sha256 = p.pixel_sha256"
    )
    return rows.take(pa.array(arrival(dataset, rows), pa.int64()))


def _thumbs(dataset: Dataset, keys: Sequence[str], positions: NDArray[np.int64]) -> NDArray[np.uint8]:
    unique, inverse = np.unique(positions, return_inverse=True)
    found = dict(committed_thumbs(dataset, [keys[i] for i in unique]))
    return np.stack([np.frombuffer(found[keys[i]], np.uint8) for i in unique])[inverse]


def _overlap(rows: pa.Table, thumbs: Thumbs, settings: DedupSettings, evaluation: Sequence[str]) -> dict[int, Reason]:
    sizes = np.stack([rows["width"].to_numpy(), rows["height"].to_numpy()], axis=1).astype(np.int64)

    def centre(positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        return centre_thumbs(thumbs(positions), sizes[positions])

    views = [
        (as_hashes(rows["phash"].to_pylist()), thumbs),
        (as_hashes(rows["phash_centre"].to_pylist()), centre),
    ]
    matches = find_overlap(load_evaluation(evaluation), views, settings)
    return {position: Reason("eval_overlap", m.name, m.bits, m.ncc) for position, m in matches.items()}


def _table(rows: pa.Table, verdicts: Mapping[int, Reason]) -> pa.Table:
    found = [verdicts.get(position, Reason()) for position in range(len(rows))]
    table = rows.select(["key", "source", "modality"])
    table = table.append_column("keep", pa.array([not one.reason for one in found], pa.bool_()))
    table = table.append_column("reason", pa.array([one.reason for one in found], pa.string()))
    table = table.append_column("representative", pa.array([one.stays for one in found], pa.string()))
    table = table.append_column("bits", pa.array([one.bits for one in found], pa.int32()))
    table = table.append_column("ncc", pa.array([one.ncc for one in found], pa.float32()))
    return table.sort_by("key")
