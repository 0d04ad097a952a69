"""Fingerprints side by side."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ingest.duplicates.prints import Prints, standing_of


def prints(*keys: str, unit: int) -> Prints:
    count = len(keys)
    return Prints(
        keys=list(keys),
        hashes=np.full((count, 4), unit, np.uint64),
        groups=np.arange(count),
        places=np.array([(unit, row) for row in range(count)], np.int64).reshape(-1, 2),
        standing=np.zeros((count, 3), np.int64),
    )


def test_a_sum_keeps_the_order() -> None:
    both = prints("a", "b", unit=1) + prints("c", unit=2) + prints(unit=3)
    assert both.keys == ["a", "b", "c"]
    assert both.hashes[:, 0].tolist() == [1, 1, 2]
    assert both.places.tolist() == [[1, 0], [1, 1], [2, 0]]
    assert len(both.groups) == len(both.standing) == 3


def test_numbered_files_of_one_folder_stand_beside_each_other_and_frames_do_not() -> None:
    paths, frames = ["x/img_007.png", "x/img_008.png", "y/img_008.png", "x/v.nii"], ["", "", "", "z0001"]
    table = pa.table({"source": ["s"] * 4, "raw_path": paths, "raw_frame": frames})
    first, second, other, volume = standing_of(table).tolist()
    assert first[:2] == second[:2] != other[:2]
    assert second[2] - first[2] == 1
    assert volume not in (first, second, other)
