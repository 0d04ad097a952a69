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
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field, field_validator, model_validator

from ingest.source.layout import (
    Frozen,
    Grouping,
    Layout,
    Modality,
    Regex,
    check_modality,
)
from shards.errors import ConfigError, SourceError
from shards.schema import MODALITIES, is_name
from shards.settings import parse, read_text, yaml_value

CATALOGUE = Path(__file__).parent / "catalogue"
UNKNOWN = "unknown"


class ModalityRule(Frozen):
    """How the images of a source with several modalities are told apart."""

    by: Literal["dicom", "path", "list"] = Field(
        description="`dicom`: the Modality tag; `path`: the patterns below; `list`: what the list or a table "
        "of the source says."
    )
    patterns: Mapping[str, Regex] = Field(
        default_factory=dict, description="Modality tag → regular expression searched in the raw path."
    )

    @model_validator(mode="after")
    def _patterns_match_rule(self) -> ModalityRule:
        for tag in self.patterns:
            check_modality(tag)
        if (self.by == "path") != bool(self.patterns):
            raise ValueError("`patterns` belongs to `by: path`, which needs it")
        return self


class EvalOverlap(Frozen):
    """An evaluation task that shares images with this source."""

    task: str = Field(description="MedMNIST task, e.g. `chestmnist`.")
    why: str


Allowed = Literal["allowed", "forbidden", "on-request", "unknown"]


class Terms(Frozen):
    """What the licence lets one do with the images."""

    commercial: Allowed = "unknown"
    derivatives: Allowed = "unknown"
    redistribution: Allowed = "unknown"


class Link(Frozen):
    """A file that anybody may download directly."""

    url: str = Field(description="`https://…` or `http://…`.")
    name: str = Field("", description="File name in the raw folder; else the last part of the URL's path.")
    sha256: str = Field("", pattern=r"^([0-9a-fA-F]{64})?$", description="Checksum of the file, hex.")
    size: int | None = Field(None, ge=0, description="Bytes of the file.")

    @property
    def file_name(self) -> str:
        """The file's name in the raw folder."""
        return self.name or unquote(urlsplit(self.url).path).rpartition("/")[2]

    @model_validator(mode="before")
    @classmethod
    def _plain_url(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _is_a_file_of_the_web(self) -> Link:
        if urlsplit(self.url).scheme not in ("http", "https") or not urlsplit(self.url).netloc:
            raise ValueError("give an https:// or http:// URL")
        name = self.file_name
        if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise ValueError("the URL ends with no file name: give one as `name`")
        return self


_WORDS: Final = (
    *("name", "terms", "licence_confidence", "licence_evidence", "access", "url", "host", "year", "citation"),
    *("expected_images", "source_images", "count_note", "archive", "raw_format", "eval_overlap", "note", "links"),
)
_WORDS_OF_LAYOUT: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("downloads", "images_per_file", "evidence", "confidence", "note"), True),
    "parts": {"__all__": {"name": True, "images_per_file": True, "optional": True}},
    "columns": True,
    "allow": True,
    "tables": {"__all__": {"columns": True, "allow": True}},
}
_OF_ANY_TABLE: Final = frozenset({"path", "records", "key", "match", "pattern", "of", "where", "values", "optional"})
"""What says nothing of a file or its selection by itself."""


def check_id(text: str) -> str:
    """`text` as the id of a source, or an error that says the rule."""
    if not is_name(text):
        raise ValueError("use [0-9a-z_-]+ only, it becomes part of keys and file names")
    return text


