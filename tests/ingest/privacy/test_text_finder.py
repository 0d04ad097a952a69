"""Text in the pixels: what counts as text, what is said of it, and that the detector reads names in real pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

import ingest.privacy.text_finder as text_finder
from ingest.privacy.burned_in import looked_at
from ingest.privacy.text_finder import has_text, is_text, said_with_detector
from ingest.raw.items import RejectError
from ingest.readers.base import BurnedIn, RawImage
from shards.errors import ConfigError, MachineError
from tests.ingest.material import encoded, ingest, photo, public_spec, tables, write_folder

NAMED = RawImage(pixels=np.zeros((8, 8), np.uint8))


@pytest.mark.parametrize(
    ("line", "score", "expected"),
    [
        ("DOE^JANE", 0.9, True),
        ("Ng A", 0.9, True),
        ("12-04-1961", 0.5, True),
        ("李伟", 0.8, True),
        ("김민준", 0.8, True),
        ("DOE^JANE", 0.49, False),
        ("R", 1.0, False),
        ("L.", 1.0, False),
        ("森", 0.9, False),
        ("--- ...", 1.0, False),
        ("", 1.0, False),
    ],
)
def test_what_counts_as_text(line: str, score: float, expected: bool) -> None:
    assert is_text(line, score) is expected


@pytest.mark.parametrize(
    ("said", "found", "expected"),
    [
        (BurnedIn(), False, ("no", "text detector")),
        (BurnedIn(), True, ("yes", "text detector")),
        (BurnedIn("no", "SOPClassUID"), True, ("yes", "text detector")),
        (BurnedIn("yes", "BurnedInAnnotation"), False, ("yes", "BurnedInAnnotation")),
    ],
)
def test_the_detector_overrules_a_no_and_never_a_yes(said: BurnedIn, found: bool, expected: tuple[str, str]) -> None:
    assert said_with_detector(said, found=found) == expected


@pytest.mark.parametrize("policy", ["reject", "crop"])
def test_a_picture_in_which_text_is_found_is_rejected(policy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_finder, "_lines", lambda _: [("DOE JANE", 0.99)])
    with pytest.raises(RejectError) as caught:
        looked_at(NAMED, NAMED.pixels, policy)
    assert (caught.value.reason, caught.value.detail) == ("burned_in", "text detector")
    assert looked_at(NAMED, NAMED.pixels, "keep").burned_in == ("yes", "text detector")


def test_a_detector_that_fails_is_no_property_of_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: object) -> list[tuple[str, float]]:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(text_finder, "_lines", failing)
    with pytest.raises(MachineError, match="text detector failed: RuntimeError"):
        has_text(NAMED.pixels)


def test_without_the_extra_a_job_stops_before_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ingest.readers.libraries as libraries

    found = libraries.find_spec
    monkeypatch.setattr(libraries, "find_spec", lambda name: None if name == "rapidocr" else found(name))
    raw = write_folder(tmp_path / "raw", {"a.png": encoded(photo(1))})
    with pytest.raises(ConfigError, match="find_text needs rapidocr") as caught:
        ingest(raw, tmp_path / "d", find_text=True)
    assert caught.value.hint == "pip install 'biovfm[text]'"


@pytest.mark.slow
def test_names_are_found_in_pictures_and_only_there(tmp_path: Path) -> None:
    pytest.importorskip("rapidocr")
    pytest.importorskip("onnxruntime")
    plain = [photo(seed, height=300, width=400) for seed in range(4)]
    files = {f"plain{seed}.png": encoded(picture) for seed, picture in enumerate(plain)}
    for seed, name in enumerate(("DOE^JANE", "GARCIA, MARIA 64Y", "12-04-1961")):
        files[f"named{seed}.png"] = encoded(_with_line(plain[seed], name, height_px=14))
    raw = write_folder(tmp_path / "raw", files)
    ingest(raw, tmp_path / "kept", public_spec(), find_text=True)
    said = {row["raw_path"]: (row["burned_in"], row["burned_in_by"]) for row in tables(tmp_path / "kept")["index"]}
    assert said == {name: ("yes" if "named" in name else "no", "text detector") for name in files}
    ingest(raw, tmp_path / "clean", public_spec(), find_text=True, burned_in="reject")
    assert {row["raw_path"] for row in tables(tmp_path / "clean")["index"]} == {f"plain{seed}.png" for seed in range(4)}
    for row in tables(tmp_path / "clean")["rejects"]:
        assert (row["reason"], row["detail"]) == ("burned_in", "text detector")


def _with_line(picture: np.ndarray[Any, Any], line: str, *, height_px: int) -> np.ndarray[Any, Any]:
    image = Image.fromarray(picture)
    font = ImageFont.load_default(size=height_px)
    ImageDraw.Draw(image).text((6, 6), line, font=font, fill="white", stroke_width=1, stroke_fill="black")
    return np.asarray(image)
