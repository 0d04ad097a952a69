"""Shards: the same bytes every time, and readable by everybody's readers."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
from PIL import Image

from shards.dataset import shard_file
from shards.dataset.shard_file import Sample, ShardWriter, read_blocks, read_samples
from shards.errors import ShardError
from tests.shards.builders import jpeg

SAMPLES = [
    Sample(key=f"alpha-{number:016x}", extension="jpg", image=jpeg(number), meta={"modality": "CT", "number": number})
    for number in range(7)
]


def write(path: Path) -> Path:
    writer = ShardWriter(path)
    for sample in SAMPLES:
        writer.add(sample)
    writer.close()
    return path


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    assert write(tmp_path / "a.tar").read_bytes() == write(tmp_path / "b.tar").read_bytes()


@pytest.mark.parametrize("size", [0, 1, 511, 123_456])
def test_headers_are_those_of_the_standard_library(tmp_path: Path, size: int) -> None:
    key = "k" * 80 + str(size)
    with ShardWriter(tmp_path / "a.tar") as writer:
        writer.add(Sample(key=key, extension="png", image=b"\1" * size, meta={}))
        writer.close()
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in ((f"{key}.png", b"\1" * size), (f"{key}.json", b"{}")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert (tmp_path / "a.tar").read_bytes() == plain.getvalue()


def test_a_key_too_long_for_a_tar_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="too long"), ShardWriter(tmp_path / "a.tar") as writer:
        writer.add(Sample(key="k" * 99, extension="png", image=b"1", meta={}))


def test_a_durable_shard_has_the_same_bytes(tmp_path: Path) -> None:
    large = Sample(key="large", extension="png", image=bytes(3 << 20), meta={})
    for durable in (False, True):
        with ShardWriter(tmp_path / f"{durable}.tar", durable=durable) as writer:
            for _ in range(7):
                writer.add(large)
            assert writer.close().size == (tmp_path / f"{durable}.tar").stat().st_size
    assert (tmp_path / "True.tar").read_bytes() == (tmp_path / "False.tar").read_bytes()


def test_placements_point_at_the_images(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / "a.tar")
    placements = [writer.add(sample) for sample in SAMPLES]
    shard = writer.close()
    content = (tmp_path / "a.tar").read_bytes()
    assert shard.size == len(content)
    assert shard.num_samples == 7
    for row, (sample, placement) in enumerate(zip(SAMPLES, placements, strict=True)):
        image = content[placement.byte_offset : placement.byte_offset + placement.byte_length]
        assert image == sample.image
        assert google_crc32c.value(image) == placement.crc32c
        assert placement.shard_row == row


def test_reading_gives_back_what_was_written(tmp_path: Path) -> None:
    with write(tmp_path / "a.tar").open("rb") as stream:
        assert list(read_samples(stream)) == SAMPLES


def test_samples_copied_as_they_lie_make_the_same_shard(tmp_path: Path) -> None:
    whole, chosen = write(tmp_path / "a.tar"), [0, 2, 3, 6]
    with ShardWriter(tmp_path / "fresh.tar") as writer:
        fresh = [writer.add(SAMPLES[row]) for row in chosen]
        writer.close()
    with ShardWriter(tmp_path / "copied.tar") as writer, whole.open("rb") as stream:
        blocks = list(read_blocks(stream))
        copied = [writer.add_block(blocks[row]) for row in chosen]
        writer.close()
    assert [block.key for block in blocks] == [sample.key for sample in SAMPLES]
    assert copied == fresh
    assert (tmp_path / "copied.tar").read_bytes() == (tmp_path / "fresh.tar").read_bytes()


@pytest.mark.parametrize("cut", [100, 512, 700, 3000, None])
def test_no_block_of_a_cut_shard_is_taken_for_the_last(tmp_path: Path, cut: int | None) -> None:
    content = write(tmp_path / "a.tar").read_bytes().rstrip(b"\0")
    with pytest.raises(ShardError, match=r"c\.tar"):
        list(read_blocks(io.BytesIO(content[:cut]), name="c.tar"))


@pytest.mark.parametrize("at", [3, 130, 150, 156, 300])
def test_a_damaged_header_is_an_error(tmp_path: Path, at: int) -> None:
    content = bytearray(write(tmp_path / "a.tar").read_bytes())
    content[at] ^= 0x81
    with pytest.raises(ShardError, match="no shard has"):
        list(read_blocks(io.BytesIO(content)))


def test_plain_tar_tools_read_it(tmp_path: Path) -> None:
    with tarfile.open(write(tmp_path / "a.tar")) as tar:
        assert tar.getnames()[:2] == [f"{SAMPLES[0].key}.jpg", f"{SAMPLES[0].key}.json"]
        assert {member.mtime for member in tar.getmembers()} == {0}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.torch
def test_webdataset_reads_every_sample(tmp_path: Path) -> None:
    import webdataset

    shard = write(tmp_path / "a.tar")
    read = list(webdataset.WebDataset(str(shard), shardshuffle=False).decode("pil"))
    assert [sample["__key__"] for sample in read] == [sample.key for sample in SAMPLES]
    for sample, expected in zip(read, SAMPLES, strict=True):
        assert sample["json"] == dict(expected.meta)
        assert sample["jpg"].tobytes() == Image.open(io.BytesIO(expected.image)).convert("RGB").tobytes()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_hugging_face_datasets_reads_every_sample(tmp_path: Path) -> None:
    import datasets

    shard = write(tmp_path / "a.tar")
    stream = datasets.load_dataset(
        "webdataset", data_files={"train": str(shard)}, split="train", streaming=True, cache_dir=str(tmp_path)
    )
    read = list(stream)
    assert [sample["__key__"] for sample in read] == [sample.key for sample in SAMPLES]
    assert [sample["json"]["number"] for sample in read] == list(range(7))


@pytest.mark.parametrize(("key", "extension"), [("a.b", "jpg"), ("Alpha", "jpg"), ("a/b", "jpg"), ("a", "gif")])
def test_names_that_readers_would_split_differently_are_refused(tmp_path: Path, key: str, extension: str) -> None:
    with pytest.raises(ShardError, match="is no sample name"), ShardWriter(tmp_path / "a.tar") as writer:
        writer.add(Sample(key=key, extension=extension, image=b"x", meta={}))
    assert not (tmp_path / "a.tar").exists()


@pytest.mark.parametrize("cut", [100, 700, 3000])
def test_a_cut_shard_is_an_error(tmp_path: Path, cut: int) -> None:
    content = write(tmp_path / "a.tar").read_bytes()
    whole = len(json.dumps({})) + sum(len(sample.image) for sample in SAMPLES)
    assert cut < whole
    with pytest.raises(ShardError, match=r"c\.tar"):
        list(read_samples(io.BytesIO(content[:cut]), name="c.tar"))


def test_an_image_without_its_json_is_an_error() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("a.jpg", "b.jpg", "b.json"):
            info = tarfile.TarInfo(name)
            info.size = 2
            tar.addfile(info, io.BytesIO(b"{}"))
    with pytest.raises(ShardError, match=r"unexpected member b\.jpg"):
        list(read_samples(io.BytesIO(buffer.getvalue())))


class _Full:
    """A file on a disk that is full for a while: it takes a part of a write, then none."""

    def __init__(self, file: Any, *, refusals: int) -> None:
        self._file = file
        self.refusals = refusals

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: memoryview) -> int:
        if len(data) > 100 and self.refusals:
            return int(self._file.write(data[:100]))
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.ENOSPC, "full")
        return int(self._file.write(data))


def test_a_disk_that_is_full_for_a_moment_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_file, "_FULL_DISK_PAUSE_SECONDS", 0.0)
    made = []
    for name, refusals in (("a.tar", 0), ("b.tar", 5)):
        with ShardWriter(tmp_path / name) as writer:
            writer._file = _Full(writer._file, refusals=refusals)
            writer.add(Sample(key="k", extension="jpg", image=b"x" * 5000, meta={}))
            made.append(writer.close())
    assert made[0].sha256 == made[1].sha256
    for shard in made:
        data = shard.path.read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (shard.size, shard.sha256)


def test_a_disk_that_stays_full_is_an_error_and_the_shard_of_no_more_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_file, "_FULL_DISK_SECONDS", 0.0)
    sample = Sample(key="k", extension="jpg", image=b"x" * 5000, meta={})
    with ShardWriter(tmp_path / "a.tar") as writer:
        whole = writer._file
        writer._file = _Full(whole, refusals=10)
        with pytest.raises(OSError, match="full"):
            writer.add(sample)
        writer._file = whole
        with pytest.raises(ShardError, match="could not be written"):
            writer.add(sample)
        with pytest.raises(ShardError, match="could not be written"):
            writer.close()
    assert not (tmp_path / "a.tar").exists()
