"""The measurements as one table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infra.bench.peers.contestants import WORKLOADS
from infra.bench.peers.run import Row

_HEAD = (
    "loader",
    "images/s",
    "best run",
    "× best peer",
    "CPU s per 1000",
    "CPU, best peer ÷ this",
    "first batch s",
    "memory MB",
    "over imports MB",
)


def as_json(rows: Sequence[Row], **facts: Any) -> dict[str, Any]:
    """Everything that was measured, round by round.

    Args:
        rows: The measurements.
        facts: What else to say: the corpus, the machine.
    """
    return {
        **facts,
        "results": [
            {
                "workload": row.workload,
                "name": row.contestant.name,
                "label": row.contestant.label,
                "ours": row.contestant.ours,
                "failure": row.failure,
                "rounds": [{name: round(value, 4) for name, value in figures.items()} for figures in row.rounds],
            }
            for row in rows
        ],
    }


def as_table(rows: Sequence[Row]) -> str:
    """A Markdown table a workload: ours first, then the peers, the fastest on top."""
    parts = []
    for workload in dict.fromkeys(row.workload for row in rows):
        here = [row for row in rows if row.workload == workload]
        lines = [f"**{workload}**: {WORKLOADS[workload]}", "", _line(_HEAD), _line(["---"] * len(_HEAD))]
        lines += [_line(_cells(row, here)) for row in sorted(here, key=_place)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def best_peer(rows: Sequence[Row], figure: str, *, least: bool) -> float | None:
    """The best median of a figure among the peers."""
    values = [row.median(figure) for row in rows if row.rounds and not row.contestant.ours]
    return (min(values) if least else max(values)) if values else None


def _place(row: Row) -> tuple[bool, float]:
    return not row.contestant.ours, -row.median("images_per_second") if row.rounds else 0.0


def _cells(row: Row, rows: Sequence[Row]) -> list[str]:
    label = f"**{row.contestant.label}**" if row.contestant.ours else row.contestant.label
    if not row.rounds:
        return [label, row.failure.replace("|", "/"), *[""] * (len(_HEAD) - 2)]
    rate, cpu = row.median("images_per_second"), row.median("cpu_seconds_per_1000")
    fastest = best_peer(rows, "images_per_second", least=False)
    leanest = best_peer(rows, "cpu_seconds_per_1000", least=True)
    return [
        label,
        f"{rate:,.0f}",
        f"{row.best:,.0f}",
        f"{rate / fastest:.2f}" if fastest else "–",
        f"{cpu:.3f}",
        f"{leanest / cpu:.2f}" if leanest and cpu else "–",
        f"{row.median('first_batch_seconds'):.2f}",
        f"{row.median('memory_mb'):,.0f}",
        f"{row.median('memory_over_imports_mb'):,.0f}",
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
