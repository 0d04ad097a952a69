"""The encoding policy: from the command line into `dataset.json`, and what it makes of pictures."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from infra.cli import main
from ingest.job.run import run_job
from ingest.job.target import Target, open_target
from ingest.picture.encoding import Encoding
from ingest.picture.normalise import encode, reduce, to_picture
from ingest.raw.items import RawFile
from ingest.readers import RawImage, ReadOptions
from ingest.readers.images import read
from shards.dataset.dataset import Dataset
from shards.dataset.shard_file import read_samples
from shards.decode import native_decoder
from shards.decode.native_decoder import NativeUnavailableError, load
from shards.errors import BiovfmError, ConfigError
from tests.ingest.material import encoded, photo, public_spec, write_folder
from tests.shards.decode.images import jpeg_kinds, picture


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


@pytest.mark.slow
def test_a_new_dataset_gets_the_policy_that_is_asked_for(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = tmp_path / "d"
    assert main(words(raw, dataset, "short_side_px=48", "format=png")) == 0
    policy = {**Encoding.of_new_dataset({}).model_dump(), "short_side_px": 48, "format": "png"}
    assert json.loads((dataset / "dataset.json").read_text())["encoding"] == policy
    images = [Image.open(io.BytesIO(data)) for data in stored(dataset)]
    assert [(image.format, min(image.size)) for image in images] == [("PNG", 48)] * 3
    capsys.readouterr()
    assert main(["stats", str(dataset), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["encoding"] == policy
    assert main(["stats", str(dataset)]) == 0
    assert "encoding: format=png, jpeg_quality=95, resampler=native, short_side_px=48" in capsys.readouterr().out


@pytest.mark.slow
def test_a_dataset_keeps_its_policy(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = tmp_path / "d"
    assert main(words(raw, dataset, "short_side_px=48")) == 0
    assert main(words(raw, dataset, "short_side_px=48", "jpeg_quality=95")) == 0
    assert main(words(raw, dataset)) == 0
    capsys.readouterr()
    before = sorted(dataset.rglob("*"))
    assert main(words(raw, dataset, "short_side_px=256", "jpeg_quality=95")) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
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
        ("format=[", "--encoding format=[ is not valid YAML"),
    ],
)
def test_mistakes_are_found_before_anything_is_made(
    text: str, says: str, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(raw, tmp_path / "d", text)) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert says in line
    assert not (tmp_path / "d").exists()


def test_a_dataset_of_before_resamplers_is_pillows_and_its_jobs_keep_their_ids() -> None:
    old = Encoding.of_dataset({"encoding": {"short_side_px": 512, "jpeg_quality": 95, "format": "auto"}})
    assert old == Encoding(resampler="pillow")
    assert old.identity() == {"short_side_px": 512, "jpeg_quality": 95, "format": "auto"}
    assert Encoding(resampler="native").identity() != old.identity()


def test_a_policy_of_a_later_release_is_refused(tmp_path: Path) -> None:
    Dataset.create(str(tmp_path / "d"), encoding={"dither": True})
    with pytest.raises(ConfigError, match=r"unknown key 'dither'.* use the release that made the dataset"):
        open_target(str(tmp_path / "d"))


def is_native_here() -> bool:
    try:
        load()
    except NativeUnavailableError:
        return False
    return True


needs_extension = pytest.mark.skipif(not is_native_here(), reason="the extension is not built")


def test_native_without_the_extension_is_an_error_and_makes_no_dataset(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Dataset.create(str(tmp_path / "old"), encoding={"resampler": "native"})
    load.cache_clear()
    monkeypatch.setattr(native_decoder, "LIBRARY", "not_there.so")
    try:
        for name, asked in (("new", {"resampler": "native"}), ("old", None)):
            with pytest.raises(ConfigError, match="wants the native resampler, which cannot be used: it was not built"):
                run_job(public_spec(), str(raw), str(tmp_path / name), encoding=asked, workers=0)
    finally:
        monkeypatch.undo()
        load.cache_clear()
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "old" / "staging").exists()


def test_a_worker_without_the_extension_fails_its_unit_and_rejects_nothing(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its machine may lack what that of the command has."""
    native = Dataset.create(str(tmp_path / "d"), encoding={"resampler": "native"})
    target = Target(dataset=native, encoding=Encoding(resampler="native"), pipeline_version=3, is_pinned=True)
    monkeypatch.setattr("ingest.job.run.open_target", lambda *_: target)
    monkeypatch.setattr(native_decoder, "LIBRARY", "not_there.so")
    load.cache_clear()
    try:
        with pytest.raises(BiovfmError, match="native resampler"):
            run_job(public_spec(), str(raw), native.url, workers=0)
    finally:
        monkeypatch.undo()
        load.cache_clear()
    assert native.table("rejects") is None


