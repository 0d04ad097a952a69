"""Layouts: several parts in one source, what is left out, and how bare arrays lie."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.job.list import list_raw
from ingest.settings import IngestSettings
from ingest.source.spec import load_spec, parse_spec
from shards.errors import ConfigError
from tests.ingest.material import encoded, ingest, photo, public_spec, tables, write_folder
from tests.mutations import ODD_YAML, error_of, mutated_yaml

PNG = encoded(photo(0))


def test_parts_have_reader_frames_modality_and_groups_of_their_own(tmp_path: Path) -> None:
    files = {f"xray/p{patient}_{n}.png": encoded(photo(9 * patient + n)) for patient in (1, 2) for n in (0, 1)}
    folder = write_folder(tmp_path / "raw", files)
    (folder / "ct").mkdir()
    np.save(folder / "ct/v.npy", np.stack([photo(seed, channels=1) for seed in range(20, 26)], -1))
    spec = public_spec(
        modality=("CT", "X-Ray"),
        layout={
            "parts": [
                {
                    "name": "radiographs",
                    "include": ["xray/*"],
                    "reader": "images",
                    "modality": "X-Ray",
                    "grouping": {"by": "path", "pattern": r"(p\d+)_"},
                },
                {
                    "name": "scans",
                    "include": ["ct/*"],
                    "reader": "numpy",
                    "modality": "CT",
                    "frames": {"axes": ["HWD"], "every": 2},
                },
            ]
        },
        modality_rule=None,
    )
    assert ingest(folder, tmp_path / "d", spec).kept == 7
    rows = tables(tmp_path / "d")["index"]
    assert Counter(row["modality"] for row in rows) == {"X-Ray": 4, "CT": 3}
    assert {(row["height"], row["width"]) for row in rows} == {(96, 128)}
    assert len({row["group_id"] for row in rows if row["modality"] == "X-Ray"}) == 2


def test_what_is_left_out_is_counted_by_kind(tmp_path: Path) -> None:
    names = ("images/1.png", "masks/1.png", "masks/2.png", "test/1.png", "readme.txt")
    folder = write_folder(tmp_path / "raw", dict.fromkeys(names, PNG))
    spec = public_spec(layout={"include": ["*.png"], "left_out": {"masks": ["masks/**"], "split": ["test/**"]}})
    listing = list_raw(str(folder), spec, IngestSettings())
    assert [item.path for item in listing.items] == ["images/1.png"]
    assert listing.ignored == {"masks": 2, "split": 1, "txt": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "axes", "num", "size"),
    [
        ((40, 50, 6), ["HWD"], 6, (40, 50)),
        ((40, 50, 3), ["HWC", "HWD"], 1, (40, 50)),
        ((40, 50, 6), ["HWC", "HWD"], 6, (40, 50)),
        ((3, 40, 50), ["CHW"], 1, (40, 50)),
        ((6, 40, 50), ["DWH"], 6, (50, 40)),
        ((2, 3, 40, 50, 4), ["NCHWD"], 8, (40, 50)),
        ((6, 40, 50), [], 6, (40, 50)),
    ],
)
def test_axes_of_bare_arrays(tmp_path: Path, shape: tuple[int, ...], axes: list[str], num: int, size: Any) -> None:
    (tmp_path / "raw").mkdir()
    np.save(tmp_path / "raw/a.npy", np.random.default_rng(0).integers(0, 255, shape, np.uint8))
    spec = public_spec(layout={"reader": "numpy", "frames": {"axes": axes}})
    ingest(tmp_path / "raw", tmp_path / "d", spec)
    rows = tables(tmp_path / "d")["index"]
    assert [(row["height"], row["width"]) for row in rows] == [size] * num


def test_turned_arrays_keep_their_pixels() -> None:
    from ingest.readers.base import ReadOptions
    from ingest.readers.stacks import array_images
    from ingest.source.layout import FrameRule

    array = np.arange(2 * 3 * 40 * 50, dtype=np.int32).reshape(2, 3, 40, 50)  # N, C, H, W
    images = list(array_images(array, ReadOptions(frames=FrameRule(axes=("NCHW",)))))
    assert [image.frame for image in images] == ["f000000", "f000001"]
    assert all((image.pixels == array[n].transpose(1, 2, 0)).all() for n, image in enumerate(images))


def test_an_array_that_fits_no_order_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    np.save(tmp_path / "raw/a.npy", np.zeros((2, 40, 50, 6), np.uint8))
    report = ingest(tmp_path / "raw", tmp_path / "d", public_spec(layout={"frames": {"axes": ["HWD"]}}))
    assert report.reasons == {"unsupported": 1}


@pytest.mark.slow
def test_of_several_arrays_the_first_that_is_there_is_taken(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    images = np.stack([photo(seed, channels=1) for seed in range(2)])
    np.savez(tmp_path / "raw/a.npz", second=images, other=np.zeros((5, 40, 40), np.uint8))
    spec = public_spec(layout={"frames": {"dataset": ["first", "second"]}})
    assert ingest(tmp_path / "raw", tmp_path / "d", spec).kept == 2
    spec = public_spec("none", layout={"frames": {"dataset": ["first"]}})
    assert ingest(tmp_path / "raw", tmp_path / "e", spec).reasons == {"no_image": 1}


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        ("{include: [a], parts: [{include: [b]}]}", "with `parts`, put `include`"),
        ("{reader: list, tables: [{path: a, select: listed}]}", "takes neither"),
        ("{frames: {axes: [HHW]}}", "must name H and W once"),
        ("{frames: {axes: [XYZ]}}", "layout.frames.axes"),
        ("{left_out: {mask: [a]}}", "layout.left_out"),
        ("{parts: [{inclde: [a]}]}", "did you mean 'include'"),
        ("{parts: [{modality: MR}]}", "does not list: MR"),
    ],
)
def test_mistakes_are_named(layout: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_spec(f"id: a\nmodality: [CT]\nlayout: {layout}", name="mine.yaml")


def test_yaml_of_an_earlier_release_is_read_as_before() -> None:
    text = """
