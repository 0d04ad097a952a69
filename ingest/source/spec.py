"""What ingest must know of a source: one YAML file a source, or a few flags for a user's own folder.

    id: busi                      # [0-9a-z_-]+, the first part of every sample key
    name: BUSI
    modality: [US]                # one tag, or several with a rule that tells them apart
    layout:
      reader: images
      include: ["**/*.png"]

Unknown keys are errors that name the file and the nearest key.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from shards.errors import ConfigError, SourceError
from shards.schema import MODALITIES, is_name
from shards.settings import parse

CATALOGUE = Path(__file__).parent / "catalogue"
UNKNOWN = "unknown"

ReaderName = Literal["auto", "images", "dicom", "nifti", "nrrd", "metaimage", "hdf5", "numpy", "video", "slide", "list"]


def _check_regex(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return pattern


def _check_modality(tag: str) -> str:
    if tag not in MODALITIES:
        near = difflib.get_close_matches(tag, MODALITIES, 1, 0.3)
        raise ValueError(
            f"unknown modality {tag!r}, " + (f"did you mean {near[0]!r}?" if near else f"use {MODALITIES}")
        )
    return tag


Regex = Annotated[str, AfterValidator(_check_regex)]
Modality = Annotated[str, AfterValidator(_check_modality)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModalityRule(_Model):
    """How the images of a source with several modalities are told apart."""

    by: Literal["dicom", "path", "list"] = Field(
        description="`dicom`: the Modality tag; `path`: the patterns below; `list`: the list's column `modality`."
    )
    patterns: Mapping[str, Regex] = Field(
        default_factory=dict, description="Modality tag → regular expression searched in the raw path."
    )

    @model_validator(mode="after")
    def _patterns_match_rule(self) -> ModalityRule:
        for tag in self.patterns:
            _check_modality(tag)
        if (self.by == "path") != bool(self.patterns):
            raise ValueError("`patterns` belongs to `by: path`, which needs it")
        return self


class Window(_Model):
    """An intensity window, in the raw values' unit (HU for CT)."""

    center: float
    width: float = Field(gt=0)


class FrameRule(_Model):
    """Which 2-D images of a volume, video, slide or array are taken."""

    axis: Literal["axial", "coronal", "sagittal", "thinnest"] = Field(
        "thinnest", description="Slices are cut across this axis; `thinnest` is the axis of the widest spacing."
    )
    every: int = Field(1, ge=1, description="Every n-th slice or frame.")
    max_frames: int = Field(0, ge=0, description="At most so many of a file, evenly spread; 0 takes all.")
    frames_per_second: float = Field(1.0, gt=0, description="Sampling rate of videos.")
    tile_px: int = Field(512, ge=32, description="Side of a slide's tiles.")
    magnification: float = Field(20.0, gt=0, description="Magnification at which slides are tiled.")
    min_tissue: float = Field(0.2, ge=0, le=1, description="Least share of tissue in a tile.")
    dataset: str = Field("", description="HDF5 or NPZ: name of the array; empty takes the first that holds images.")


class Layout(_Model):
    """How the raw folder looks."""

    include: tuple[str, ...] = Field(
        (), description="Globs on the path below the raw folder, archive names included; empty takes what readers know."
    )
    exclude: tuple[str, ...] = ()
    reader: ReaderName = "auto"
    frames: FrameRule = FrameRule()
    window: Window | None = Field(None, description="Used where the file names none; else percentiles 0.5 and 99.5.")
    note: str = Field("", description="What to unpack, join or rename by hand before ingest.")


class Grouping(_Model):
    """What belongs together: a patient, a volume, a video. Equal groups are never near duplicates of each other."""

    by: Literal["file", "folder", "path", "dicom", "none"] = "file"
    pattern: Regex = Field("", description="`path`: the groups of this expression, searched in the raw path.")
    tag: Literal["PatientID", "StudyInstanceUID", "SeriesInstanceUID"] = "StudyInstanceUID"

    @model_validator(mode="after")
    def _pattern_matches_rule(self) -> Grouping:
        if (self.by == "path") != bool(self.pattern):
            raise ValueError("`pattern` belongs to `by: path`, which needs it")
        return self


class EvalOverlap(_Model):
    """An evaluation task that shares images with this source."""

    task: str = Field(description="MedMNIST task, e.g. `chestmnist`.")
    why: str