@needs_extension
@pytest.mark.parametrize("format_", ["auto", "png"])
@pytest.mark.parametrize("channels", [1, 3])
def test_native_stores_what_pillow_does_within_rounding(channels: int, format_: str) -> None:
    pixels = photo(1, height=300, width=451, channels=channels)
    for side in (97, 512):
        images = []
        for resampler in ("pillow", "native"):
            policy = Encoding.model_validate({"short_side_px": side, "format": format_, "resampler": resampler})
            reduced = reduce(pixels, policy)
            stored = encode(reduced, policy)
            image = Image.open(io.BytesIO(stored.data))
            assert (stored.width, stored.height, stored.channels) == (*image.size, len(image.getbands()))
            assert reduced.gray.shape == (stored.height, stored.width)
            assert stored.channels == channels
            images.append(np.asarray(image).astype(int))
        difference = np.abs(images[0] - images[1])
        assert difference.max() <= (2 if format_ == "png" else 8)
        assert difference.mean() < (0.05 if format_ == "png" else 1)


def one(data: bytes, *, straight: bool) -> RawImage:
    (image,) = read(RawFile.of_bytes(data, "x.jpg"), ReadOptions(straight=straight))
    return image


def test_jpegs_read_straight_have_pillows_pixels() -> None:
    """Of one release of libjpeg-turbo each; both carry their own."""
    blobs = [
        blob for k, size in enumerate([(90, 130), (33, 47), (64, 8)]) for blob in jpeg_kinds(picture(*size, k)).values()
    ]
    read_straight = 0
    for blob in blobs:
        by_pillow, straight = one(blob, straight=False), one(blob, straight=True)
        np.testing.assert_array_equal(to_picture(straight), to_picture(by_pillow))
        assert straight.jpeg == by_pillow.jpeg
        read_straight += straight.source is None
    assert read_straight > len(blobs) // 2


@pytest.mark.slow
def test_photographs_read_straight_have_pillows_pixels() -> None:
    """Out of cameras, with their profiles and thumbnails; the files come with scikit-learn."""
    folder = Path(pytest.importorskip("sklearn").__file__).parent / "datasets" / "images"
    files = sorted(folder.glob("*.jpg"))
    assert files
    for file in files:
        by_pillow, straight = (one(file.read_bytes(), straight=way) for way in (False, True))
        assert straight.source is None
        np.testing.assert_array_equal(straight.pixels, by_pillow.pixels)


@pytest.mark.parametrize("kind", ["turned", "inks", "cut"])
def test_odd_jpegs_stay_with_pillow(kind: str) -> None:
    pixels: NDArray[np.uint8] = photo(3)
    if kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        data = encoded(pixels, "JPEG", exif=exif)
        assert to_picture(one(data, straight=True)).shape == (128, 96, 3)
    elif kind == "inks":
        buffer = io.BytesIO()
        Image.fromarray(pixels).convert("CMYK").save(buffer, "JPEG")
        found = [to_picture(one(buffer.getvalue(), straight=way)) for way in (False, True)]
        np.testing.assert_array_equal(*found)
    else:
        data = encoded(pixels, "JPEG")
        with pytest.raises(OSError, match="truncated"):
            one(data[: len(data) // 2], straight=True)


@pytest.mark.slow
@needs_extension
def test_a_native_dataset_from_the_command_line(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(raw, tmp_path / "d", "short_side_px=48", "resampler=native")) == 0
    assert main(words(raw, tmp_path / "e", "short_side_px=48")) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["kept"] == 3
    for mine, pillows in zip(stored(tmp_path / "d"), stored(tmp_path / "e"), strict=True):
        a, b = (np.asarray(Image.open(io.BytesIO(data))).astype(int) for data in (mine, pillows))
        assert np.abs(a - b).max() <= 8
