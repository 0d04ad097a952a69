"""The catalogue is whole, and specs that people write are checked."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ingest.privacy.pseudonyms import group_of
from ingest.raw.items import RawItem
from ingest.source.globs import expand
from ingest.source.spec import CATALOGUE, SourceSpec, catalogue_ids, from_flags, load_spec, parse_spec
from shards.errors import ConfigError, SourceError
from tests.ingest.material import encoded, ingest, photo, public_spec, tables, write_folder

MEDMNIST = {
    *("pathmnist", "chestmnist", "dermamnist", "octmnist", "pneumoniamnist", "retinamnist", "breastmnist"),
    *("bloodmnist", "tissuemnist", "organamnist", "organcmnist", "organsmnist"),
}


def test_all_sources_are_there_with_the_papers_images() -> None:
    specs = [load_spec(name) for name in catalogue_ids()]
    assert len(specs) == 61
    assert sum(spec.expected_images or 0 for spec in specs) == 21_472_715
    assert {spec.id for spec in specs} == {path.stem for path in CATALOGUE.glob("*.yaml")}
    assert all(spec.url.startswith("http") and spec.name and spec.year for spec in specs)
    unknown = [spec for spec in specs if spec.licence == "unknown"]
    assert len(unknown) == 11
    assert all(spec.licence_evidence for spec in unknown)
    overlaps = {entry.task for spec in specs for entry in spec.eval_overlap}
    assert overlaps <= MEDMNIST
    assert {"chestmnist", "pathmnist", "dermamnist", "organamnist"} <= overlaps


@pytest.mark.parametrize(
    ("source", "path", "group"),
    [
        ("chestxray-14", "images_001.tar.gz/images/00000013_004.png", "00000013"),
        ("chexpert", "train/patient00001/study1/view1_frontal.jpg", "patient00001"),
        ("hcp", "100307/T1w/T1w.nii.gz", "100307"),
        ("uw-madison-gi", "case101/case101_day20/scans/slice_0001.png", "case101"),
        ("eyepacs", "train/10_left.jpeg", "10"),
        ("chase-db1", "Image_01L.jpg", "01"),
        ("hrf", "images/07_dr.JPG", "images/07_dr.JPG"),
        ("sam-med2d-20m", "images/ct_00__LiTS__case7__x_0012.png", "LiTS__case7"),
        ("fives", "train/1_A.png", "train/1_A.png"),
    ],
)
def test_groups_follow_the_grouping_rule(source: str, path: str, group: str) -> None:
    assert group_of(load_spec(source), RawItem(path=path), frame="", stated="") == group


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("ct_00__LiTS__c__x_1.png", "CT"),
        ("mr_t1--BraTS--c--z_3.png", "MR"),
        ("x_ray--chest--c--1.png", "X-Ray"),
        ("fundus_photography--DRIVE--1--2.png", "Fundus"),
        ("us__x__y__1.png", "US"),
        ("ctx.png", None),
    ],
)
def test_modality_is_read_off_the_name(name: str, tag: str | None) -> None:
    rule = load_spec("sam-med2d-20m").modality_rule
    assert rule is not None
    assert next((t for t, regex in rule.patterns.items() if re.search(regex, f"images/{name}")), None) == tag


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id: a\nmodality: [CT]\nlayot: {}", "unknown key 'layot', did you mean 'layout'"),
        ("id: a\nmodality: [CT]\nlayout: {readr: images}", "unknown key 'layout.readr', did you mean 'reader'"),
        ("id: A b\nmodality: [CT]", "id: use"),
        ("id: a\nmodality: [Xray]", "did you mean 'X-Ray'"),
        ("id: a\nmodality: [CT, MR]", "several modalities need"),
        ("id: a\nmodality: [CT]\ngrouping: {by: path}", "`pattern` belongs to"),
        ("id: a\nmodality: [CT]\ngrouping: {by: path, pattern: '('}", "not a regular expression"),
        ("id: [", "is not valid YAML"),
        ("- a", "holds no mapping"),
    ],
)
def test_mistakes_name_the_file_and_the_nearest_key(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)) as caught:
        parse_spec(text, name="mine.yaml")
    assert "mine.yaml" in str(caught.value)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_spec("id: A\nmodality: [CTT]\nlisence: MIT", name="mine.yaml")
    assert all(part in str(caught.value) for part in ("id", "CTT", "lisence"))


def test_open_links_bring_what_the_layout_names() -> None:
    linked = [spec for spec in map(load_spec, catalogue_ids()) if spec.links]
    assert len(linked) >= 16
    for spec in linked:
        assert spec.access == "open", spec.id
        names = [link.file_name for link in spec.links]
        downloads = [name for glob in spec.layout.downloads for name in expand(glob)]
        assert set(downloads) <= set(names), spec.id


def test_unknown_source_suggests_a_near_one() -> None:
    with pytest.raises(SourceError, match="did you mean uls23"):
        load_spec("uls32")


def test_a_source_of_ones_own_from_flags_or_file(tmp_path: Path) -> None:
    spec = from_flags(name="mine", modality="dicom", deidentified=True)
    assert spec.modality_rule is not None
    (tmp_path / "mine.yaml").write_text(json.dumps(spec.model_dump(mode="json")))
    assert load_spec(tmp_path / "mine.yaml") == spec


def test_json_schema_describes_every_key() -> None:
    schema = SourceSpec.model_json_schema()
    assert set(schema["properties"]) == set(SourceSpec.model_fields)
    assert schema["additionalProperties"] is False


@pytest.mark.slow
def test_a_list_of_files_says_modality_group_and_licence_of_each(tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "raw", {f"i/{n}.png": encoded(photo(n)) for n in range(4)})
    far = write_folder(tmp_path / "far", {"x.png": encoded(photo(9))}) / "x.png"
    rows = [
        "path,modality,group,licence",
        "i/1.png,MR,p1,CC0",
        "i/0.png,CT,p1,",
        "i/2.png,XX,p2,",
        "../far/x.png,CT,p2,",
        "i/missing.png,CT,p3,",
        f"file://{far},US,p4,",
    ]
    (raw / "list.csv").write_text("\n".join(rows) + "\n")
    spec = public_spec("l", ("CT", "MR", "US"), layout={"reader": "list"}, modality_rule={"by": "list"}, licence="MIT")
    report = ingest(raw / "list.csv", tmp_path / "d", spec)
    assert (report.items, report.kept) == (6, 3)
    assert report.reasons == {"path_traversal": 1, "unknown_modality": 1, "unreadable": 1}
    rows_ = {row["raw_path"]: row for row in tables(tmp_path / "d")["index"]}
    assert {path: (row["modality"], row["licence"]) for path, row in rows_.items()} == {
        "i/0.png": ("CT", "MIT"),
        "i/1.png": ("MR", "CC0"),
        f"file://{far}": ("US", "MIT"),
    }
    assert rows_["i/0.png"]["group_id"] == rows_["i/1.png"]["group_id"]