class SourceSpec(Frozen):
    """One source of images."""

    id: str
    name: str = ""
    modality: tuple[Modality, ...] = Field(min_length=1)
    modality_rule: ModalityRule | None = None
    anatomy: tuple[str, ...] = ()
    licence: str = Field(UNKNOWN, description="SPDX identifier where there is one, else the licence's name.")
    terms: Terms = Terms()
    licence_confidence: Literal["high", "medium", "low", "unknown"] = "unknown"
    licence_evidence: str = Field("", description="What states the licence, or what was searched in vain.")
    access: Literal["open", "registration", "credentialed", "gated", "mixed", "unknown"] = "unknown"
    url: str = Field("", description="Page from which the source is obtained, under its own terms.")
    links: tuple[Link, ...] = Field(
        (), description="Open, direct links to the files of the source; `biovfm sources fetch` downloads them."
    )
    host: str = ""
    year: int | None = None
    citation: str = Field("", description="What to cite.")
    expected_images: int | None = Field(None, description="How many images the reference data list counts.")
    source_images: int | None = Field(
        None, description="How many images the source gives by this layout, where that is another number."
    )
    count_note: str = Field("", description="What the expected number counts, or why the source gives another.")
    archive: str = Field("", description="How the download is packed.")
    raw_format: str = Field("", description="Formats of the raw files.")
    layout: Layout = Layout()
    grouping: Grouping = Grouping()
    eval_overlap: tuple[EvalOverlap, ...] = ()
    deidentified: bool = Field(
        False,
        description="The raw data are published de-identified: raw paths are kept, and group ids are hashed with a "
        "fixed key, so that everybody gets the same dataset. Otherwise both are hashed with the user's secret, and "
        "licence, anatomy and label of a table or list are refused where they look like names, dates or identifiers.",
    )
    raw_paths: Literal["auto", "keep", "hash"] = Field(
        "auto", description="Raw paths in the index as they are or as keyed hashes; `auto` follows `deidentified`."
    )
    burned_in: Literal["keep", "crop", "reject"] = "keep"
    note: str = ""

    def decisive(self) -> dict[str, Any]:
        """What of the source decides the bytes of a job.

        Fields at their default, words for people, columns that come beside the index and what is allowed stay out.
        """
        words: dict[str, Any] = {"layout": _WORDS_OF_LAYOUT, **dict.fromkeys(_WORDS, True)}
        told = self.model_dump(mode="json", exclude_defaults=True, exclude=words)
        layout = told.get("layout", {})
        for_columns = [bool(table.columns) for table in self.layout.tables]
        layout["tables"] = [
            table
            for table, brings in zip(layout.get("tables", ()), for_columns, strict=True)
            if not (brings and set(table) <= _OF_ANY_TABLE)
        ]
        told["layout"] = {name: value for name, value in layout.items() if value != []}
        return {name: value for name, value in told.items() if value != {}}

    @field_validator("id")
    @classmethod
    def _id_is_name(cls, text: str) -> str:
        return check_id(text)

    @model_validator(mode="after")
    def _modalities_can_be_told_apart(self) -> SourceSpec:
        rule = self.modality_rule
        named = [part.modality for part in self.layout.parts]
        if len(self.modality) > 1 and rule is None and (not named or None in named):
            raise ValueError("several modalities need a `modality_rule`, or a `modality` for each part")
        if strange := {tag for tag in named if tag} - set(self.modality):
            raise ValueError(f"`layout.parts` names tags that `modality` does not list: {', '.join(sorted(strange))}")
        if rule and set(rule.patterns) - set(self.modality):
            raise ValueError("`modality_rule.patterns` names tags that `modality` does not list")
        return self


def is_yaml(source: str | Path) -> bool:
    """Whether a source is named by the path of its YAML file, and not by its id."""
    return Path(source).suffix in (".yaml", ".yml")


def load_spec(source: str | Path) -> SourceSpec:
    """The spec of a catalogue source, or of a YAML file.

    Args:
        source: A catalogue id (`biovfm sources`) or the path of a YAML file.

    Raises:
        SourceError: No such source or file.
        ConfigError: The file is not a spec; the message lists every mistake.
    """
    path = Path(source) if is_yaml(source) else CATALOGUE / f"{source}.yaml"
    if is_yaml(source) and not path.is_file():
        raise SourceError(f"no file {source}", hint="check the path; `biovfm sources new RAW` drafts such a file")
    if not path.is_file():
        near = difflib.get_close_matches(str(source), catalogue_ids(), 3)
        raise SourceError(
            f"no source {str(source)!r}",
            hint=("did you mean " + ", ".join(near) + "?") if near else "`biovfm sources` lists those of the catalogue",
        )
    return parse_spec(read_text(path), name=path.name if path.parent == CATALOGUE else str(path))


def parse_spec(text: str, *, name: str) -> SourceSpec:
    """A spec out of YAML text.

    Raises:
        ConfigError: Not YAML, or not a spec; all mistakes are listed.
    """
    data = yaml_value(text, where=name)
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
