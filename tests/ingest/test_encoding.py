"""The encoding policy: from the command line into `dataset.json`, and what it makes of pictures."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from infra.cli import main
from ingest.encoding import Encoding, open_dataset
from shards.dataset import ENCODING_DEFAULTS, Dataset
from shards.errors import ConfigError
from shards.tar import read_samples
from tests.ingest.material import encoded, photo, write_folder


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_folder(
        tmp_path / "raw", {f"{i}.jpg": encoded(photo(i, height=90, width=130), "JPEG") for i in range(3)}
    )


def words(raw: Path, dataset: Path, *encoding: str) -> list[str]:
    given = [word for text in encoding for word in ("--encoding", text)]
    flags = ["--modality", "Fundus", "--deidentified", "--workers", "0", "--json"]
    return ["ingest", "mine", str(raw), str(dataset), *flags, *given]


def stored(dataset: Path) -> list[bytes]:
    found = []
    for shard in sorted((dataset / "shards").rglob("*.tar")):
        with shard.open("rb") as stream:
            found += [sample.image for sample in read_samples(stream)]
    return found


def test_a_new_dataset_gets_the_policy_that_is_asked_for(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = tmp_path / "d"
    assert main(words(raw, dataset, "short_side_px=48", "format=png")) == 0
    policy = {**ENCODING_DEFAULTS, "short_side_px": 48, "format": "png"}
    assert json.loads((dataset / "dataset.json").read_text())["encoding"] == policy
    images = [Image.open(io.BytesIO(data)) for data in stored(dataset)]
    assert [(image.format, min(image.size)) for image in images] == [("PNG", 48)] * 3
    capsys.readouterr()
    assert main(["stats", str(dataset), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["encoding"] == policy
    assert main(["stats", str(dataset)]) == 0
    assert "encoding: short_side_px=48, jpeg_quality=95, format=png, resampler=pillow" in capsys.readouterr().err


def test_a_dataset_keeps_its_policy(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = tmp_path / "d"
    assert main(words(raw, dataset, "short_side_px=48")) == 0
    assert main(words(raw, dataset, "short_side_px=48", "jpeg_quality=95")) == 0
    assert main(words(raw, dataset)) == 0
    capsys.readouterr()
    before = sorted(dataset.rglob("*"))
    assert main(words(raw, dataset, "short_side_px=256", "jpeg_quality=95")) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    for part in ("is encoded with short_side_px=48, not short_side_px=256", "leave out --encoding short_side_px"):
        assert part in line
    assert sorted(dataset.rglob("*")) == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("short_side=256", "unknown key 'short_side', did you mean 'short_side_px'?"),
        ("short_side_px=small", "short_side_px: Input should be a valid integer"),
        ("jpeg_quality=101", "jpeg_quality: Input should be less than or equal to 100"),
        ("format=webp", "format: Input should be 'auto', 'jpg' or 'png'"),
        ("resampler", "--encoding resampler: expected key=value"),
        ("format=[", "--encoding format=[: the value is not valid YAML"),
    ],
)
def test_mistakes_are_found_before_anything_is_made(
    text: str, says: str, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(raw, tmp_path / "d", text)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert says in line
    assert not (tmp_path / "d").exists()


def test_the_defaults_are_stated_once_for_each_side() -> None:
    assert Encoding().model_dump() == ENCODING_DEFAULTS


def test_a_dataset_of_before_resamplers_is_pillows_and_its_jobs_keep_their_ids() -> None:
    old = Encoding.of_dataset({"encoding": {"short_side_px": 512, "jpeg_quality": 95, "format": "auto"}})
    assert old == Encoding(resampler="pillow")
    assert old.identity() == {"short_side_px": 512, "jpeg_quality": 95, "format": "auto"}
    assert Encoding(resampler="native").identity() != old.identity()


def test_a_policy_of_a_later_release_is_refused(tmp_path: Path) -> None:
    Dataset.create(str(tmp_path / "d"), encoding={"dither": True})
    with pytest.raises(ConfigError, match="unknown key 'dither'.* use the release that made the dataset"):
        open_dataset(str(tmp_path / "d"))
