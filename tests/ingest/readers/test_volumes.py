"""NIfTI, NRRD, MetaImage, HDF5, NPY, video and slides."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import Any

import h5py  # loading it asks the system what machine this is, by a process
import numpy as np
import pytest
import tifffile

from ingest.picture.normalise import to_picture
from ingest.raw.items import RawFile, RejectError
from ingest.readers import RawImage, ReadOptions, reader_for
from ingest.readers.hdf5 import root_sum_of_squares
from ingest.readers.volumes import slice_axis, to_lps
from ingest.settings import LimitSettings
from ingest.source.layout import FrameRule, Window
from tests.ingest.material import photo


def read(data: bytes, name: str, **options: Any) -> list[RawImage]:
    return list(reader_for("auto", name)(RawFile.of_bytes(data, name), ReadOptions(**options)))


def phantom() -> np.ndarray[Any, Any]:
    """`(20, 24, 6)` int16 in RAS, every voxel different: x + 100 y + 10000 z, halved to fit."""
    x, y, z = np.indices((20, 24, 6))
    return (x + 30 * y + 1000 * z).astype(np.int16)


def nifti(volume: Any, affine: Any, **options: Any) -> bytes:
    import nibabel

    return bytes(nibabel.Nifti1Image(volume, affine, **options).to_bytes())


def axial(volume: Any, z: int) -> Any:
    """Row 0 is the front (largest y of RAS), column 0 the patient's right (largest x)."""
    return volume[::-1, ::-1, z].T


def test_nifti_slices_are_the_axial_planes_whatever_the_storage_order() -> None:
    volume = phantom()
    stored = {
        "RAS": (volume, np.diag([1, 1, 3, 1])),
        "LPS": (volume[::-1, ::-1], np.diag([-1, -1, 3, 1])),
        "SAR": (volume.transpose(2, 1, 0), np.array([[0, 0, 1, 0], [0, 1, 0, 0], [3, 0, 0, 0], [0, 0, 0, 1]])),
    }
    for array, affine in stored.values():
        found = read(nifti(np.ascontiguousarray(array), affine.astype(float)), "a.nii")
        assert [image.frame for image in found] == [f"z{z:04d}" for z in range(6)]
        for z, image in enumerate(found):
            np.testing.assert_array_equal(image.pixels, axial(volume, z))
        assert len({(image.low, image.high) for image in found}) == 1


def test_nifti_gz_series_scaling_and_window() -> None:
    volume = np.stack([phantom(), phantom() + 1], axis=-1)
    data = gzip.compress(nifti(volume, np.diag([1.0, 1, 3, 1])))
    found = read(data, "a.nii.gz", frames=FrameRule(every=2), window=Window(center=1000, width=200))
    assert [image.frame for image in found] == ["t0000z0000", "t0000z0002", "t0000z0004"]
    assert (found[0].low, found[0].high, found[0].windowed) == (900, 1100, True)


def test_anisotropic_slices_are_stretched_to_square_pixels() -> None:
    data = nifti(phantom(), np.diag([1.0, 2.0, 9.0, 1.0]))
    assert read(data, "a.nii")[0].pixels.shape == (48, 20)


def test_broken_nifti_is_rejected() -> None:
    data = nifti(phantom(), np.eye(4))
    for bad, reason in ((data[:200], "unreadable"), (gzip.compress(data)[:50], "unreadable")):
        with pytest.raises(RejectError) as caught:
            read(bad, "a.nii.gz")
        assert caught.value.reason == reason
    with pytest.raises((RejectError, ValueError, OSError)):
        read(data[:-500], "a.nii")
    with pytest.raises(RejectError) as caught:
        read(gzip.compress(b"\0" * (8 << 20)), "a.nii.gz")
    assert caught.value.reason == "decompression_bomb"
    with pytest.raises(RejectError) as caught:
        read(data, "a.nii", limits=LimitSettings(max_voxels=100))
    assert caught.value.reason == "decompression_bomb"


def test_slice_axis_follows_the_widest_spacing() -> None:
    assert slice_axis((9, 9, 9), (1, 1, 1), "thinnest") == 2
    assert slice_axis((9, 9, 9), (5, 1, 1), "thinnest") == 0
    assert slice_axis((9, 9, 9), (5, 1, 1), "coronal") == 1


def test_to_lps_undoes_any_permutation_and_flip() -> None:
    volume = phantom()
    directions = np.array([[0, -1, 0], [0, 0, 1], [-1, 0, 0]])  # axes run to the front, the head, the right
    stored = volume.transpose(1, 2, 0)[::-1, :, ::-1]
    turned, spacing = to_lps(stored, directions, [2, 3, 1])
    np.testing.assert_array_equal(turned, volume)
    assert spacing == [1, 2, 3]


def test_nrrd_agrees_with_nifti(tmp_path: Path) -> None:
    import nrrd

    volume = phantom()
    header = {"space": "left-posterior-superior", "space directions": np.diag([1.0, 1.0, 3.0]), "encoding": "gzip"}
    nrrd.write(str(tmp_path / "a.nrrd"), volume[::-1, ::-1], header)
    found = read((tmp_path / "a.nrrd").read_bytes(), "a.nrrd")
    for z, image in enumerate(found):
        np.testing.assert_array_equal(image.pixels, axial(volume, z))
    with pytest.raises(RejectError):
        read((tmp_path / "a.nrrd").read_bytes()[:300], "a.nrrd")


def metaimage(volume: Any, *, packed: bool, local: bool = True, big: bool = False) -> tuple[bytes, bytes]:
    data = volume.astype(">i2" if big else "<i2").tobytes(order="F")
    data = zlib.compress(data) if packed else data
    header = (
        f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = {big}\n"
        f"CompressedData = {packed}\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nElementSpacing = 1 1 3\n"
        f"DimSize = {' '.join(map(str, volume.shape))}\nElementType = MET_SHORT\n"
        f"ElementDataFile = {'LOCAL' if local else 'a.raw'}\n"
    )
    return header.encode(), data


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("big", [False, True])
def test_mha_agrees_with_nifti(*, packed: bool, big: bool) -> None:
    header, data = metaimage(phantom()[::-1, ::-1], packed=packed, big=big)
    found = read(header + data, "a.mha")
    assert len(found) == 6
    for z, image in enumerate(found):
        np.testing.assert_array_equal(image.pixels, axial(phantom(), z))
    with pytest.raises(RejectError):
        read(header + data[: len(data) // 2], "a.mha")


def test_mhd_reads_the_data_beside_it_and_nothing_else(tmp_path: Path) -> None:
    header, data = metaimage(phantom()[::-1, ::-1], packed=False, local=False)

    def raw(text: bytes) -> RawFile:
        return RawFile(
            path="a.mhd", name="a.mhd", size=1, opener=lambda: io.BytesIO(text), beside=lambda _: io.BytesIO(data)
        )

    reader = reader_for("auto", "a.mhd")
    assert len(list(reader(raw(header), ReadOptions()))) == 6
    with pytest.raises(RejectError):
        list(reader(raw(header.replace(b"a.raw", b"../../secret")), ReadOptions()))


def test_hdf5_array_of_patches() -> None:

    patches = np.stack([photo(i, height=96, width=96) for i in range(5)])
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["mask"] = np.zeros((9, 96, 96, 3), np.uint8)
        file["x"] = patches
    mask, *found = read(buffer.getvalue(), "a.h5")
    assert (mask.frame, mask.fault) == ("array0", "other_object")
    assert [image.frame for image in found] == [f"f{i:06d}" for i in range(5)]
    for image, patch in zip(found, patches, strict=True):
        np.testing.assert_array_equal(to_picture(image), patch)


def test_hdf5_kspace_is_reconstructed_by_root_sum_of_squares() -> None:

    truth = np.stack([photo(i, height=64, width=48, channels=1) for i in range(3)]).astype(np.float64)
    maps = np.array([0.6, 0.8])[None, :, None, None]
    coils = truth[:, None] * maps
    shifted = np.fft.ifftshift(coils, axes=(-2, -1))
    kspace = np.fft.fftshift(np.fft.fft2(shifted, norm="ortho"), axes=(-2, -1)).astype(np.complex64)
    np.testing.assert_allclose(root_sum_of_squares(kspace[0]), truth[0], atol=0.01)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["kspace"] = kspace
        file.attrs["patient_id"] = "abc"
        matrix = "<matrixSize><x>48</x><y>48</y><z>1</z></matrixSize>"
        file["ismrmrd_header"] = f"<h><reconSpace>{matrix}</reconSpace></h>"
    found = read(buffer.getvalue(), "a.h5")
    assert [image.pixels.shape for image in found] == [(48, 48)] * 3
    np.testing.assert_allclose(found[1].pixels, truth[1, 8:56], atol=0.01)
    assert found[0].group == "abc"
    with pytest.raises(RejectError):
        read(buffer.getvalue()[:500], "a.h5")


def test_npy_and_npz_and_never_a_pickle() -> None:
    stack = np.stack([photo(i, channels=1) for i in range(4)]).astype(np.uint16) * 16
    buffer = io.BytesIO()
    np.save(buffer, stack)
    found = read(buffer.getvalue(), "a.npy", frames=FrameRule(max_frames=2))
    assert [image.frame for image in found] == ["f000001", "f000003"]
    packed = io.BytesIO()
    more = {"labels": np.ones((40, 14)), "train_masks": stack > 40, "y": np.ones((40, 1)), "gt": stack}
    np.savez_compressed(packed, train_images=stack, **more)
    found = read(packed.getvalue(), "a.npz")
    assert [image.frame for image in found if not image.fault] == [f"train_images-f{n:06d}" for n in range(4)]
    assert [image.frame for image in found if image.fault == "other_object"] == ["array0", "array1", "array3"]
    assert len(read(packed.getvalue(), "a.npz", frames=FrameRule(dataset="train_masks"))) == 4
    objects = io.BytesIO()
    np.save(objects, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(RejectError):
        read(objects.getvalue(), "a.npy")
    bomb = io.BytesIO()
    np.savez_compressed(bomb, images=np.zeros((64, 512, 512), np.uint8))
    with pytest.raises(RejectError) as caught:
        read(bomb.getvalue(), "a.npz")
    assert caught.value.reason == "decompression_bomb"


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "mpeg4"), ("avi", "mjpeg")])
def test_video_is_sampled_by_time(suffix: str, codec: str) -> None:
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format=suffix) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height = 128, 96
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number in range(25):
            frame = av.VideoFrame.from_ndarray(photo(number // 10), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    found = read(buffer.getvalue(), f"a.{suffix}", frames=FrameRule(frames_per_second=2))
    assert [image.frame for image in found] == [f"f{n:06d}" for n in (0, 5, 10, 15, 20)]
    for number, image in zip((0, 5, 10, 15, 20), found, strict=True):
        assert np.abs(image.pixels.astype(int) - photo(number // 10)).mean() < 20
    with pytest.raises(RejectError):
        read(b"no video" * 20, f"a.{suffix}")


def test_slide_tiles_of_tissue_at_the_wanted_magnification() -> None:
    rng = np.random.default_rng(0)
    slide = np.full((1024, 1536, 3), 243, np.uint8)
    slide[256:768, 512:1024] = rng.integers((90, 20, 90), (220, 90, 200), (512, 512, 3))
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as tiff:
        text = "Aperio Image Library v1\n1536x1024 (256x256) JPEG|AppMag = 40|MPP = 0.25"
        options: dict[str, Any] = {"photometric": "rgb", "tile": (256, 256), "compression": "zlib"}
        tiff.write(slide, description=text, **options)
        tiff.write(slide[::4, ::4], subfiletype=1, description="x", **options)
    rule = FrameRule(tile_px=128, magnification=20, min_tissue=0.5)
    found = read(buffer.getvalue(), "a.svs", frames=rule)
    assert len(found) == 24
    kept = [image.frame for image in found if not image.fault]
    assert kept == ["y000256x000512", "y000256x000768", "y000512x000512", "y000512x000768"]
    assert {image.pixels.shape for image in found if not image.fault} == {(128, 128, 3)}
    assert {image.fault for image in found} == {"", "no_tissue"}


def in_lps() -> Any:
    """The phantom with its axes turned to LPS: x to the left, y to the back."""
    return phantom()[::-1, ::-1]


def nrrd_bytes(volume: Any, **fields: str) -> bytes:
    stated = {
        "type": "short",
        "dimension": "3",
        "sizes": " ".join(map(str, volume.shape)),
        "encoding": "raw",
        "endian": "little",
        "space": "left-posterior-superior",
        "space directions": "(1,0,0) (0,1,0) (0,0,3)",
        "kinds": "domain domain domain",
    } | {name.replace("_", " "): value for name, value in fields.items()}
    lines = "".join(f"{name}: {value}\n" for name, value in stated.items() if value)
    return f"NRRD0004\n# a comment\n{lines}\n".encode() + volume.astype("<i2").tobytes(order="F")


@pytest.mark.parametrize(
    ("space", "flips"),
    [
        ("left-posterior-superior", (1, 1, 1)),
        ("LPS", (1, 1, 1)),
        ("lps", (1, 1, 1)),
        ("LPST", (1, 1, 1)),
        ("left-posterior-superior-time", (1, 1, 1)),
        ("RAS", (-1, -1, 1)),
        ("right-anterior-superior", (-1, -1, 1)),
        ("LAS", (1, -1, 1)),
        ("left-anterior-superior", (1, -1, 1)),
        ("scanner-xyz", (1, 1, 1)),
        ("", (1, 1, 1)),
    ],
)
def test_the_long_and_short_names_of_a_space_mean_the_same(space: str, flips: tuple[int, int, int]) -> None:
    stored = in_lps()[:: flips[0], :: flips[1], :: flips[2]]
    for z, image in enumerate(read(nrrd_bytes(stored, space=space), "a.nrrd")):
        np.testing.assert_array_equal(image.pixels, axial(phantom(), z))


def test_all_formats_show_a_plane_as_dicom_stores_it() -> None:
    lps = in_lps()
    header, data = metaimage(lps, packed=False)
    formats = {
        "a.nii": nifti(np.ascontiguousarray(lps), np.diag([-1.0, -1.0, 3.0, 1.0])),
        "a.nrrd": nrrd_bytes(lps),
        "a.mha": header + data,
    }
    planes = {
        "axial": [lps[:, :, z].T for z in range(6)],
        "coronal": [lps[:, y, ::-1].T for y in range(24)],
        "sagittal": [lps[x, :, ::-1].T for x in reversed(range(20))],
    }
    for name, content in formats.items():
        for axis, expected in planes.items():
            found = read(content, name, frames=FrameRule(axis=axis))
            assert len(found) == len(expected)
            for image, plane in zip(found, expected, strict=True):
                if axis == "axial":
                    np.testing.assert_array_equal(image.pixels, plane)
                else:  # stretched three times downwards
                    rows = image.pixels[1::3]
                    np.testing.assert_allclose(rows, plane, atol=1)


def test_slices_are_numbered_along_the_normal_of_dicom() -> None:
    from ingest.readers.dicom.header import normal_of

    assert normal_of((1, 0, 0, 0, 1, 0)) == (0, 0, 1)  # axial: to the head
    assert normal_of((1, 0, 0, 0, 0, -1)) == (0, 1, 0)  # coronal: to the back
    assert normal_of((0, 1, 0, 0, 0, -1)) == (-1, 0, 0)  # sagittal: to the patient's right


def test_a_file_that_names_no_axes_is_cut_as_it_is_stored() -> None:
    stored = phantom()
    (first, *_) = read(nrrd_bytes(stored, space="", space_directions="", kinds=""), "a.nrrd")
    np.testing.assert_array_equal(first.pixels, stored[:, :, 0].T)


def beside(files: dict[str, bytes]) -> Any:
    def opened(name: str) -> io.BytesIO:
        if name not in files:
            raise FileNotFoundError(name)
        return io.BytesIO(files[name])

    return opened


def detached(header: bytes, name: str, files: dict[str, bytes]) -> list[RawImage]:
    raw = RawFile(path=name, name=name, size=len(header), opener=lambda: io.BytesIO(header), beside=beside(files))
    return list(reader_for("auto", name)(raw, ReadOptions()))


PLANES = {f"s{z:02d}.raw": in_lps()[:, :, z].astype("<i2").tobytes(order="F") for z in range(6)}
WHOLE = in_lps().astype("<i2").tobytes(order="F")


@pytest.mark.parametrize(
    ("value", "lines", "files"),
    [
        ("a.raw", "", {"a.raw": WHOLE}),
        ("./a.raw", "", {"a.raw": WHOLE}),
        ("data/my scan.raw", "", {"data/my scan.raw": WHOLE}),
        ("s%02d.raw 0 5 1", "", PLANES),
        ("LIST", "\n".join(PLANES), PLANES),
    ],
)
@pytest.mark.parametrize("kind", ["nhdr", "mhd"])
def test_data_beside_the_header(kind: str, value: str, lines: str, files: dict[str, bytes]) -> None:
    if kind == "nhdr":
        head = nrrd_bytes(in_lps(), data_file=f"{value}\n{lines}")
        header = head[: head.index(b"data file")] + f"data file: {value}\n{lines}\n".encode()
    else:
        local, _ = metaimage(in_lps(), packed=False)
        header = local.replace(b"LOCAL", f"{value}\n{lines}".encode())
    found = detached(header, f"a.{kind}", files)
    for z, image in enumerate(found):
        np.testing.assert_array_equal(image.pixels, axial(phantom(), z))
    assert len(found) == 6


@pytest.mark.parametrize("value", ["../a.raw", "/etc/passwd", "C:\\a.raw", "..\\a.raw", "a/../../b.raw"])
def test_data_outside_of_the_folder_are_not_looked_at(value: str) -> None:
    local, _ = metaimage(in_lps(), packed=False)
    with pytest.raises(RejectError) as caught:
        detached(local.replace(b"LOCAL", value.encode()), "a.mhd", {})
    assert caught.value.reason == "unsupported"
    with pytest.raises(RejectError) as caught:
        detached(local.replace(b"LOCAL", b"gone.raw"), "a.mhd", {})
    assert caught.value.detail == "its data file is missing"


@pytest.mark.parametrize("encoding", ["gzip", "bz2", "ascii", "hex"])
def test_encodings_of_nrrd(encoding: str) -> None:
    import bz2

    flat = in_lps().astype("<i2")
    packed = {
        "gzip": gzip.compress(WHOLE),
        "bz2": bz2.compress(WHOLE),
        "ascii": " ".join(map(str, flat.ravel(order="F"))).encode(),
        "hex": WHOLE.hex().encode(),
    }[encoding]
    head = nrrd_bytes(in_lps(), encoding=encoding)
    found = read(head[: -len(WHOLE)] + packed, "a.nrrd")
    np.testing.assert_array_equal(found[3].pixels, axial(phantom(), 3))
    with pytest.raises(RejectError):
        read(head[: -len(WHOLE)] + packed[: len(packed) // 2], "a.nrrd")


def test_colour_series_of_nifti_and_metaimage_give_every_volume_in_colour() -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (20, 24, 3, 2, 3), dtype=np.uint8)
    kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    stored = np.ascontiguousarray(rgb).view(kind)[..., 0]
    found = read(nifti(stored, np.diag([-1.0, -1.0, 1.0, 1.0])), "a.nii")
    assert [image.frame for image in found] == [f"t{t:04d}z{z:04d}" for t in range(2) for z in range(3)]
    np.testing.assert_array_equal(found[4].pixels, rgb[:, :, 1, 1].transpose(1, 0, 2))
    header = b"NDims = 4\nElementNumberOfChannels = 3\nDimSize = 20 24 3 2\nElementType = MET_UCHAR\n"
    data = np.ascontiguousarray(rgb.transpose(3, 2, 1, 0, 4)).tobytes()
    again = read(header + b"ElementDataFile = LOCAL\n" + data, "a.mha")
    np.testing.assert_array_equal(again[4].pixels, found[4].pixels)


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def random_bytes(*shape: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_channels_first_are_colour() -> None:
    for array in (random_bytes(2, 3, 40, 56), random_bytes(3, 40, 56)):
        found = read(npy(array), "a.npy")
        first = array[0] if array.ndim == 4 else array
        assert len(found) == (2 if array.ndim == 4 else 1)
        np.testing.assert_array_equal(found[0].pixels, np.moveaxis(first, 0, -1))


def test_four_measurements_of_a_slice_are_four_pictures_each_of_its_own_range() -> None:
    array = random_bytes(40, 56, 4).astype(np.float64) * [1, 10, 100, 1000]
    found = read(npy(array), "a.npy")
    assert [image.frame for image in found] == [f"f{number:06d}" for number in range(4)]
    np.testing.assert_array_equal(found[2].pixels, array[..., 2])
    assert len({image.high for image in found}) == 4


def test_a_thin_stack_along_the_last_axis_is_cut_across_it() -> None:
    array = random_bytes(40, 56, 12)
    found = read(npy(array), "a.npy")
    assert len(found) == 12
    np.testing.assert_array_equal(found[7].pixels, array[..., 7])
    assert len(read(npy(random_bytes(12, 40, 56)), "a.npy")) == 12
    assert read(npy(random_bytes(5, 40, 56, 3)), "a.npy")[4].pixels.shape == (40, 56, 3)
