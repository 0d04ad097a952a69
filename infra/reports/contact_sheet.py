"""Contact sheets: pictures of a dataset side by side, read from its shards as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from shards.dataset.dataset import Dataset
from shards.dataset.query import quote
from shards.decode import Crops, Status, open_decoder
from shards.errors import ShardError
from shards.read.locations import Location
from shards.read.remote import open_reader

TILE_PX = 96
COLUMNS = 12


def pick(dataset: Dataset, modality: str, num: int, *, job_id: str = "") -> list[dict[str, Any]]:
    """Samples of a modality to look at: from as many groups as possible, chosen by the hash of their keys.

    Args:
        dataset: The dataset.
        modality: The tag.
        num: At most so many.
        job_id: Only what this job added.
    """
    job = f"AND job_id = {quote(job_id)}" if job_id else ""
    sql = f"""SELECT key, shard, byte_offset, byte_length, crc32c, raw_path, raw_frame FROM (
            SELECT *, row_number() OVER (PARTITION BY source, group_id ORDER BY md5(key)) AS turn
            FROM samples WHERE modality = {quote(modality)} {job})
        ORDER BY turn, md5(key) LIMIT {int(num)}"""  # noqa: S608 - quoted
    rows: list[dict[str, Any]] = dataset.query(sql).to_pylist()
    return rows


def locate(dataset: Dataset, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Where samples of these keys lie."""
    sql = "SELECT key, shard, byte_offset, byte_length FROM samples WHERE list_contains(?, key)"
    rows: list[dict[str, Any]] = dataset.query(sql, params=[list(keys)]).to_pylist()
    return rows


def contact_sheet(dataset: Dataset, rows: Sequence[dict[str, Any]]) -> bytes:
    """The pictures of these rows as one JPEG, `COLUMNS` a line."""
    places = [
        Location(
            key=row["key"],
            shard=row["shard"],
            offset=row["byte_offset"],
            length=row["byte_length"],
            crc32c=row["crc32c"],
        )
        for row in rows
    ]
    blobs = [b"" if isinstance(blob, ShardError) else blob for blob in open_reader(dataset.store).read(places)]
    crops = (Crops(size_px=TILE_PX, kind="center", flip_probability=0.0),)
    out = np.zeros((len(rows), 1, TILE_PX, TILE_PX, 3), np.uint8)
    status = open_decoder().decode(blobs, np.zeros(len(rows), np.uint64), crops, (out,))
    return encode_jpeg(tile(out[status == Status.OK, 0]))


def tile(pictures: NDArray[np.uint8], *, columns: int = COLUMNS) -> NDArray[np.uint8]:
    """Pictures `(n, h, w, 3)` as one `(rows * h, columns * w, 3)`."""
    num, height, width, _ = pictures.shape
    columns = min(columns, max(num, 1))
    lines = math.ceil(num / columns) or 1
    sheet = np.zeros((lines * columns, height, width, 3), np.uint8)
    sheet[:num] = pictures
    grid = sheet.reshape(lines, columns, height, width, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(grid.reshape(lines * height, columns * width, 3))


def encode_jpeg(picture: NDArray[np.uint8]) -> bytes:
    """An RGB picture as JPEG."""
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(picture), 88, colorsubsampling="420"))
