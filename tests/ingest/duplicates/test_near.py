"""Near duplicates: the search against brute force, and the rule in a job."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ingest.duplicates.near import closest_pairs, find_losers
from ingest.duplicates.pairs import EXACT_RADIUS, as_hashes, bands_of, correlation, distance, near_pairs
from ingest.picture.fingerprint import fingerprint
from tests.ingest.material import encoded, ingest, photo, public_spec, tables, write_folder


def brute_force(hashes: Any, groups: Any, radius: int) -> set[tuple[int, int]]:
    bits = distance(hashes[:, None], hashes[None, :])
    near = np.triu(bits <= radius, 1) & (groups[:, None] != groups[None, :])
    return {(int(a), int(b)) for a, b in np.argwhere(near)}


def crowd(seed: int, count: int = 400) -> Any:
    """Hashes with copies at 0 to 7 bits and with one crowded band."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 1 << 64, (count, 4), dtype=np.uint64)
    bands_of(hashes)[: count // 2, 3] = 77
    for row in range(count // 2, count):
        hashes[row] = hashes[rng.integers(0, count // 2)]
        for bit in rng.choice(256, rng.integers(0, EXACT_RADIUS + 1), replace=False):
            hashes[row, bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    return hashes, rng.integers(0, 50, count).astype(np.int64)


@pytest.mark.parametrize("cap", [1000, 20])
@pytest.mark.parametrize("seed", range(3))
def test_all_pairs_within_the_exact_radius_are_found_crowded_or_not(seed: int, cap: int) -> None:
    hashes, groups = crowd(seed)
    found = near_pairs(hashes, groups, radius=EXACT_RADIUS, bucket_cap=cap)
    assert set(zip(found.first.tolist(), found.second.tolist(), strict=True)) == brute_force(hashes, groups, 7)
    assert found.skipped_buckets == 0
    assert (distance(hashes[found.first], hashes[found.second]) == found.bits).all()


def test_parts_searched_one_by_one_give_the_whole() -> None:
    hashes, groups = crowd(9)
    whole = near_pairs(hashes, groups, radius=12)
    parts = [near_pairs(hashes, groups, radius=12, num_parts=5, parts=range(i, i + 1)) for i in range(5)]
    pairs = set().union(*(set(zip(p.first.tolist(), p.second.tolist(), strict=True)) for p in parts))
    assert pairs == set(zip(whole.first.tolist(), whole.second.tolist(), strict=True))


def test_what_even_the_second_cut_cannot_thin_is_reported() -> None:
    hashes = np.zeros((50, 4), np.uint64)
    found = near_pairs(hashes, np.arange(50), bucket_cap=20)
    assert found.skipped_buckets > 0
    assert found.skipped_rows >= 50
    assert len(found.first) == 0


def test_nothing_to_search() -> None:
    empty = near_pairs(np.empty((0, 4), np.uint64), np.empty(0, np.int64))
    assert len(empty.first) == 0
    same_group = near_pairs(np.zeros((9, 4), np.uint64), np.zeros(9, np.int64))
    assert len(same_group.first) == 0


def copies(pixels: Any) -> dict[str, Any]:
    """Copies as they really occur: re-encoded, resized, squashed."""
    image = Image.fromarray(pixels)
    width, height = image.size
    low = io.BytesIO()
    image.save(low, "JPEG", quality=50)
    return {
        "jpeg": np.asarray(Image.open(low)),
        "half": np.asarray(image.resize((width // 2, height // 2), Image.Resampling.BICUBIC)),
        "double": np.asarray(image.resize((width * 2, height * 2), Image.Resampling.BICUBIC)),
        "square": np.asarray(image.resize((128, 128), Image.Resampling.BICUBIC)),
    }


def detailed(seed: int) -> Any:
    """A picture with detail at all scales, as photographs have."""
    rng = np.random.default_rng(seed)
    out = np.zeros((192, 256))
    for side in (4, 8, 16, 32, 64):
        noise = Image.fromarray(rng.normal(0, 1, (side * 3 // 4, side)).astype(np.float32))
        out += np.asarray(noise.resize((256, 192), Image.Resampling.BICUBIC)) / side**0.5
    return np.clip(128 + 60 * out, 0, 255).astype(np.uint8)


def test_hashes_of_copies_are_near_and_of_others_far() -> None:
    originals = [detailed(seed) for seed in range(20)]
    prints = [fingerprint(picture) for picture in originals]
    hashes = as_hashes([p.whole for p in prints])
    far = distance(hashes[:, None], hashes[None, :])[np.triu_indices(20, 1)]
    assert far.min() > 60
    for original, p in zip(originals, prints, strict=True):
        for name, copy in copies(original).items():
            q = fingerprint(copy)
            assert distance(as_hashes([p.whole]), as_hashes([q.whole]))[0] <= 16, name
            assert correlation(p.thumb.reshape(1, -1), q.thumb.reshape(1, -1))[0] > 0.99, name


def test_symmetric_pictures_do_not_hash_noise() -> None:
    half = detailed(3)[:, :128]
    symmetric = np.hstack([half, half[:, ::-1]])
    p = fingerprint(symmetric)
    for name, copy in copies(symmetric).items():
        assert distance(as_hashes([p.whole]), as_hashes([fingerprint(copy).whole]))[0] <= 16, name


@pytest.mark.slow
def test_copies_of_other_groups_are_dropped_and_neighbours_of_one_group_are_not(tmp_path: Path) -> None:
    files = {}
    for seed in range(4):
        picture = detailed(seed)
        files[f"patient{seed}/original.png"] = encoded(picture)
        files[f"patient{seed}/neighbour.png"] = encoded(np.clip(picture + 1.0, 0, 255).astype(np.uint8))
        files[f"others/copy{seed}.jpg"] = encoded(picture, "JPEG", quality=60)
    raw = write_folder(tmp_path / "raw", files)
    spec = public_spec(grouping={"by": "path", "pattern": r"(patient\d)/|others/(.*)"})
    report = ingest(raw, tmp_path / "d", spec)
    assert report.reasons == {"near_duplicate": 8}
    kept = {row["raw_path"] for row in tables(tmp_path / "d")["index"]}
    assert kept == {f"others/copy{seed}.jpg" for seed in range(4)}
    off = ingest(raw, tmp_path / "off", spec, dedup={"near": False})
    assert off.kept == 12


@pytest.mark.slow
def test_committed_images_stay_and_later_copies_go(tmp_path: Path) -> None:
    first = write_folder(tmp_path / "a", {f"{seed}.png": encoded(detailed(seed)) for seed in range(6)})
    later = {f"{seed}.jpg": encoded(copies(detailed(seed))["half"], "JPEG") for seed in range(3, 9)}
    second = write_folder(tmp_path / "b", later)
    ingest(first, tmp_path / "d")
    report = ingest(second, tmp_path / "d", public_spec("later"))
    assert report.reasons == {"near_duplicate": 3}
    rows = tables(tmp_path / "d")
    keys = {row["key"] for row in rows["index"]}
    assert all(row["detail"] in keys for row in rows["rejects"])


@pytest.mark.slow
def test_fingerprints_that_a_dead_commit_left_are_not_believed(tmp_path: Path) -> None:
    from deltalake import write_deltalake

    raw = write_folder(tmp_path / "a", {f"{seed}.png": encoded(detailed(seed)) for seed in range(3)})
    ingest(raw, tmp_path / "d")
    prints = tmp_path / "d" / "fingerprints"
    ghosts = tables(tmp_path / "d")["fingerprints"]
    import pyarrow as pa

    from ingest.staging.tables import fingerprint_schema

    other = write_folder(tmp_path / "b", {"x.png": encoded(detailed(7))})
    p = fingerprint(detailed(7))
    ghost = ghosts[0] | {"key": "ghost-0", "group_id": "ab", "phash": p.whole, "thumb": p.thumb.tobytes()}
    write_deltalake(str(prints), pa.Table.from_pylist([ghost], schema=fingerprint_schema()), mode="append")
    assert ingest(other, tmp_path / "d", public_spec("other")).kept == 1


def test_photo_helper_gives_unlike_pictures() -> None:
    hashes = as_hashes([fingerprint(photo(seed)).whole for seed in range(40)])
    assert distance(hashes[:, None], hashes[None, :])[np.triu_indices(40, 1)].min() > 16


def cine(seed: int, frames: int) -> Any:
    """Frames that hardly change, as those of a still camera."""
    start, end = detailed(seed).astype(float), detailed(seed + 100).astype(float)
    return [(start + (end - start) * 0.05 * n).astype(np.uint8) for n in range(frames)]


@pytest.mark.slow
def test_a_frame_goes_for_its_own_copy_and_not_for_that_of_its_neighbour(tmp_path: Path) -> None:
    frames = cine(40, 6)
    files = {f"a/{n}.png": encoded(frame) for n, frame in enumerate(frames)}
    files |= {f"b/{n}.jpg": encoded(frame, "JPEG", quality=85) for n, frame in enumerate(frames)}
    del files["a/3.png"], files["b/4.jpg"]
    ingest(write_folder(tmp_path / "raw", files), tmp_path / "d", public_spec(grouping={"by": "folder"}))
    found = tables(tmp_path / "d")
    paths = {row["key"]: row["raw_path"] for row in found["index"]}
    gone = {row["raw_path"]: paths[row["detail"]] for row in found["rejects"]}
    assert gone == {f"b/{n}.jpg": f"a/{n}.png" for n in (0, 1, 2, 5)}


@pytest.mark.slow
def test_the_audit_says_the_same_of_a_finished_dataset(tmp_path: Path) -> None:
    from ingest.duplicates.audit import audit
    from shards.dataset.dataset import Dataset

    frames = cine(40, 6)
    files = {f"a/{n}.png": encoded(frame) for n, frame in enumerate(frames)}
    files |= {f"b/{n}.jpg": encoded(frame, "JPEG", quality=85) for n, frame in enumerate(frames)}
    raw = write_folder(tmp_path / "raw", files)
    ingest(raw, tmp_path / "d", public_spec(grouping={"by": "folder"}), dedup={"near": False})
    result = audit(Dataset.open(str(tmp_path / "d")))
    paths = {row["key"]: row["raw_path"] for row in tables(tmp_path / "d")["index"]}
    pairs = [(paths[row["key"]], paths[row["representative"]]) for row in result.table.to_pylist() if not row["keep"]]
    assert len(pairs) == 6
    assert all(gone[2] == kept[2] and gone[0] != kept[0] for gone, kept in pairs)


def test_what_is_dropped_drops_nothing() -> None:
    assert find_losers(np.array([[0, 1], [1, 2], [0, 3]]), gone=[]) == {1: 0, 3: 0}
    assert find_losers(np.array([[0, 1], [1, 2], [0, 3]]), gone=[0]) == {2: 1}


def test_of_the_pairs_with_one_group_the_best_is_left() -> None:
    pairs, scores = np.array([[0, 2], [1, 2]]), np.array([0.991, 0.9999], np.float32)
    assert closest_pairs(pairs, scores, np.array([7, 7, 8])).tolist() == [[1, 2]]
    assert closest_pairs(pairs, scores, np.array([7, 9, 8])).tolist() == [[0, 2], [1, 2]]
