"""How the raw folder of a source looks: which files hold images, what lies beside them, what its tables say of them.

The short form says it for one kind of files, `parts` for several:

    layout:
      downloads: ["images_{001..012}.tar.gz", train_val_list.txt]
      include: ["**/images/*.png"]
      left_out: {masks: ["**/masks/**"]}
      tables:
        - path: "**/train_val_list.txt"      # one file name a line
          select: listed

All globs see the path below the raw folder with archives as folders: `images_001.tar.gz/images/00000001_000.png`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from shards.schema import INDEX_COLUMNS, MODALITIES

ReaderName = Literal["auto", "images", "dicom", "nifti", "nrrd", "metaimage", "hdf5", "numpy", "video", "slide", "list"]
Kind = Literal["masks", "labels", "derived", "copies", "split", "other"]


def _check_regex(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return pattern


def check_modality(tag: str) -> str:
    """`tag`, or an error that names the nearest one."""
    if tag not in MODALITIES:
        near = difflib.get_close_matches(tag, MODALITIES, 1, 0.3)
        raise ValueError(
            f"unknown modality {tag!r}, " + (f"did you mean {near[0]!r}?" if near else f"use {MODALITIES}")
        )
    return tag


Regex = Annotated[str, AfterValidator(_check_regex)]
Modality = Annotated[str, AfterValidator(check_modality)]
Globs = tuple[str, ...]
Axes = Annotated[str, Field(pattern="^[NDHWC]{2,6}$")]


class Frozen(BaseModel):
    """The base of all that a source's YAML file holds: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Window(Frozen):
    """An intensity window, in the raw values' unit (HU for CT)."""

    center: float
    width: float = Field(gt=0)


class FrameRule(Frozen):
    """Which 2-D images of a volume, video, slide or array are taken."""

    axis: Literal["axial", "coronal", "sagittal", "thinnest"] = Field(
        "thinnest", description="Slices are cut across this axis; `thinnest` is the axis of the widest spacing."
    )
    every: int = Field(1, ge=1, description="Every n-th slice or frame.")
    max_frames: int = Field(
        0, ge=0, description="At most so many of a file, or of each array of one, evenly spread; 0 takes all."
    )
    frames_per_second: float = Field(1.0, gt=0, description="Sampling rate of videos.")
    tile_px: int = Field(512, ge=32, description="Side of a slide's tiles.")
    magnification: float = Field(20.0, gt=0, description="Magnification at which slides are tiled.")
    min_tissue: float = Field(0.2, ge=0, le=1, description="Least share of tissue in a tile.")
    dataset: str | tuple[str, ...] = Field(
        "",
        description="HDF5 or NPZ: name of the array, or of several that are taken where the file has them; empty takes "
        "all that hold images, but not masks and labels.",
    )
    axes: tuple[Axes, ...] = Field(
        (),
        description="Order of the axes of bare arrays, one letter an axis: H rows, W columns, C colours (1, 3 or 4), "
        "D slices, N anything else that counts. Of several the first that fits is taken: [HWC, HWD]. "
        "Empty: all axes before H and W (and C) count.",
    )

    @model_validator(mode="after")
    def _axes_name_a_plane(self) -> FrameRule:
        for axes in self.axes:
            if axes.count("H") != 1 or axes.count("W") != 1 or axes.count("C") > 1:
                raise ValueError(f"axes {axes!r} must name H and W once, C at most once")
        return self


class Grouping(Frozen):
    """What belongs together: a patient, a volume, a video. Equal groups are never near duplicates of each other."""

    by: Literal["file", "folder", "path", "dicom", "none"] = "file"
    pattern: Regex = Field("", description="`path`: the groups of this expression, searched in the raw path.")
    tag: Literal["PatientID", "StudyInstanceUID", "SeriesInstanceUID"] = "StudyInstanceUID"

    @model_validator(mode="after")
    def _pattern_matches_rule(self) -> Grouping:
        if (self.by == "path") != bool(self.pattern):
            raise ValueError("`pattern` belongs to `by: path`, which needs it")
        return self


