"""Drafting the YAML of a source of one's own."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
import yaml

from infra.cli import main
from ingest.job.draft import draft
from ingest.job.list import list_raw
from ingest.job.run import run_job
from ingest.raw.root import RawRoot
from ingest.settings import IngestSettings
from ingest.source.spec import SourceSpec, parse_spec
from shards.errors import ConfigError, SourceError
from tests.ingest.material import encoded, photo, public_spec, write_folder, zip_of

CT = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"
PNG = encoded(photo(0))


def drafted(folder: Path, *modality: str) -> SourceSpec:
    text = draft(RawRoot(str(folder)), IngestSettings(), name="mine", modality=modality)
    return parse_spec(text, name="mine.yaml")


def taken(folder: Path, spec: SourceSpec) -> list[str]:
    return [item.inner_path for item in list_raw(str(folder), spec, IngestSettings()).items]


def test_masks_by_folder_and_by_ending_are_left_out_and_patients_are_groups(tmp_path: Path) -> None:
    names = [f"patient{n}/scan/{k}.png" for n in range(3) for k in range(4)]
    masks = ["patient0/Ground Truth/1.png", "patient1/scan/1_mask.png", "patient1/scan/2_seg.png"]
    folder = write_folder(tmp_path, dict.fromkeys([*names, *masks, "readme.txt", "Thumbs.db"], PNG))
    spec = drafted(folder, "US")
    assert sorted(taken(folder, spec)) == sorted(names)
    assert (spec.layout.reader, spec.modality, spec.grouping.by) == ("auto", ("US",), "path")
    assert spec.deidentified is False


@pytest.mark.parametrize("outer", ["Dataset_BUSI_with_GT", "v1/segmentation challenge"])
def test_the_folder_of_everything_is_no_folder_of_masks(outer: str, tmp_path: Path) -> None:
    names = [f"{outer}/benign/benign ({n}).png" for n in range(3)]
    masks = [f"{outer}/benign/benign (1)_mask.png", f"{outer}/benign/benign (1)_mask_1.png", f"{outer}/masks/1.png"]
    folder = write_folder(tmp_path, {**dict.fromkeys([*names, *masks], PNG), "readme.txt": b"x"})
    spec = drafted(folder, "US")
    assert sorted(taken(folder, spec)) == names
    assert spec.layout.left_out == {"masks": ("**/masks/**", "**/*_mask*")}


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["Kvasir-SEG/images/1.jpg", "hyper/polyps/2.jpg"], ["Kvasir-SEG/masks/1.jpg"]),
        (["A. Segmentation/1. Original Images/a/1.jpg"], ["A. Segmentation/2. All Segmentation Groundtruths/a/1.tif"]),
        (["Kvasir-SEG/1.jpg", "other/2.jpg"], ["Kvasir-SEG/masks/1.jpg"]),
        (["Kvasir-SEG/images/1.jpg", "other/2.jpg"], []),
        (["all labels/x-seg/images/1.jpg"], ["all labels/x-seg/masks/1.jpg"]),
        (["p1/seg/images/1.jpg", "p1/seg/2.jpg"], ["p1/seg/masks/1.jpg", "p2/seg/1.jpg", "p2/SEG/1.jpg"]),
        (["masks/images/1.jpg", "masks/2.jpg"], ["masks/masks/1.jpg"]),
        (["{seg} 1/images/1.jpg", "x/1.jpg"], ["{seg} 1/*masks*/1.jpg"]),
    ],
)
def test_the_innermost_folder_of_masks_is_left_out_and_none_that_holds_images(
    images: list[str], masks: list[str], tmp_path: Path
) -> None:
    folder = write_folder(tmp_path, dict.fromkeys([*images, *masks], PNG))
    assert sorted(taken(folder, drafted(folder, "US"))) == sorted(images)


def test_a_draft_takes_what_ingest_takes_without_one(tmp_path: Path) -> None:
    names = ["1.png", "2.PNG", "IM_0001", "a/1.2.840.113", "v.nii.gz", "x.h5", "y.jp2", "z.mp4", "s_seg.dcm"]
    names += ["a_mask.png", "1_masked.png", "README.txt", "README", "paper.pdf", "t.csv", "t.csv.gz", ".png", "x.weird"]
    folder = write_folder(tmp_path, dict.fromkeys(names, PNG))
    plain = taken(folder, public_spec("mine", "US"))
    spec = drafted(folder, "US")
    assert spec.layout.include == ()
    assert taken(folder, spec) == plain
    assert {"IM_0001", "1_masked.png", "s_seg.dcm"} < set(plain)
    for name in ("IM_0001", "a/1.2.840.113", ".png"):
        (folder / name).unlink()
    spec = drafted(folder, "US")
    assert sorted(spec.layout.include) == ["*.dcm", "*.h5", "*.jp2", "*.mp4", "*.nii.gz", "*.png"]
    assert taken(folder, spec) == taken(folder, public_spec("mine", "US"))


@pytest.mark.slow
def test_a_draft_reads_by_content_what_has_a_wrong_name(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "raw", {"1.png": PNG, "2.png": CT.read_bytes()})
    text = draft(RawRoot(str(folder)), IngestSettings(), name="mine", modality=["US"])
    spec = parse_spec(text.replace("deidentified: false", "deidentified: true"), name="mine.yaml")
    assert run_job(spec, str(folder), str(tmp_path / "d"), workers=0).kept == 2


def test_archives_are_looked_into(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"a.zip": zip_of({"images/1.jpg": PNG, "masks/1.jpg": PNG})})
    assert taken(folder, drafted(folder, "US")) == ["a.zip/images/1.jpg"]


def test_a_table_that_names_the_files_is_joined(tmp_path: Path) -> None:
    rows = "\n".join(f"im{n},p{n // 2},CC0-1.0,x" for n in range(6))
    files = {f"i/im{n}.png": PNG for n in range(6)} | {"meta.csv": f"id,patient_id,licence,dx\n{rows}\n".encode()}
    folder = write_folder(tmp_path, files | {"other.csv": b"a,b\n1,2\n"})
    [table] = drafted(folder, "US").layout.tables
    assert (table.key, table.match, table.group, table.licence, table.label) == (
        *("id", "stem", ("patient_id",)),
        *("licence", "dx"),
    )


@pytest.mark.parametrize(
    ("findings", "why"),
    [
        ([f"Frau Needle{n}, geb. 12.03.194{n}: unauffällig" for n in range(6)], "it holds dates"),
        (["clear", "clear", "clear", "Frau Ahlers", "Frau Ahlers", "clear"], "it looks like names"),
        ([f"{n} small nodules in the left lung" for n in range(6)], "nearly every value is another one"),
        (["No acute findings in the chest; heart size and lungs are as usual."] * 6, "it holds whole sentences"),
        (["nodule", "clear"] * 3, ""),
    ],
)
def test_free_text_is_no_label(tmp_path: Path, findings: list[str], why: str) -> None:
    rows = "".join(f'im{n}.png,p{n // 2},"{finding}"\n' for n, finding in enumerate(findings))
    table = f"file,PatientID,Findings\n{rows}".encode()
    folder = write_folder(tmp_path, {f"im{n}.png": PNG for n in range(6)} | {"reports.csv": table})
    text = draft(RawRoot(str(folder)), IngestSettings(), name="mine", modality=["X-Ray"])
    [drafted_table] = parse_spec(text, name="mine.yaml").layout.tables
    assert (drafted_table.group, drafted_table.label) == (("PatientID",), "" if why else "Findings")
    assert (f"# no label, which would be stored as it stands: 'Findings': {why}" in text) is bool(why)


def test_dicom_says_its_modality_and_patients(tmp_path: Path) -> None:
    spec = drafted(write_folder(tmp_path, {"a/IM0001": b"x", "a/IM0002": b"x", "b.dcm": b"x"}))
    assert spec.modality_rule is not None
    assert (spec.modality_rule.by, spec.grouping.by, spec.grouping.tag) == ("dicom", "dicom", "PatientID")


def test_a_modality_that_nobody_knows_is_left_to_be_filled_in(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"1.png": PNG})
    with pytest.raises(ConfigError, match="modality"):
        drafted(folder)
    text = draft(RawRoot(str(folder)), IngestSettings(), name="mine")
    assert "fill in: CT, MR" in text


def test_other_splits_are_remarked_and_not_left_out_unasked(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"train/1.png": PNG, "test/2.png": PNG})
    text = draft(RawRoot(str(folder)), IngestSettings(), name="mine", modality=["US"])
    assert "1 files lie in 'test'" in text
    assert taken(folder, parse_spec(text, name="m")) == ["test/2.png", "train/1.png"]


def test_names_with_quotes_and_controls_are_yaml(tmp_path: Path) -> None:
    files = {"it's masks/1.png": PNG, "a\nmask: b/2.png": PNG, "i/3.png": PNG, "# x/4.png": PNG}
    folder = write_folder(tmp_path, files)
    text = draft(RawRoot(str(folder)), IngestSettings(), name="mine", modality=["US"])
    assert yaml.safe_load(text)["id"] == "mine"
    assert "i/3.png" in taken(folder, parse_spec(text, name="m"))


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no images"):
        drafted(write_folder(tmp_path, {"a.txt": b"x"}))


@pytest.mark.slow
def test_the_command_prints_yaml_that_check_and_ingest_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {f"s{n:03d}/{k}.png": encoded(photo(n * 9 + k)) for n in range(2) for k in (0, 1)}
    folder = write_folder(tmp_path / "raw", files)
    assert main(["sources", "new", str(folder), "--name", "mine", "--modality", "US"]) == 0
    text = capsys.readouterr().out.replace("deidentified: false", "deidentified: true")
    (tmp_path / "mine.yaml").write_text(text)
    assert main(["sources", "check", str(tmp_path / "mine.yaml"), str(folder)]) == 0
    assert "2 (by the path)" in capsys.readouterr().out
    assert main(["ingest", str(tmp_path / "mine.yaml"), str(folder), str(tmp_path / "d"), "--workers", "0"]) == 0
