"""`biovfm card`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from infra.console import stderr


def card(
    lock_or_dataset: str,
    /,
    *,
    format_: Annotated[Literal["croissant", "hf", "md"], Parameter(name="--format")] = "md",
    out: Path | None = None,
    dataset: str | None = None,
) -> None:
    """Write the card of a dataset or lock: what is in it, how it was made, licences, citations, de-identification.

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
    for line in facts.unknown_licences:
        stderr().print(f"note: {line}", soft_wrap=True)
    if out is None:
        sys.stdout.write(text)
        return
    write_text(out, text)
    stderr().print(f"wrote {out}", soft_wrap=True)
