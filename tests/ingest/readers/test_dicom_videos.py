"""Videos inside DICOM files: endoscopes and ultrasound scanners store MPEG-2 and H.264 so."""

from __future__ import annotations

import io
import sys
from typing import Any

import av
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

from ingest.raw.items import RawFile, RejectError
from ingest.readers import RawImage, ReadOptions
from ingest.readers.dicom.read import read
from ingest.settings import LimitSettings
from ingest.source.layout import FrameRule
from shards.errors import LibraryError
from tests.ingest.material import photo

SECONDS, RATE = 3, 10
BARE_RATE = 25
"""What a stream without time stamps is taken to have."""

SCENES = [photo(seed, height=96, width=128) for seed in range(SECONDS)]
WAYS = {
    "MPEG-2, bare": ("1.2.840.10008.1.2.4.100", "mpeg2video", "mpeg2video"),
    "MPEG-2, transport stream": ("1.2.840.10008.1.2.4.101", "mpeg2video", "mpegts"),
    "H.264, bare": ("1.2.840.10008.1.2.4.102", "libx264", "h264"),
    "H.264, container": ("1.2.840.10008.1.2.4.102.1", "libx264", "mp4"),
    "H.265, container": ("1.2.840.10008.1.2.4.107", "libx265", "mp4"),
}


def film(codec: str, container_format: str) -> bytes:
    """Three seconds, each of another scene."""
    rate = BARE_RATE if container_format in ("h264", "mpeg2video") else RATE
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container_format) as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for scene in SCENES:
            for _ in range(rate):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(scene, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def dicom(syntax: str, stream: bytes, *, fragments: int = 1, frames: int = SECONDS * RATE) -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.1.1"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.StudyInstanceUID, dataset.Modality, dataset.NumberOfFrames = "1.9", "ES", frames
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 96, 128, 3
    dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "YBR_PARTIAL_420", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    step = -(-len(stream) // fragments)
    step += step % 2
    parts = [stream[at : at + step] for at in range(0, len(stream), step)]
    dataset.PixelData = encapsulate(parts, has_bot=False)
    dataset["PixelData"].is_undefined_length = True
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def images(data: bytes, **options: Any) -> list[RawImage]:
    return list(read(RawFile.of_bytes(data, "a.dcm"), ReadOptions(**options)))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fragments", [1, 4])
def test_a_video_is_sampled_with_what_its_header_says(way: str, fragments: int) -> None:
    syntax, codec, container_format = WAYS[way]
    found = images(dicom(syntax, film(codec, container_format), fragments=fragments))
    assert len(found) in (SECONDS, SECONDS + 1)  # the first stamp of an MPEG-2 stream is that of its second frame
    rate = BARE_RATE if container_format in ("h264", "mpeg2video") else RATE
    for image in found:
        scene = SCENES[int(image.frame[1:]) // rate]
        assert np.abs(image.pixels.astype(int) - scene).mean() < 12
        assert (image.modality, image.group, image.part_of_volume) == ("Endoscopy", "1.9", True)
        assert image.burned_in.value == "unknown"
    assert found[0].frame == "f000000"


def test_the_frame_rule_is_that_of_videos() -> None:
    data = dicom("1.2.840.10008.1.2.4.102.1", film("libx264", "mp4"))
    assert len(images(data, frames=FrameRule(frames_per_second=2))) == 2 * SECONDS
    assert [image.frame for image in images(data, frames=FrameRule(max_frames=2))] == ["f000000", "f000010"]


def test_the_number_of_frames_is_no_matter_of_memory() -> None:
    data = dicom("1.2.840.10008.1.2.4.102.1", film("libx264", "mp4"), frames=1_000_000)
    assert len(images(data, limits=LimitSettings(max_voxels=1 << 20))) == SECONDS


def test_what_is_no_video_or_cut_has_a_reason() -> None:
    with pytest.raises(RejectError) as caught:
        images(dicom("1.2.840.10008.1.2.4.102", bytes(5000)))
    assert caught.value.reason in ("unreadable", "undecodable", "no_image")


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dicom("1.2.840.10008.1.2.4.102", film("libx264", "mp4"))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(LibraryError, match="a video in DICOM needs av") as caught:
        images(data)
    assert "pip install 'biovfm[video]'" in str(caught.value.hint)
