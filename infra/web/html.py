"""Self-contained HTML pages: one style, no request to anywhere, readable on paper and in the dark."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

_STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5b6676;--line:#d9dee6;--card:#f6f8fa;--accent:#0b6bcb;--page:#fff}
@media (prefers-color-scheme:dark){:root{--ink:#e4e8ee;--soft:#98a3b3;--line:#333c48;--card:#1d232b;--accent:#6db3ff;
--page:#14181e}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1120px;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.7rem;margin:0 0 .25rem}
h2{font-size:1.2rem;margin:2.2rem 0 .6rem}h3{font-size:1rem;margin:1.2rem 0 .4rem}
p.lead{color:var(--soft);margin:.1rem 0 1.2rem}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .6rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
th{color:var(--soft);font-weight:600;font-size:.85rem}td.num,th.num{text-align:right}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:.8rem}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.7rem .9rem}
.card span{color:var(--soft);font-size:.85rem}
.card b{display:block;font-size:1.35rem;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto}
figure{margin:.6rem 0 1.2rem}figcaption{color:var(--soft);font-size:.85rem;margin-top:.3rem}
img,svg{max-width:100%;height:auto}img.sheet{image-rendering:auto;border-radius:6px;background:#000}
code,pre{font:13px/1.45 ui-monospace,SFMono-Regular,Menlo,monospace}
pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.7rem .9rem;overflow-x:auto}
footer{color:var(--soft);font-size:.85rem;margin-top:3rem;border-top:1px solid var(--line);padding-top:.8rem}
"""


def render_page(*, title: str, body: str, lead: str = "") -> str:
    """A whole page.

    Args:
        title: Plain text.
        body: HTML, already escaped.
        lead: Plain text under the title.
    """
    head = f"<h1>{html.escape(title)}</h1>" + (f'<p class="lead">{html.escape(lead)}</p>' if lead else "")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title><style>{_STYLE}</style></head>'
        f"<body><main>{head}{body}<footer>Made by biovfm.</footer></main></body></html>\n"
    )


def render_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; numbers are set right-aligned with thousands separated."""
    materialised = [list(row) for row in rows]
    numeric = [
        bool(materialised) and all(isinstance(row[i], int | float) for row in materialised) for i in range(len(columns))
    ]
    head = "".join(
        f'<th class="num">{html.escape(name)}</th>' if right else f"<th>{html.escape(name)}</th>"
        for name, right in zip(columns, numeric, strict=True)
    )
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in materialised)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def render_cards(cards: Iterable[tuple[object, str]]) -> str:
    """A row of figures: `(value, what it is)`."""
    cells = "".join(
        f'<div class="card"><b>{_text(value)}</b><span>{html.escape(label)}</span></div>' for value, label in cards
    )
    return f'<div class="cards">{cells}</div>'


def render_image(data: bytes | Path, *, alt: str, caption: str = "", media_type: str = "image/png") -> str:
    """An embedded picture."""
    raw = data.read_bytes() if isinstance(data, Path) else data
    source = f"data:{media_type};base64,{base64.b64encode(raw).decode()}"
    note = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img class="sheet" src="{source}" alt="{html.escape(alt)}">{note}</figure>'


def _cell(value: object) -> str:
    kind = ' class="num"' if isinstance(value, int | float) else ""
    return f"<td{kind}>{_text(value)}</td>"


def _text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return html.escape(str(value))
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
