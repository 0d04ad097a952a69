"""What two jobs share their id by."""

from __future__ import annotations

import json

import pytest
from pydantic import Field

from ingest.job import identity
from ingest.job.identity import job_id, rules_of
from ingest.picture.encoding import Encoding
from ingest.settings import IngestSettings
from ingest.source.spec import SourceSpec, from_flags

SPEC = from_flags(name="mine", modality="CT")


def id_of(spec: SourceSpec = SPEC, settings: IngestSettings | None = None, listing: str = "l", key: str = "") -> str:
    return job_id(spec.id, rules_of(spec, settings or IngestSettings(), Encoding(), key_check=key), listing)


def test_a_field_that_a_later_release_adds_changes_no_id() -> None:
    class LaterSettings(IngestSettings):
        patience: int = Field(3)

    class LaterSpec(SourceSpec):
        colour: str = ""

    later = LaterSpec(**SPEC.model_dump())
    assert id_of(later, LaterSettings()) == id_of()
    assert id_of(later.model_copy(update={"colour": "red"})) != id_of()
    assert id_of(settings=LaterSettings(patience=4)) != id_of()


def test_what_decides_the_bytes_decides_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    others = [
        id_of(from_flags(name="mine", modality="MR")),
        id_of(settings=IngestSettings(shard_bytes=1)),
        id_of(listing="m"),
        id_of(key="k"),
        job_id("mine", rules_of(SPEC, IngestSettings(), Encoding(jpeg_quality=90), key_check=""), "l"),
        job_id("mine", rules_of(SPEC, IngestSettings(), Encoding(), key_check="", listed={"a": frozenset()}), "l"),
    ]
    monkeypatch.setattr(identity, "PIPELINE_VERSION", identity.PIPELINE_VERSION + 1)
    assert len({*others, id_of()}) == len(others) + 1
    assert id_of().startswith("mine-")


def test_the_secret_is_no_part_of_an_id() -> None:
    settings = IngestSettings.model_validate({"secret": "words"})
    assert id_of(settings=settings) == id_of()
    assert "words" not in json.dumps(settings.model_dump(mode="json"))


def test_words_for_people_are_no_other_job() -> None:
    told = {"note": "n", "citation": "c", "url": "http://x", "expected_images": 3, "count_note": "all", "year": 2020}
    layout = {"evidence": "e", "confidence": "low", "downloads": ["a.zip"], "images_per_file": 2, "note": "unpack"}
    more = SourceSpec(**{**SPEC.model_dump(), **told, "layout": {**SPEC.layout.model_dump(), **layout}})
    assert id_of(more) == id_of()


@pytest.mark.parametrize(
    "layout",
    [
        {"include": ["*.png"]},
        {"left_out": {"masks": ["*.gif"]}},
        {"frames": {"axes": ["HWD"]}},
        {"parts": [{"include": ["a/*"]}]},
        {"tables": [{"path": "t.csv", "select": "listed"}]},
    ],
)
def test_what_a_layout_takes_is_another_job(layout: dict[str, object]) -> None:
    assert id_of(SourceSpec(**{**SPEC.model_dump(), "layout": layout})) != id_of()
