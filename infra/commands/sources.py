"""`biovfm sources`: the catalogue, a folder held against an entry of it, and downloads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from infra.commands.sources_fetch import fetch
from infra.console import answer, emit, stdout
from shards.errors import ConfigError
from shards.schema import MODALITIES

if TYPE_CHECKING:
    from ingest.source.layout import Table
    from ingest.source.spec import SourceSpec

app = App(name="sources", help="List the catalogue of public sources, show what to download from where.")

app.command(fetch)

Json = Annotated[bool, Parameter(name="--json")]


@app.default
@app.command(name="list")
def list_sources(
    *,
    modality: tuple[str, ...] = (),
    access: tuple[str, ...] = (),
    licence: str = "",
    overlap: str = "",
    json_: Json = False,
) -> None:
    """List the sources that come with the package.

    Example: `biovfm sources list --modality CT --access open`

    Parameters
    ----------
    modality
        Only sources with this modality tag; repeat for several.
    access
        Only sources with this access: open, registration, credentialed, gated, mixed.
    licence
        Only sources whose licence contains this text.
    overlap
        Only sources that share images with this MedMNIST task.
    """
    from ingest.source.spec import catalogue_ids, load_spec

    unknown = [tag for tag in modality if tag.lower() not in map(str.lower, MODALITIES)]
    if unknown:
        raise ConfigError(f"no modality {unknown[0]!r}", hint=f"there are {', '.join(MODALITIES)}")
    specs = [spec for spec in map(load_spec, catalogue_ids()) if _matches(spec, modality, access, licence, overlap)]
    if json_:
        emit({"sources": [spec.model_dump(mode="json") for spec in specs]})
        return
    _print_list(specs)


def _matches(spec: SourceSpec, modality: tuple[str, ...], access: tuple[str, ...], licence: str, overlap: str) -> bool:
    wanted = {tag.lower() for tag in modality}
    return (
        (not wanted or bool(wanted & {tag.lower() for tag in spec.modality}))
        and (not access or spec.access in access)
        and licence.lower() in spec.licence.lower()
        and (not overlap or overlap.lower() in {entry.task for entry in spec.eval_overlap})
    )


def _print_list(specs: list[SourceSpec]) -> None:
    from rich.table import Table

    table = Table(title=f"{len(specs)} sources", title_justify="left", title_style="bold")
    for name in ("id", "modality", "images", "access", "licence"):
        table.add_column(name, justify="right" if name == "images" else "left", no_wrap=name == "id")
    for spec in specs:
        images = "unknown" if spec.expected_images is None else f"{spec.expected_images:,}"
        table.add_row(spec.id, " ".join(spec.modality), images, spec.access, spec.licence)
    stdout().print(table)
    total = sum(spec.expected_images or 0 for spec in specs)
    answer(f"{total:,} images in all; `biovfm sources show ID` says what to download from where")


@app.command
def show(source: str, /, *, yaml: bool = False, json_: Json = False) -> None:
    """Show what to download from where, under which terms, and how the raw folder must look.

    Example: `biovfm sources show kvasir-capsule`

    Parameters
    ----------
    source
        Id of a catalogue source, or a YAML file.
    yaml
        Print the source as YAML on standard output: a start for one of your own.
    """
    from ingest.source.spec import load_spec

    spec = load_spec(source)
    if json_:
        emit(spec.model_dump(mode="json"))
    elif yaml:
        _print_yaml(spec)
    else:
        _print_source(source, spec)


@app.command
def check(source: str, raw: str, /, *, deep: bool = False, json_: Json = False) -> int:
    """Hold a folder against the description of its source, before anything is read.

    Says which downloads are there, what each rule takes with examples, what is left out and what no rule knows, how
    many rows of the tables are about files, how many groups and images that makes of those expected, and what ingest
    will cost. Exit code 1 where the source is not complete.

    Example: `biovfm sources check chestxray-14 /raw/chestxray-14`

    Parameters
    ----------
    source
        Id of a catalogue source, or a YAML file.
    raw
        Folder, archive or fsspec URL of the raw data.
    deep
        Look into compressed tars, RAR and 7-Zip archives too, which takes a pass over all of each.
    """
    import sys
    from dataclasses import asdict

    from infra.commands._survey import survey_lines
    from ingest.job.survey import survey
    from ingest.settings import IngestSettings
    from ingest.source.spec import load_spec

    spec = load_spec(source)
    found = survey(raw, spec, IngestSettings(), deep=deep)
    if json_:
        counts = {"num_files": found.num_files, "num_bytes": found.num_bytes}
        emit({"ok": not found.problems, "state": found.state, **asdict(found), **counts})
    else:
        sys.stdout.write("\n".join(survey_lines(found, spec)) + "\n")
    return 1 if found.problems else 0


@app.command
def new(raw: str, /, *, name: str = "", modality: tuple[str, ...] = ()) -> None:
    """Draft the YAML of a source of your own from what its folder holds, on standard output.

    Example: `biovfm sources new /raw/our-ct --name our-ct --modality CT > our-ct.yaml`

    Parameters
    ----------
    raw
        Folder, archive or fsspec URL of the raw data.
    name
        Id of the source, [0-9a-z_-]+; without it, the name of the folder.
    modality
        Modality tag; repeat for several. DICOM files say theirs.
    """
    import sys

    from ingest.job.draft import draft
    from ingest.raw.root import RawRoot
    from ingest.settings import IngestSettings
    from ingest.source.spec import check_id

    try:
        chosen = check_id(name) if name else _id_of(raw)
    except ValueError as error:
        raise ConfigError(f"--name {name!r} is no id of a source", hint=str(error)) from None
    sys.stdout.write(draft(RawRoot(raw), IngestSettings(), name=chosen, modality=modality))


def _id_of(raw: str) -> str:
    """An id for a source by the name of its folder, archive or URL."""
    import re
    from pathlib import Path

    last = raw.rstrip("/").rpartition("/")[2]
    if "://" not in raw and not last.strip("."):  # `.` and `..` name folders, too
        last = Path(raw).resolve().name
    return re.sub(r"[^0-9a-z_-]+", "-", last.lower()).strip("-") or "mine"


@app.command
def schema() -> None:
    """Print the JSON schema of a source's YAML file, for editors.

    Example: `biovfm sources schema > source.schema.json`
    """
    from ingest.source.spec import SourceSpec

    emit(SourceSpec.model_json_schema())


def _print_yaml(spec: SourceSpec) -> None:
    import sys

    import yaml

    data = spec.model_dump(mode="json", exclude_defaults=True)
    sys.stdout.write(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100))


def _print_source(source: str, spec: SourceSpec) -> None:
    layout = spec.layout
    rule = spec.modality_rule
    ways = {"dicom": "the DICOM tag", "path": "the raw path", "list": "the list or the source's tables"}
    told = "" if rule is None else f" (told apart by {ways[rule.by]})"
    rows = {
        "Name": spec.name + (f" ({spec.year})" if spec.year else ""),
        "Modality": ", ".join(spec.modality) + told,
        "Anatomy": ", ".join(spec.anatomy) or "unknown",
        "Images expected": _expected(spec),
        "Licence": f"{spec.licence} (confidence: {spec.licence_confidence}; read the terms at the source)",
        "Licence known from": spec.licence_evidence or "-",
        "Terms": ", ".join(f"{name} {said}" for name, said in spec.terms),
        "Cite": spec.citation or "-",
        "Access": spec.access,
        "Get it from": f"{spec.url or 'unknown'}{_fetched(source, spec)}",
        "Packed as": f"{spec.archive or 'unknown'}, holding {spec.raw_format or 'unknown'}",
        "Downloads": ", ".join(layout.downloads) or "see the page",
        "Raw folder": f"{layout.wanted}; archives stay packed" + (f". {layout.note}" if layout.note else ""),
        "Left out": "; ".join(f"{kind}: {', '.join(globs)}" for kind, globs in layout.left_out.items()) or "-",
        "Tables": "; ".join(_table(table) for table in layout.tables) or "-",
        "Reader": ", ".join(dict.fromkeys(rule.reader for rule in layout.rules)),
        "Grouped by": spec.grouping.by + (f" {spec.grouping.pattern}" if spec.grouping.pattern else ""),
        "Layout known from": f"{layout.evidence or '-'} (confidence: {layout.confidence or 'unknown'})",
        "Shared with evaluation": "; ".join(f"{e.task}: {e.why}" for e in spec.eval_overlap) or "none known",
        "Note": spec.note or "-",
        "Then": f"biovfm sources check {source} RAW_FOLDER; biovfm ingest {source} RAW_FOLDER DATASET",
    }
    for name, value in rows.items():
        answer(f"{name:<23} {value}")


def _fetched(source: str, spec: SourceSpec) -> str:
    if not spec.links:
        return ""
    files = "1 file" if len(spec.links) == 1 else f"{len(spec.links)} files"
    return f"; `biovfm sources fetch {source} FOLDER` downloads {files}"


def _expected(spec: SourceSpec) -> str:
    expected = "unknown" if spec.expected_images is None else f"{spec.expected_images:,}"
    gives = f" (the source gives {spec.source_images:,})" if spec.source_images else ""
    return f"{expected}{gives}. {spec.count_note}".strip()


def _table(table: Table) -> str:
    """What a table of the source is for."""
    says = [word for word in ("group", "modality", "licence", "anatomy", "label") if getattr(table, word)]
    selects = {"listed": "selects the files that it lists", "unlisted": "leaves out the files that it lists"}
    brings = f"brings {', '.join(table.columns)} beside the index" if table.columns else ""
    uses = [*([f"says {', '.join(says)}"] if says else []), *filter(None, [selects.get(table.select), brings])]
    return f"{table.path} {' and '.join(uses) or 'is joined'}" + (" (optional)" if table.optional else "")
