"""A task made of a lock and a table of labels: the same kind of thing as a MedMNIST task, for the same probes.

Images are streamed once, cut to squares, and kept as one uint8 array in the cache, mapped when it is read; they are
ordered by split and key, so that a split is a slice.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from eval.labelled.splits import check_splits, split_groups
from eval.labelled.table import By, LabelTable
from eval.medmnist.data import SPLITS, Split, SplitName, Task
from eval.medmnist.tasks import MULTI_LABEL
from eval.probes.features import feature_cache
from shards.dataset import Dataset
from shards.decode import Crops
from shards.errors import ConfigError
from shards.files import mapped_array
from shards.stream import Stream

_BATCH: Final = 64
_JOINS: Final = {
    "key": "samples.key = labels.id",
    "group_id": "samples.group_id = labels.id",
    "raw_path": (
        "regexp_extract(samples.raw_path, '[^/]*$') = regexp_extract(labels.id, '[^/]*$')"
        " AND (samples.raw_path = labels.id OR ends_with(samples.raw_path, '/' || labels.id))"
    ),
}
"""How a table's rows find their images; a raw path may be given from any folder on."""
Resolve = Callable[[Dataset, Sequence[str], By, int | None], pa.Table]
"""Finds the samples of identifiers in a version of the index (None: the newest): rows of `key` and `place`, the
position of the identifier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledSamples:
    """What a table says of a lock's samples.

    Attributes:
        keys: (N,) sample keys, ordered by split and key.
        rows: (N,) rows of the label table.
        splits: (N,) train, val or test.
        groups: (N,) number of each sample's group; one of its own where it has none.
    """

    keys: list[str]
    rows: npt.NDArray[np.int64]
    splits: list[SplitName]
    groups: npt.NDArray[np.int64]


def load_labelled(
    lock: Path | str,
    table: LabelTable,
    *,
    size_px: int,
    seed: int = 0,
    cache: Path | None = None,
    dataset: str | None = None,
    resolve: Resolve | None = None,
) -> Task:
    """Make a task.

    Args:
        lock: A lock file, or a dataset.
        table: From `eval.labelled.table.read_labels`.
        size_px: Edge of the square that is cut from the middle of each image, the short side resized to it.
        seed: Of the splits, where the table has none.
        cache: Folder for the images; None takes `eval.probes.features.feature_cache()`.
        dataset: Where the lock's dataset lies now.
        resolve: Finds the samples of the table's identifiers where the index holds keyed hashes of them; without it
            they are compared as they stand.

    Raises:
        ConfigError: No image has a label, or a group is on two sides.
        BiovfmError: The lock does not match its dataset, or an image cannot be read.
    """
    crops = Crops(size_px=size_px, kind="center", interpolation="bicubic")
    once: dict[str, Any] = {"last": "pad", "on_bad": "raise", "num_epochs": 1, "mode": "exact"}
    with Stream(lock, dataset=dataset, crops=[crops], global_batch=_BATCH, **once) as stream:
        samples = _find(stream, table, seed, resolve or _compare)
        facts = [stream.plan.digests.samples, size_px, samples.keys, samples.splits, table.class_names]
        facts.append(table.labels[samples.rows].tolist())
        digest = hashlib.sha256(repr(facts).encode()).hexdigest()
        images = _images(stream, samples.keys, size_px, (cache or feature_cache()) / "images" / f"{digest}.npy")
    labels = np.ascontiguousarray(table.labels[samples.rows], dtype=np.int64)

    def split(name: SplitName) -> Split:
        start = samples.splits.index(name) if name in samples.splits else 0
        chosen = slice(start, start + samples.splits.count(name))
        groups = samples.groups[chosen]
        alone = len(np.unique(groups)) == len(groups)
        return Split(images=images[chosen], labels=labels[chosen], groups=None if alone else groups)

    return Task(
        name=table.path.stem,
        kind=table.kind,
        size_px=size_px,
        class_names=table.class_names,
        origin=f"{table.path} on {lock}",
        digest=digest,
        train=split("train"),
        val=split("val"),
        test=split("test"),
    )


def _compare(dataset: Dataset, ids: Sequence[str], by: By, version: int | None) -> pa.Table:
    labels = pa.table({"id": list(ids), "place": np.arange(len(ids))})
    sql = f"SELECT key, place FROM samples JOIN labels ON {_JOINS[by]}"  # noqa: S608
    return dataset.query(sql, version=version, labels=labels)


def _find(stream: Stream, table: LabelTable, seed: int, resolve: Resolve) -> LabelledSamples:
    """The labelled samples of the stream's plan, in their splits."""
    log = logging.getLogger(__name__)
    ids = table.ids
    version = stream.plan.version if stream.plan.version >= 0 else None  # that of the lock, whatever has gone since
    found = stream.dataset.query(
        "SELECT key, group_id, place FROM samples JOIN hits USING (key) ORDER BY key, place",
        version=version,
        hits=resolve(stream.dataset, ids, table.by, version),
    )
    keys, groups, rows = (found[name].to_pylist() for name in ("key", "group_id", "place"))
    inside = set(_keys_of(stream))
    kept = [place for place, key in enumerate(keys) if key in inside]
    if not kept:
        raise ConfigError(
            f"{table.path}: none of its {len(ids)} labelled rows names an image of the lock by {table.by}",
            hint="groups, and raw paths of sources that are not public, are keyed hashes: set BIOVFM_SECRET to the "
            "secret that made them, or compare the column with `biovfm stream LOCK --keys`",
        )
    if len({keys[place] for place in kept}) < len(kept):
        raise ConfigError(f"{table.path}: two rows name one image by {table.by}", hint="write longer paths, or keys")
    unused = len(ids) - len({rows[place] for place in kept})
    if unused or table.num_unlabelled:
        log.warning("%s: %d rows name no image of the lock, %d have no label", table.path, unused, table.num_unlabelled)
    alone = sum(not groups[place] for place in kept)
    if alone:
        log.warning("%d of %d images have no group and are split one by one", alone, len(kept))
    members = [groups[place] or f"key {keys[place]}" for place in kept]
    chosen = np.array([rows[place] for place in kept], dtype=np.int64)
    if table.splits:
        splits = [cast("SplitName", table.splits[row]) for row in chosen]
        check_splits(members, splits)
    else:
        strata = [0] * len(kept) if table.kind == MULTI_LABEL else table.labels[chosen, 0].tolist()
        splits = split_groups(members, strata, seed=seed)
    number = {name: position for position, name in enumerate(SPLITS)}
    order = sorted(range(len(kept)), key=lambda place: (number[splits[place]], keys[kept[place]]))
    return LabelledSamples(
        keys=[keys[kept[place]] for place in order],
        rows=chosen[order],
        splits=[splits[place] for place in order],
        groups=np.unique(np.array(members, dtype=np.str_), return_inverse=True)[1].astype(np.int64)[order],
    )


def _keys_of(stream: Stream) -> list[str]:
    """All keys of the stream's plan."""
    return [key for rows in stream.plan.source.rows(range(len(stream.plan.shards))) for key in rows.keys]


def _images(stream: Stream, keys: list[str], size_px: int, path: Path) -> npt.NDArray[np.uint8]:
    """(N, S, S, 3) uint8 of the keys, streamed where the cache does not have them."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial.npy")
        place = {key: number for number, key in enumerate(keys)}
        images: Any = mapped_array(partial, dtype=np.uint8, shape=(len(keys), size_px, size_px, 3))
        for batch in stream:
            for slot, key in enumerate(batch.keys):
                if key in place:
                    images[place[key]] = batch.views[0][slot, 0]
        images.flush()
        partial.replace(path)
    mapped: npt.NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped
