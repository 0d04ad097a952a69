"""What `sources check` prints: a screen of 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from infra.commands._tables import match_text
from infra.console import number, size
from ingest.source.globs import collapse

if TYPE_CHECKING:
    from ingest.job.survey import PartFound, Survey
    from ingest.source.spec import SourceSpec

WIDTH: Final = 80
_LABEL: Final = 11
_MOST_LINES: Final = 3
_MOST_LINES_OF_ADVICE: Final = 7


def survey_lines(found: Survey, spec: SourceSpec) -> list[str]:
    """The survey of a folder for people."""
    state = "not known whether complete" if found.state == "unknown" else found.state
    if found.state == "complete" and found.num_images is None and found.expected:
        state = "nothing is missing as far as listings tell; images are not counted"
    lines = [_cut(f"{spec.id} ({spec.name}): {state}" if spec.name else f"{spec.id}: {state}", WIDTH)]
    lines += _row("downloads", _downloads(found, spec))
    lines += _row("unexpected", ", ".join(collapse(found.unexpected)))
    for part in (part for part in found.parts if part.num_files or not found.unopened):
        lines += _part(part, several=len(found.parts) > 1)
    if found.unopened:
        lines += _row("unopened", f"{number(found.unopened, 'packed archive')} not looked into: --deep reads them")
    lines += _kinds("left out", found.left_out, found.examples)
    lines += _kinds("no rule", found.unknown, found.examples)
    lines += _tables(found)
    for path, columns in found.unused.items():
        lines += _one_line("not used", f"columns of {_path(path, 24)}: {', '.join(columns)}")
    for column in found.columns:
        counts = f"{column.filled:,} filled, {column.missing:,} missing"
        lines += _one_line(
            "column", f"{column.name} ({column.kind}), {column.header} of {_path(column.table, 24)}: {counts}"
        )
    for path, left_out in found.unfit.items():
        counts = ", ".join(f"{rows:,} {reason}" for reason, rows in left_out.items())
        lines += _row("", f"rows of {_path(path, 24)} of which no column comes: {counts}")
    lines += _row("groups", _groups(found, spec))
    lines += _row("images", _images(found, spec))
    lines += _row("disk, time", _cost(found, spec))
    lines += _row("licence", _licence(spec))
    lines += _row("access", ", ".join(part for part in (spec.access, spec.url) if part))
    if spec.layout.evidence:
        lines += _row("layout", f"{spec.layout.confidence or 'unknown'} confidence; {spec.layout.evidence}")
    for label, texts in (("PROBLEM", found.problems), ("warning", found.warnings)):
        lines += [line for text in texts for line in _row(label, text, most=_MOST_LINES_OF_ADVICE)]
    return lines


def count_line(spec: SourceSpec, num_images: int) -> tuple[str, bool]:
    """How many images of a source were met, in one line, and whether that is far from what is expected."""
    from ingest.job.survey import TOLERANCE

    expected = spec.source_images or spec.expected_images
    if not expected:
        return "", False
    share = num_images / expected
    return f"{num_images:,} of {expected:,} expected images ({_percent(share)})", abs(share - 1) > TOLERANCE


def _percent(share: float) -> str:
    return f"{share:.1%}" if share < 0.995 or 1.005 < share < 10 else f"{share:.0%}"


def _row(label: str, text: str, *, most: int = _MOST_LINES) -> list[str]:
    """A label and its text, wrapped under itself; at most a few lines."""
    if not text:
        return []
    room = WIDTH - _LABEL - 3
    wrapped = textwrap.wrap(text, room, break_on_hyphens=False) or [""]
    if len(wrapped) > most:
        wrapped = [*wrapped[: most - 1], _cut(" ".join(wrapped[most - 1 :]), room)]
    return [f"  {label if at == 0 else '':<{_LABEL}} {line}" for at, line in enumerate(wrapped)]


def _one_line(label: str, text: str) -> list[str]:
    return [f"  {label:<{_LABEL}} {_cut(text, WIDTH - _LABEL - 3)}"]


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 1] + "…"


def _path(path: str, room: int) -> str:
    """A path in so many characters: its end says most."""
    return path if len(path) <= room else "…" + path[1 - room :]


def _downloads(found: Survey, spec: SourceSpec) -> str:
    if not spec.layout.downloads:
        return ""
    if not found.downloads:
        return f"none of {', '.join(spec.layout.downloads)}: unpacked, or other names"
    total = len(found.downloads) + len(found.missing_downloads)
    if not found.missing_downloads:
        return f"all {total} there" if total > 1 else f"{found.downloads[0]} is there"
    return f"{len(found.downloads)} of {total} there; missing: {', '.join(collapse(found.missing_downloads))}"


def _part(part: PartFound, *, several: bool) -> Iterator[str]:
    name = f"{part.name}: " if several else ""
    yield from _row("taken", f"{name}{number(part.num_files, 'file')}, {size(part.num_bytes)}")
    yield from (f"  {'':<{_LABEL}}   {_path(path, WIDTH - _LABEL - 5)}" for path in part.examples)


def _tables(found: Survey) -> Iterator[str]:
    """The rows of each table, and how many are about files where all files are known."""
    if not found.matches:
        for path, rows in found.tables.items():
            yield from _row("table", f"{_path(path, 40)}: {number(rows, 'row')}")
    for match in found.matches:
        yield from _row("table", f"{_path(match.table, 40)}: {number(match.rows, 'row')} = {match_text(match)}")


def _kinds(label: str, counts: Mapping[str, int], examples: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """A line a kind, with an example; what does not fit is summed up."""
    kinds = list(counts.items())
    for at, (kind, count) in enumerate(kinds[:4]):
        head = f"{kind} {count:,}: "
        example = _path(next(iter(examples.get(kind, ())), ""), WIDTH - _LABEL - 3 - len(head))
        yield f"  {label if at == 0 else '':<{_LABEL}} {head}{example}"
    if len(kinds) > 4:
        yield f"  {'':<{_LABEL}} and {sum(count for _, count in kinds[4:]):,} of {len(kinds) - 4} other kinds"


def _groups(found: Survey, spec: SourceSpec) -> str:
    rule = spec.grouping
    if found.num_groups is None:
        return f"by the tag {rule.tag}, which is in the files"
    if not found.num_groups:
        return ""
    ways = {"path": "by the path", "folder": "one per folder", "file": "one per file", "none": "one per image"}
    said = ["by the tables"] if any(table.group for table in spec.layout.tables) else []
    how = " or ".join([*said, *([ways[rule.by]] if rule.by in ways else [])])
    return f"{found.num_groups:,} ({how}); the largest has {number(found.largest_group, 'file')}"


def _images(found: Survey, spec: SourceSpec) -> str:
    if found.num_images is None or (found.unopened and not found.num_images):
        met = "not known before archives are opened" if found.unopened else "not known before files are read"
        met += f", {found.expected:,} expected" if found.expected else ""
    elif found.expected:
        share = f"{_percent(found.num_images / found.expected)}{' so far' if found.unopened else ''}"
        met = f"{found.num_images:,} of {found.expected:,} expected ({share})"
    else:
        met = f"{found.num_images:,}"
    return f"{met}. {spec.count_note}".strip()


def _cost(found: Survey, spec: SourceSpec) -> str:
    from ingest.job.survey import hours_on_one_core, stored_bytes

    if not found.num_images:
        return ""
    hours = hours_on_one_core(found, spec)
    took = f"{hours:.1f} hours" if hours >= 1 else number(max(1, round(hours * 60)), "minute")
    return f"order of {size(stored_bytes(found))} and {took} on one core"


def _licence(spec: SourceSpec) -> str:
    terms = ", ".join(f"{name} {value}" for name, value in spec.terms.model_dump().items() if value != "unknown")
    return spec.licence + (f" ({terms})" if terms else "")