id: mine
modality: [CT, MR]
modality_rule: {by: path, patterns: {CT: ct, MR: mr}}
layout:
  reader: hdf5
  include: ["*.h5"]
  exclude: ["*test*"]
  frames: {every: 2, dataset: images}
  window: {center: 40, width: 400}
  note: unpack first
grouping: {by: path, pattern: (p\\d+)}
"""
    [rule] = parse_spec(text, name="mine.yaml").layout.rules
    assert (rule.reader, rule.include, rule.exclude) == ("hdf5", ("*.h5",), ("*test*",))
    assert (rule.frames.every, rule.frames.dataset) == (2, "images")
    assert rule.window is not None


def test_a_spec_survives_its_own_yaml(tmp_path: Path) -> None:
    import yaml

    spec = load_spec("rp3d-diagds")
    path = tmp_path / "copy.yaml"
    path.write_text(yaml.safe_dump(spec.model_dump(mode="json", exclude_defaults=True)))
    assert load_spec(path) == spec


DOCUMENT = {
    "id": "x",
    "modality": ["CT", "X-Ray"],
    "modality_rule": {"by": "path", "patterns": {"CT": "ct/", "X-Ray": "xray/"}},
    "links": [{"url": "https://example.org/a.zip", "sha256": "0" * 64, "size": 3}, "https://example.org/b.zip"],
    "layout": {
        "downloads": ["a_{01..03}.zip"],
        "left_out": {"masks": ["**/masks/**"]},
        "parts": [{"name": "a", "include": ["ct/*"], "window": {"center": 40, "width": 400}, "frames": {"every": 2}}],
    },
    "grouping": {"by": "path", "pattern": r"(p\d+)_"},
    "eval_overlap": [{"task": "chestmnist", "why": "the same images"}],
}


def spec_or_error(text: str) -> bool:
    error = error_of(ConfigError, lambda: parse_spec(text, name="any.yaml"))
    assert error is None or (error.message.startswith("any.yaml") and "\n" not in error.message)
    return error is None


def test_the_document_that_is_damaged_below_is_sound() -> None:
    assert spec_or_error(yaml.safe_dump(DOCUMENT))


@settings(max_examples=60, deadline=None)
@given(mutated_yaml(DOCUMENT))
def test_a_damaged_source_is_a_spec_or_one_error(text: str) -> None:
    spec_or_error(text)


@settings(max_examples=40, deadline=None)
@given(st.one_of(st.sampled_from(ODD_YAML), st.text(max_size=60)))
def test_any_text_is_a_spec_or_one_error(text: str) -> None:
    assert not spec_or_error(text)


@pytest.mark.parametrize("text", ODD_YAML)
def test_no_odd_document_is_a_spec(text: str) -> None:
    assert not spec_or_error(text)


def test_a_file_that_is_no_text_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"id: \xff\xfe")
    with pytest.raises(ConfigError, match=r"x\.yaml"):
        load_spec(tmp_path / "x.yaml")
