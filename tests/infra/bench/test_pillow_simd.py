"""The comparison of two Pillows: what it calls equal, and what it counts as a difference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ingest.picture.normalise as normalise
from infra.bench import pillow_simd
from shards.dataset.dataset import Dataset
from tests.ingest.material import encoded, ingest, photo, write_folder

pytestmark = pytest.mark.slow


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "raw", {f"{i}.png": encoded(photo(i, height=700, width=600)) for i in range(3)})


def ingested(raw: Path, dataset: Path) -> str:
    Dataset.create(str(dataset), encoding={"format": "png"})
    assert ingest(raw, dataset).kept == 3
    return str(dataset)


def test_the_same_pillow_gives_the_same_samples(raw: Path, tmp_path: Path) -> None:
    found = pillow_simd.compare(ingested(raw, tmp_path / "a"), ingested(raw, tmp_path / "b"))
    assert (found["samples"], found["same_keys"], found["equal_files"]) == (3, True, 3)
    assert (found["largest_difference"], found["share_of_values_that_differ"]) == (0, 0.0)


def test_rounding_of_the_resampling_is_seen_and_keys_stay(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ingested(raw, tmp_path / "a")
    real = normalise.reduce

    def rounds_otherwise(*arguments: object, **named: object) -> object:
        reduced = real(*arguments, **named)  # type: ignore[arg-type]
        pixels = np.array(reduced.image)
        pixels[0, :10] ^= 1
        return replace(reduced, image=Image.fromarray(pixels))

    monkeypatch.setattr("ingest.job.map.reduce", rounds_otherwise)
    found = pillow_simd.compare(first, ingested(raw, tmp_path / "b"))
    assert (found["same_keys"], found["equal_files"], found["largest_difference"]) == (True, 0, 1)


def test_environments_get_the_core_dependencies_only() -> None:
    names = {text.partition("==")[0].lower() for text in pillow_simd._core_requirements()}
    assert {"pillow", "pydicom", "deltalake"} <= names
    assert not names & {"torch", "ray", "timm", "pytest"}
