"""Identifiers planted everywhere in the raw data, then searched for in every byte of the output."""

from __future__ import annotations

import gzip
import io
import json
import logging
import warnings
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image, PngImagePlugin
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset

from ingest.job.run import run_job
from ingest.privacy.pseudonyms import Pseudonyms
from ingest.raw.items import RawItem
from ingest.settings import IngestSettings
from ingest.source.spec import from_flags
from tests.ingest.material import encoded, photo, public_spec, tables, write_folder, zip_of
from tests.ingest.readers.test_dicom import RAMP, made

NAME, BIRTH, PATIENT, STUDY = "Zzyzx^Quentin", "19470213", "PAT4711007", "1.2.826.0.1.998877"
PLANTED = (*(NAME, "Zzyzx", "Quentin", BIRTH, PATIENT, STUDY), "zzyzx", "quentin", "4711007", "998877")
TEXT_VRS = {"PN": NAME, "DA": BIRTH, "DT": f"{BIRTH}120000", "LO": f"{NAME} {PATIENT}", "SH": "PAT4711007 Zzyzx"}
TEXT_VRS |= {"LT": f"{NAME} born {BIRTH}", "ST": f"{NAME}", "UT": f"{NAME} {BIRTH} {PATIENT}", "UC": NAME}
TEXT_VRS |= {"CS": "ZZYZX", "AE": "ZZYZX", "UI": STUDY, "UR": f"http://x/{PATIENT}", "AS": "047Y", "TM": "194702"}
PIXEL_GROUPS = {0x0000, 0x0002, 0x0028, 0x7FE0}


def planted_dicom(modality: str = "CT") -> bytes:
    """A CT image with every text attribute of the standard's dictionary filled in, private ones too."""
    dataset = pydicom.dcmread(io.BytesIO(made(RAMP, WindowCenter=0, WindowWidth=500)))
    for tag, (vr, _, _, retired, _) in DicomDictionary.items():
        if tag >> 16 in PIXEL_GROUPS or vr not in TEXT_VRS or retired or tag in dataset or tag == 0x00080005:
            continue
        dataset.add_new(tag, vr, TEXT_VRS[vr])
    for keyword in ("WindowCenterWidthExplanation", "PixelSpacingCalibrationDescription", "RescaleType"):
        dataset.add_new(pydicom.datadict.tag_for_keyword(keyword), "LO", NAME)
    nested = Dataset()
    nested.PatientName, nested.PatientID = NAME, PATIENT
    dataset.RequestAttributesSequence = pydicom.Sequence([nested])
    dataset.SequenceOfUltrasoundRegions = pydicom.Sequence([nested])
    block = dataset.private_block(0x0029, f"{NAME}", create=True)
    block.add_new(0x01, "LO", f"{NAME} {PATIENT}")
    block.add_new(0x02, "OB", f"{NAME}{BIRTH}".encode())
    dataset.Modality = modality
    buffer = io.BytesIO()
    buffer.write(f"{NAME}{PATIENT}".ljust(128).encode())
    plain = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is planted is no valid date, code or identifier
        dataset.save_as(plain)
    return buffer.getvalue() + plain.getvalue()[128:]


def planted_photo(kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x010E], exif[0x013B], exif[0x9286] = f"{NAME} {BIRTH}", NAME, f"ASCII\0\0\0{PATIENT}"
    exif[0x8825] = {1: "N", 29: BIRTH}
    image, buffer = Image.fromarray(photo(sum(map(ord, kind)))), io.BytesIO()
    if kind == "jpg":
        image.save(
            buffer, "JPEG", exif=exif, comment=NAME.encode(), icc_profile=PATIENT.encode() * 20, xmp=NAME.encode()
        )
    elif kind == "png":
        text = PngImagePlugin.PngInfo()
        text.add_text("Patient", f"{NAME} {BIRTH}")
        text.add_itxt(NAME, PATIENT, zip=True)
        image.save(buffer, "PNG", pnginfo=text, exif=exif)
    elif kind == "tif":
        image.save(buffer, "TIFF", tiffinfo={270: f"{NAME} {BIRTH}", 315: PATIENT})
    elif kind == "gif":
        image.save(buffer, "GIF", comment=NAME.encode())
    return buffer.getvalue() + NAME.encode()


def planted_files() -> dict[str, bytes]:
    import nibabel

    volume = nibabel.Nifti1Image(np.random.default_rng(0).integers(0, 999, (40, 40, 3)).astype(np.int16), np.eye(4))
    volume.header["descrip"], volume.header["db_name"] = f"{NAME} {BIRTH}".encode(), PATIENT.encode()
    folder = f"{NAME.replace('^', '_')}_{BIRTH}/{PATIENT}"
    files = {f"{folder}/scan_{kind}.{kind}": planted_photo(kind) for kind in ("jpg", "png", "tif", "gif")}
    return files | {
        f"{folder}/{NAME}.dcm": planted_dicom(),
        f"{folder}/{STUDY}": planted_dicom("US"),
        f"{folder}/{PATIENT}.unknown_{NAME}": b"x",
        f"{folder}/v.{PATIENT}.nii": bytes(volume.to_bytes()),
        f"{folder}/broken_{NAME}.jpg": b"\xff\xd8\xff" + NAME.encode(),
        f"{folder}/broken_{PATIENT}.dcm": planted_dicom()[:700],
        f"{folder}/odd_{PATIENT}.dcm": planted_dicom("ZZYZX"),
        f"{PATIENT}.zip": zip_of({f"{NAME}/{PATIENT}.png": encoded(photo(77)), f"../{NAME}.png": b"x"}),
    }


def every_byte(folder: Path) -> dict[str, bytes]:
    """All files, also with their compression undone: tables column by column, gzip and zlib members."""
    import pyarrow.parquet as pq

    found = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        found[str(path)] = data + str(path.relative_to(folder)).encode()
        if path.suffix == ".parquet":
            found[f"{path} rows"] = str(pq.read_table(path).to_pydict()).encode() + str(pq.read_schema(path)).encode()
    return found


def leaks(data: bytes) -> list[str]:
    lower = data.lower()
    return [word for word in PLANTED if word.lower().encode() in lower]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_no_planted_identifier_reaches_any_byte_of_the_output(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, workers: int
) -> None:
    raw = write_folder(tmp_path / "raw", planted_files())
    planted = planted_dicom()
    assert sum(word in planted.decode("latin-1") for word in (NAME, BIRTH, PATIENT, STUDY)) == 4
    settings = IngestSettings(secret="a secret of the test")
    caplog.set_level(logging.DEBUG)
    for tag in ("PatientID", "StudyInstanceUID"):
        spec = from_flags(name=f"mine-{tag.lower()}", modality="dicom", grouping={"by": "dicom", "tag": tag})
        photos = from_flags(name=f"pics-{tag.lower()}", modality="Fundus", layout={"exclude": ["*.dcm", "1.2*"]})
        for each in (spec, photos):
            report = run_job(each, str(raw), str(tmp_path / "d"), workers=workers, settings=settings)
            assert not leaks(json.dumps(report.to_dict()).encode())
    rows = tables(tmp_path / "d")
    assert len(rows["index"]) >= 8
    assert {row["reason"] for row in rows["rejects"]} >= {"path_traversal", "unreadable", "unknown_modality"}
    found = {name: words for name, data in every_byte(tmp_path / "d").items() if (words := leaks(data))}
    assert not found
    said = capfd.readouterr()
    assert not leaks((said.out + said.err).encode())
    assert not leaks(caplog.text.encode())


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    """A public source keeps its paths: there the same search must hit."""
    raw = write_folder(tmp_path / "raw", {f"{PATIENT}/{NAME}.png": encoded(photo(1))})
    run_job(public_spec(), str(raw), str(tmp_path / "d"), workers=0)
    assert any(leaks(data) for data in every_byte(tmp_path / "d").values())


def test_hidden_paths_lead_back_with_the_secret_only() -> None:
    item = RawItem(path="Doe_John/scan.tar.gz", member="a/1.2.840.nii.gz", kind="stream")
    spec = from_flags(name="mine", modality="CT")
    first = Pseudonyms(spec, IngestSettings(secret="one")).raw_path(item)
    assert first == Pseudonyms(spec, IngestSettings(secret="one")).raw_path(item)
    assert first != Pseudonyms(spec, IngestSettings(secret="two")).raw_path(item)
    member, archive = first.removeprefix("tar://").split("::")
    assert (member.count("/"), archive.count("/")) == (1, 1)
    assert member.endswith(".nii.gz")
    assert archive.endswith(".tar.gz")
    assert "doe" not in first.lower()


def test_hidden_members_of_all_archives_are_told_apart() -> None:
    names = Pseudonyms(from_flags(name="mine", modality="CT"), IngestSettings(secret="one"))
    for path, kind in (("a.zip", "zip"), ("a.tar", "tar"), ("a.tar.gz", "stream"), ("a.7z", "libarchive")):
        items = [RawItem(path=path, member=f"{number}.png", kind=kind) for number in range(2)]  # type: ignore[arg-type]
        first, second = map(names.raw_path, items)
        assert first != second
        assert first.partition("://")[0] == items[0].raw_path.partition("://")[0]
        assert first.partition("::")[2] == second.partition("::")[2] != ""


def test_group_ids_differ_between_secrets_and_sources_but_not_between_runs() -> None:
    def group(name: str, secret: str) -> str:
        return Pseudonyms(from_flags(name=name, modality="CT"), IngestSettings(secret=secret)).group_id("patient 1")

    assert group("a", "x") == group("a", "x")
    assert len({group("a", "x"), group("a", "y"), group("b", "x")}) == 3


def test_secret_is_made_once_and_readable_by_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ingest.privacy.secret import load_secret, secret_file

    monkeypatch.delenv("BIOVFM_SECRET", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert load_secret(create=False).get_secret_value() == ""
    first = load_secret().get_secret_value()
    assert len(first) == 64
    assert load_secret().get_secret_value() == first
    assert secret_file().stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("BIOVFM_SECRET", "given")
    assert load_secret().get_secret_value() == "given"
    assert (
        "given"
        not in str(IngestSettings(secret=load_secret())) + IngestSettings(secret=load_secret()).model_dump_json()
    )


def test_a_secret_that_cannot_be_kept_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from ingest.privacy.secret import load_secret
    from shards.errors import ConfigError

    monkeypatch.delenv("BIOVFM_SECRET", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", "/proc/self/nowhere")
    with pytest.raises(ConfigError, match=r"cannot be kept in .* — set BIOVFM_SECRET"):
        load_secret()


def test_no_allowed_attribute_is_free_text() -> None:
    """What the reader may look at is numbers, enumerations and identifiers that are hashed."""
    from ingest.readers.dicom.attributes import ALLOWED

    for keyword in ALLOWED:
        vr = pydicom.datadict.dictionary_VR(keyword)
        assert vr in {"CS", "UI", "SQ", "US", "SS", "IS", "DS", "UL", "SL", "OV", "OW", "OB or OW", "OF", "OD"} or (
            keyword == "PatientID" or vr in {"US or SS", "US or OW", "US or SS or OW"}
        ), (keyword, vr)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gzip", "zlib"])
def test_compressed_copies_of_metadata_do_not_survive(kind: str, tmp_path: Path) -> None:
    """A PNG with compressed text: nothing of the file but its pixels is written."""
    packed = zlib.compress(NAME.encode()) if kind == "zlib" else gzip.compress(NAME.encode(), mtime=0)
    raw = write_folder(tmp_path / "raw", {"a.png": planted_photo("png") + packed})
    run_job(public_spec(), str(raw), str(tmp_path / "d"), workers=0)
    assert not any(packed in data for data in every_byte(tmp_path / "d").values())
