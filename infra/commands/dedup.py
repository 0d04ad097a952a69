"""`biovfm dedup`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from infra.console import answer, emit, number

if TYPE_CHECKING:
    from ingest.duplicates.audit import Audit
    from shards.dataset.dataset import Dataset

_SHOWN_PAIRS = 200


def dedup(
    dataset: str,
    /,
    *,
    evaluation: tuple[Path, ...] = (),
    out: Path = Path("dedup"),
    radius_bits: int = 16,
    min_ncc: float = 0.99,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Audit a dataset: near duplicates across groups, and images that are also in evaluation sets.

    Writes a keep table (`dedup.parquet`) and a page of the pairs (`dedup.html`); the dataset stays as it is.

    Example: `biovfm dedup ./data --evaluation breastmnist.npz --out audit`

    Parameters
    ----------
    dataset
        Folder or URL of the dataset.
    evaluation
        MedMNIST .npz files, of any size; their test images are compared.
    out
        Folder for table and page.
    radius_bits
        Hamming radius on the 256-bit perceptual hash.
    min_ncc
        Correlation of thumbnails that confirms a pair.
    """
    import pyarrow.parquet as pq

    from ingest.duplicates.audit import audit
    from ingest.settings import DedupSettings
    from shards.dataset.dataset import Dataset
    from shards.files import naming
    from shards.settings import parse

    settings = parse(DedupSettings, {"radius_bits": radius_bits, "min_ncc": min_ncc}, where="the command line")
    opened = Dataset.open(dataset)
    result = audit(opened, settings=settings, evaluation=[str(path) for path in evaluation])
    out.mkdir(parents=True, exist_ok=True)
    with naming(out / "dedup.parquet"):
        pq.write_table(result.table, out / "dedup.parquet", compression="zstd")
    (out / "dedup.html").write_text(_page(opened, result), encoding="utf-8")
    summary = {
        **{name: getattr(result, name) for name in ("num_samples", "near_duplicates", "eval_overlap")},
        **{name: getattr(result, name) for name in ("compared", "skipped_buckets")},
        "table": str(out / "dedup.parquet"),
        "page": str(out / "dedup.html"),
    }
    if json_:
        emit(summary)
    else:
        answer(
            f"{number(result.num_samples, 'sample')}: {number(result.near_duplicates, 'near duplicate')}, "
            f"{result.eval_overlap:,} in evaluation sets; {number(result.skipped_buckets, 'crowded bucket')} skipped. "
            f"See {summary['page']}"
        )


def _page(dataset: Dataset, result: Audit) -> str:
    """Counts by source, and the pairs side by side."""
    from infra.web.html import render_cards, render_page, render_table

    rows = [row for row in result.table.to_pylist() if not row["keep"]]
    cards = render_cards(
        [
            (result.num_samples, "samples"),
            (result.near_duplicates, "near duplicates"),
            (result.eval_overlap, "in evaluation sets"),
            (result.skipped_buckets, "crowded buckets skipped"),
        ]
    )
    counts: dict[tuple[str, str], int] = {}
    for row in rows:
        counts[row["source"], row["reason"]] = counts.get((row["source"], row["reason"]), 0) + 1
    table = render_table(["source", "reason", "samples"], [[*key, count] for key, count in sorted(counts.items())])
    shown = rows[:_SHOWN_PAIRS]
    pairs = _pairs(dataset, shown)
    more = f"<p>The first {len(shown)} of {len(rows)}; all are in dedup.parquet.</p>" if len(rows) > len(shown) else ""
    body = f"{cards}<h2>By source</h2>{table}<h2>Pairs: dropped, kept</h2>{more}{pairs}"
    return render_page(title="Duplicates", body=body, lead=dataset.url)


def _pairs(dataset: Dataset, rows: list[dict[str, Any]]) -> str:
    import html

    from ingest.duplicates.prints import committed_thumbs

    keys = {row["key"] for row in rows} | {row["representative"] for row in rows}
    thumbs = {key: _png(thumb) for key, thumb in committed_thumbs(dataset, sorted(keys))}
    parts = []
    for row in rows:
        pictures = [thumbs[key] for key in (row["key"], row["representative"]) if key in thumbs]
        images = " ".join(f'<img width="128" alt="thumbnail" src="data:image/png;base64,{png}">' for png in pictures)
        text = f"{row['key']} → {row['representative']}: {row['reason']}, {row['bits']} bits, NCC {row['ncc']:.3f}"
        parts.append(f"<figure>{images}<figcaption>{html.escape(text)}</figcaption></figure>")
    return "".join(parts)


def _png(thumb: bytes) -> str:
    """A thumbnail as PNG in Base64."""
    import base64
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.frombytes("L", (64, 64), thumb).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
