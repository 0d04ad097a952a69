"""`biovfm card`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from infra.console import number, stderr

if TYPE_CHECKING:
    from collections.abc import Iterator

    from infra.reports.cards.facts import CardFacts


def card(
    lock_or_dataset: str,
    /,
    *,
    format_: Annotated[Literal["croissant", "hf", "md"], Parameter(name="--format")] = "md",
    out: Path | None = None,
    dataset: str | None = None,
) -> None:
    """Write the card of a dataset or lock: what is in it, how it was made, licences, citations, de-identification.

    It names the shards of the newest version, or those of the lock: write it again after whatever changes the dataset.

    Example: `biovfm card ./data --format hf --out ./data/README.md`

    Parameters
    ----------
    lock_or_dataset
        A lock file or a dataset.
    format_
        `croissant` (JSON-LD with responsible-AI fields), `hf` (README.md of the Hugging Face Hub, by which `datasets`
        loads the shards) or `md`.
    out
        File to write; standard output without it.
    dataset
        Where the lock's dataset lies now; where the lock says, without it.
    """
    from infra.reports.cards.croissant import croissant
    from infra.reports.cards.facts import gather
    from infra.reports.cards.hugging_face import hugging_face
    from infra.reports.cards.markdown import markdown
    from shards.files import write_text

    facts = gather(lock_or_dataset, dataset=dataset)
    text = {"croissant": croissant, "hf": hugging_face, "md": markdown}[format_](facts)
    for line in (*facts.unknown_licences, *(() if format_ == "md" else _about_shards(facts))):
        stderr().print(f"note: {line}", soft_wrap=True)
    if out is None:
        sys.stdout.write(text)
        return
    write_text(out, text)
    stderr().print(f"wrote {out}", soft_wrap=True)


def _about_shards(facts: CardFacts) -> Iterator[str]:
    """What to know of the shards before the folder is published with its card."""
    from infra.reports.cards.shard_files import MOST_PATHS

    if facts.lock is None and facts.shards.num_further:
        further = number(facts.shards.num_further, "further shard")
        yield (
            f"{further} of older versions beside those that the card names may hold what was withdrawn since: do not "
            "publish the folder as it is; `biovfm subset materialize` writes a lock's samples alone"
        )
    if len(facts.shards.paths) > MOST_PATHS:
        yield (
            f"the card names {len(facts.shards.paths):,} shards one by one, since their folders hold others too; the "
            "Hub may refuse a head of that length, and `biovfm subset materialize` makes folders that hold no others"
        )
