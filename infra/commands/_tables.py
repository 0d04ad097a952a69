"""How well the tables of a source fit its files, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from infra.console import number

if TYPE_CHECKING:
    from ingest.job.table_match import TableMatch


def match_text(match: TableMatch) -> str:
    """Rows about files, rows about none, rows that contradict another, files without a row."""
    parts = [f"{match.matched:,} about files + {match.unmatched:,} about none"]
    if match.contradictory:
        verb = "contradicts" if match.contradictory == 1 else "contradict"
        of_group = f" ({match.other_group:,} in the group)" if match.other_group else ""
        parts.append(f"{match.contradictory:,} {verb} an earlier row, which counts{of_group}")
    if match.without:
        parts.append(f"{number(match.without, 'file')} without a row")
    return "; ".join(parts)


def match_lines(matches: Sequence[TableMatch]) -> Iterator[str]:
    """A line per table, below the counts of a job."""
    for match in matches:
        yield f"{match.rows:>10,}  rows of {match.table} = {match_text(match)}"
