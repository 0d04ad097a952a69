"""A card as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from infra.reports.cards.facts import CardFacts, SourceFacts
from infra.reports.cards.licences import CLASSES

DUPLICATES = ("duplicate", "near_duplicate", "eval_overlap")
"""Reasons by which an image is one that is there already, or in an evaluation set."""


def markdown(facts: CardFacts) -> str:
    """The card's text."""
    return "\n".join(_lines(facts)).rstrip() + "\n"


def summary(facts: CardFacts) -> str:
    """What it is, in one sentence."""
    tags = ", ".join(f"{name} {num:,}" for name, num in facts.modalities.items())
    what = "A pinned subset" if facts.lock else "A dataset"
    return f"{what} of {facts.samples:,} two-dimensional biomedical images of {len(facts.sources)} sources ({tags})."


def _lines(facts: CardFacts) -> Iterator[str]:
    yield f"# {facts.title}"
    yield f"\n{summary(facts)}"
    yield from _content(facts)
    yield from _making(facts)
    yield from _licences(facts)
    yield from _privacy(facts)
    yield "\n## Citations\n"
    for one in facts.sources:
        yield f"- {one.name}: {one.citation or 'not known'}" + (f" <{one.url}>" if one.url else "")


def _content(facts: CardFacts) -> Iterator[str]:
    yield "\n## What is in it\n"
    yield from _table(
        ("source", "modality", "images", "groups"),
        [
            (one.source, modality, f"{num:,}", f"{one.groups[modality]:,}")
            for one in facts.sources
            for modality, num in one.modalities.items()
        ],
    )
    narrow, wide, low, high = facts.sizes
    yield (
        f"\n{facts.num_shards:,} WebDataset shards (tar), {facts.num_bytes / 1e6:,.1f} MB of images; "
        f"{narrow} to {wide} px wide, {low} to {high} px high. Groups are patients, volumes, videos or slides."
    )
    if facts.others:
        yield (
            f"\nThe shards hold {facts.others:,} further images that are no part of the subset; "
            "`biovfm subset materialize` writes the subset alone."
        )
    if facts.columns:
        yield "\nColumns beside the index, by sample key:\n"
        rows = [(one.name, one.kind, f"{one.values:,}", f"{one.missing:,}") for one in facts.columns]
        yield from _table(("column", "type", "images with a value", "without"), rows)


def making(facts: CardFacts) -> str:
    """How the images were prepared, in one paragraph."""
    stored = ", ".join(f"{name}={value}" for name, value in sorted(facts.encoding.items())) or "not known"
    version = "an unknown version" if facts.pipeline_version is None else f"version {facts.pipeline_version}"
    return (
        f"Raw files were read, cut into two-dimensional images, brought to 8 bits and encoded by {version} of the "
        f"biovfm ingest pipeline ({stored})."
    )


def deduplication(facts: CardFacts) -> str:
    """What was left out as a copy, in one paragraph."""
    counts = {reason: sum(one.rejects.get(reason, 0) for one in facts.sources) for reason in DUPLICATES}
    said = ", ".join(f"{num:,} {reason.replace('_', ' ')}" for reason, num in counts.items() if num) or "none"
    return (
        "Images with equal pixels are kept once, over all sources; near duplicates of another group are found by "
        f"perceptual hashes and compared by pixels. Left out in the ingest jobs of these sources: {said}."
    )


def _making(facts: CardFacts) -> Iterator[str]:
    yield f"\n## How it was made\n\n{making(facts)}"
    yield f"\n{deduplication(facts)}"
    rows = [(one.source, reason, f"{num:,}") for one in facts.sources for reason, num in sorted(one.rejects.items())]
    if rows:
        yield "\nImages that the ingest jobs of these sources did not take:\n"
        yield from _table(("source", "reason", "images"), rows)
    if facts.lock:
        yield f"\nIndex version {facts.lock.index_version}; digest of the samples `{facts.lock.digest}`, of the order "
        yield f"`{facts.lock.order or 'not pinned'}`. Selection: `{facts.lock.selection.describe()}`."


def _licences(facts: CardFacts) -> Iterator[str]:
    yield "\n## Licences\n\nEvery source keeps its own terms. A licence stands with the number of its images.\n"
    for name, words in CLASSES.items():
        mine = [said for one in facts.sources if (said := _licences_of(one, name))]
        if mine:
            yield f"- **{name}** ({words}): {', '.join(mine)}"
    if facts.unknown_licences:
        yield "\nNot known:\n"
        yield from (f"- {line}" for line in facts.unknown_licences)


def _licences_of(one: SourceFacts, name: str) -> str:
    """The licences of a class that images of a source have, with their numbers; empty for none."""
    mine = [f"{licence}: {num:,}" for licence, num in one.licences.items() if one.licence_classes[licence] == name]
    return f"{one.source} ({', '.join(mine)})" if mine else ""


def privacy(facts: CardFacts) -> str:
    """The statement on identifiers, in one paragraph."""
    method = str(facts.deidentification.get("method", "")) or "What was done to identifiers is not recorded."
    named = ", ".join(one.source for one in facts.sources if not one.deidentified)
    private = f" Not stated to be published de-identified: {named}." if named else ""
    burned = ", ".join(f"{word} {num:,}" for word, num in facts.burned_in.items())
    return f"{method} Text burned into the pixels: {burned}.{private}"


def _privacy(facts: CardFacts) -> Iterator[str]:
    yield f"\n## De-identification\n\n{privacy(facts)}"
    options = facts.deidentification.get("options", {})
    rows = [
        (name.replace("_", " "), str(option.get("code", "")), str(option.get("applied", "")))
        for name, option in options.items()
        if isinstance(option, Mapping)
    ]
    if rows:
        yield ""
        yield from _table(("option of DICOM PS3.15", "code", "applied"), rows)


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(names)} |"
    yield f"|{'---|' * len(names)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