class SourceSpec(_Model):
    """One source of images."""

    id: str
    name: str = ""
    modality: tuple[Modality, ...] = Field(min_length=1)
    modality_rule: ModalityRule | None = None
    anatomy: tuple[str, ...] = ()
    licence: str = UNKNOWN
    licence_confidence: Literal["high", "medium", "low", "unknown"] = "unknown"
    access: Literal["open", "registration", "credentialed", "gated", "mixed", "unknown"] = "unknown"
    url: str = Field("", description="Page from which the source is obtained, under its own terms.")
    host: str = ""
    year: int | None = None
    expected_images: int | None = None
    archive: str = Field("", description="How the download is packed.")
    raw_format: str = Field("", description="Formats of the raw files.")
    layout: Layout = Layout()
    grouping: Grouping = Grouping()
    eval_overlap: tuple[EvalOverlap, ...] = ()
    deidentified: bool = Field(
        False,
        description="The raw data are published de-identified: raw paths are kept, and group ids are hashed with a "
        "fixed key, so that everybody gets the same dataset. Otherwise both are hashed with the user's secret.",
    )
    raw_paths: Literal["auto", "keep", "hash"] = Field(
        "auto", description="Raw paths in the index as they are or as keyed hashes; `auto` follows `deidentified`."
    )
    burned_in: Literal["keep", "crop", "reject"] = "keep"
    note: str = ""

    @field_validator("id")
    @classmethod
    def _id_is_name(cls, text: str) -> str:
        if not is_name(text):
            raise ValueError("use [0-9a-z_-]+ only, it becomes part of keys and file names")
        return text

    @model_validator(mode="after")
    def _modalities_can_be_told_apart(self) -> SourceSpec:
        rule = self.modality_rule
        if len(self.modality) > 1 and rule is None:
            raise ValueError("several modalities need a `modality_rule`")
        if rule and set(rule.patterns) - set(self.modality):
            raise ValueError("`modality_rule.patterns` names tags that `modality` does not list")
        return self


def load_spec(source: str | Path) -> SourceSpec:
    """The spec of a catalogue source, or of a YAML file.

    Args:
        source: A catalogue id (`biovfm sources`) or the path of a YAML file.

    Raises:
        SourceError: No such source or file.
        ConfigError: The file is not a spec; the message lists every mistake.
    """
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        path = CATALOGUE / f"{source}.yaml"
    if not path.is_file():
        near = difflib.get_close_matches(str(source), catalogue_ids(), 3)
        raise SourceError(
            f"no source {str(source)!r}",
            hint=("did you mean " + ", ".join(near) + "?") if near else "`biovfm sources` lists them all",
        )
    return parse_spec(path.read_text(encoding="utf-8"), name=path.name if path.parent == CATALOGUE else str(path))


def parse_spec(text: str, *, name: str) -> SourceSpec:
    """A spec out of YAML text.

    Raises:
        ConfigError: Not YAML, or not a spec; all mistakes are listed.
    """
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is not YAML: {' '.join(str(error).split())}", hint="mend the file") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{name} holds no mapping", hint="start from `biovfm sources show ID --yaml`")
    return parse(SourceSpec, data, where=name)


def from_flags(
    *, name: str, modality: str | tuple[str, ...], reader: str = "auto", licence: str = UNKNOWN, **more: Any
) -> SourceSpec:
    """The spec of a user's own folder, with no file.

    Several modalities, or `dicom`, are told apart by the DICOM tag.

    Args:
        name: Id of the source, `[0-9a-z_-]+`.
        modality: One tag, several, or `dicom`.
        reader: Name of a reader; `auto` goes by file name.
        licence: Licence of the images.
        more: Any other field of `SourceSpec`.

    Raises:
        ConfigError: A value is not allowed.
    """
    tags = (modality,) if isinstance(modality, str) else tuple(modality)
    if tags == ("dicom",):
        tags = MODALITIES
    layout = {"reader": reader, **more.pop("layout", {})}
    if len(tags) > 1:
        more.setdefault("modality_rule", {"by": "dicom"})
    data = {"id": name, "name": name, "modality": tags, "licence": licence, "layout": layout, **more}
    return parse(SourceSpec, data, where="the command line")


@cache
def catalogue_ids() -> tuple[str, ...]:
    """The ids of the sources that come with the package."""
    return tuple(sorted(path.stem for path in CATALOGUE.glob("*.yaml")))