class Part(Frozen):
    """Files of one kind that hold images; what is not said here is as the layout says it."""

    name: str = ""
    include: Globs = Field((), description="Globs of its files; empty takes what the reader knows.")
    exclude: Globs = ()
    reader: ReaderName | None = None
    frames: FrameRule | None = None
    window: Window | None = None
    modality: Modality | None = Field(None, description="Tag of all its images.")
    grouping: Grouping | None = None
    images_per_file: float | None = Field(None, gt=0, description="How many images a file gives on average.")
    optional: bool = Field(False, description="The source is whole without it.")
    fallback: bool = Field(
        False, description="The same images in another form: taken only where no other part finds a file."
    )


def _or_header(schema: dict[str, Any]) -> None:
    """The JSON schema of what may also be a header alone."""
    whole = dict(schema)
    schema.clear()
    schema["anyOf"] = [{"type": "string", "minLength": 1}, whole]


class OwnColumn(Frozen):
    """A column of a table that becomes one beside the index (`biovfm columns`); the header alone will do in YAML."""

    model_config = ConfigDict(json_schema_extra=_or_header)

    header: str = Field(min_length=1, description="Its name in the table.")
    type: Literal["bool", "int", "float", "category", "date", "timestamp"] | None = Field(
        None, description="Its type; found out without it."
    )
    allow: bool = Field(
        False, description="Nobody can be told by it, although it looks like names, dates or identifiers."
    )

    optional: bool = Field(False, description="A table without it is whole.")

    @model_validator(mode="before")
    @classmethod
    def _plain_header(cls, value: Any) -> Any:
        return {"header": value} if isinstance(value, str) else value


def _check_column_name(name: str) -> str:
    if re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name) is None:
        raise ValueError("the name of a column is [a-z][a-z0-9_]*")
    if name in INDEX_COLUMNS:
        raise ValueError(f"the index has a column {name} of its own: call yours own_{name}")
    return name


OwnColumns = Mapping[Annotated[str, AfterValidator(_check_column_name)], OwnColumn]


class Table(Frozen):
    """A table of the source's own that says more of its files, or which of them count."""

    path: str = Field(description="Glob of the table: CSV, TSV, Parquet, JSON, or text with one name per line.")
    records: str = Field(
        "",
        description="JSON: the way to the records, `*` for each entry: `cases.*.images.*`. What `*` stood for is in "
        "the columns `@1`, `@2` …",
    )
    key: str | tuple[str, ...] = Field(
        "", description="Column that names the file, or several that name one each; empty for text with a name a line."
    )
    match: Literal["name", "stem", "path", "pattern"] = Field(
        "name",
        description="What of a file equals the key: its name, its name without extension, the end of its path, or "
        "the first group of `pattern`.",
    )
    pattern: Regex = ""
    of: Globs = Field((), description="Globs of the files that it says something of; empty: all.")
    where: Mapping[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Column → values: other rows do not count."
    )
    select: Literal["all", "listed", "unlisted"] = Field(
        "all", description="Take all files, only those with a row that counts, or only those without."
    )
    per_frame: bool = Field(False, description="The n-th row is about the n-th image of the file in `of`.")
    group: tuple[str, ...] = Field((), description="Columns of what belongs together; the first that says something.")
    modality: str = Field("", description="Column of the modality.")
    licence: str = Field("", description="Column of the licence.")
    anatomy: str = Field("", description="Column of the anatomy.")
    label: str = Field("", description="Column of the label.")
    allow: tuple[str, ...] = Field(
        (),
        description="Columns of licence, anatomy or label by which nobody can be told, although they look like names, "
        "dates or identifiers.",
    )
    values: Mapping[str, Mapping[str, str]] = Field(
        default_factory=dict, description="Column → its words → ours: {image_modality: {MRI: MR}}."
    )
    columns: OwnColumns = Field(
        default_factory=dict,
        description="Columns to have beside the index: new name → header, or → `{header, type, allow}`: "
        "{age: Patient Age, sex: {header: Patient Gender, type: category}}.",
    )
    optional: bool = Field(False, description="Without the table all files are taken and nothing more is known.")

    @model_validator(mode="after")
    def _keys_fit(self) -> Table:
        if (self.match == "pattern") != bool(self.pattern):
            raise ValueError("`pattern` belongs to `match: pattern`, which needs it")
        if self.per_frame and (self.keys or not self.of):
            raise ValueError("`per_frame` goes by position: it needs `of` and takes no `key`")
        if not self.per_frame and not self.keys and not self.records and (self.stating or self.columns):
            raise ValueError("columns need a `key`: the column that names the file")
        if strange := sorted({*self.allow} - {self.licence, self.anatomy, self.label}):
            raise ValueError(
                f"`allow` is about the columns of `licence`, `anatomy` and `label`; {strange[0]} is none of them"
            )
        return self

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that name files."""
        return tuple(name for name in ([self.key] if isinstance(self.key, str) else self.key) if name)

    @property
    def stating(self) -> tuple[str, ...]:
        """The columns by which it says something that ingest goes by."""
        named = (*self.group, self.modality, self.licence, self.anatomy, self.label, *self.where)
        return tuple(name for name in named if name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A part with all that it leaves to the layout filled in; the fields are those of `Part`."""

    name: str
    include: Globs
    exclude: Globs
    reader: ReaderName
    frames: FrameRule
    window: Window | None
    modality: str
    grouping: Grouping | None
    images_per_file: float | None
    optional: bool
    fallback: bool


class Layout(Frozen):
    """How the raw folder looks."""

    downloads: Globs = Field(
        (), description="Names of the files that the source is downloaded as: `images_{001..012}.tar.gz`."
    )
    include: Globs = Field(
        (),
        description="Globs on the path below the raw folder, archive names included; empty takes what readers know. "
        "`reader: list`: the list's name.",
    )
    exclude: Globs = ()
    left_out: Mapping[Kind, Globs] = Field(
        default_factory=dict,
        description="Globs of what lies beside the images and is none of them: masks, labels, derived, copies (the "
        "same images once more), split (held out, or another set), other.",
    )
    reader: ReaderName = "auto"
    frames: FrameRule = FrameRule()
    window: Window | None = Field(None, description="Used where the file names none; else percentiles 0.5 and 99.5.")
    images_per_file: float | None = Field(None, gt=0, description="How many images a file gives on average.")
    columns: OwnColumns = Field(
        default_factory=dict, description="`reader: list`: columns of the list to have beside the index, as in a table."
    )
    allow: tuple[Literal["licence", "license", "anatomy", "body_part", "label"], ...] = Field(
        (),
        description="`reader: list`: columns of the list by which nobody can be told, although they look like names, "
        "dates or identifiers.",
    )
    parts: tuple[Part, ...] = Field((), description="Several kinds of files with images, instead of `include`.")
    tables: tuple[Table, ...] = Field((), description="Tables of the source's own.")
    evidence: str = Field("", description="From where the layout is known.")
    confidence: Literal["high", "medium", "low", "none"] | None = Field(None, description="How sure the layout is.")
    note: str = Field("", description="What to unpack, join or rename by hand before ingest.")

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Layout:
        if self.parts and (self.include or self.images_per_file):
            raise ValueError("with `parts`, put `include` and `images_per_file` into each of them")
        if self.reader == "list" and (self.parts or self.tables):
            raise ValueError("`reader: list` takes neither `parts` nor `tables`: the list says it all")
        if (self.columns or self.allow) and self.reader != "list":
            word = "columns" if self.columns else "allow"
            raise ValueError(f"`{word}` beside `include` are those of a list; those of a table stand in `tables`")
        named = [name for table in self.tables for name in table.columns]
        if twice := sorted({name for name in named if named.count(name) > 1}):
            raise ValueError(f"two tables bring a column {twice[0]}: give one of them another name")
        return self

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """What holds for the files of each part; one rule where the layout names no parts."""
        parts = self.parts or (Part(include=self.include, images_per_file=self.images_per_file),)
        return tuple(
            Rule(
                name=part.name,
                include=part.include,
                exclude=(*part.exclude, *self.exclude, *(glob for globs in self.left_out.values() for glob in globs)),
                reader=part.reader or self.reader,
                frames=part.frames or self.frames,
                window=part.window or self.window,
                modality=part.modality or "",
                grouping=part.grouping,
                images_per_file=part.images_per_file,
                optional=part.optional,
                fallback=part.fallback,
            )
            for part in parts
        )

    @property
    def wanted(self) -> str:
        """What holds images, for people: globs, or what the reader knows."""
        return ", ".join(
            glob for rule in self.rules for glob in (rule.include or (f"files of the {rule.reader} reader",))
        )

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of files that the layout knows and leaves out, those by tables, forms and names included."""
        return frozenset({*self.left_out, "masks", "table", "unlisted", "copies"})
