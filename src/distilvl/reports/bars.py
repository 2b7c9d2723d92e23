"""RSUM of teacher, students and baselines as bars: the headline at a glance."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from distilvl.reports.results import ResultRow
from distilvl.reports.svg import open_svg

_WIDTH, _ROW, _TOP = 440, 46, 6
_MOST = 600
"""The highest RSUM there is."""


def rsum_bars(rows: Sequence[ResultRow], name: str) -> Markup:
    """One bar a row, from 0 to 600, with the six recalls as its parts: the darker ones are image to text."""
    height = _TOP + _ROW * len(rows) + 4
    text = "; ".join(f"{row.name}: RSUM {row.rsum:.1f}" for row in rows)
    parts = [open_svg("RSUM, of at most 600", text, name, _WIDTH, height)]
    for index, row in enumerate(rows):
        parts.append(_bar(row, _TOP + index * _ROW))
    return Markup("").join(parts) + Markup("</svg>")


def _bar(row: ResultRow, top: float) -> Markup:
    kept = "" if row.retention is None else f"  ({row.retention:.0f} % of the teacher's)"
    label = Markup('<text class="bar-name" x="0" y="{:.1f}">{}</text>').format(top + 12, _short(row.name))
    value = Markup('<text class="bar-value" x="{}" y="{:.1f}">{:.1f}{}</text>')
    parts = [label, value.format(_WIDTH, top + 12, row.rsum, kept)]
    kind = row.role.split()[0]
    rail = Markup('<rect class="rail" x="0" y="{:.1f}" width="{}" height="16" rx="3"/>')
    parts.append(rail.format(top + 19, _WIDTH))
    start = 0.0
    for place, recall in enumerate((*row.image_to_text, *row.text_to_image)):
        width = _WIDTH * recall / _MOST
        side = "i2t" if place < 3 else "t2i"
        piece = Markup('<rect class="bar {} {}" x="{:.2f}" y="{:.1f}" width="{:.2f}" height="16"/>')
        parts.append(piece.format(kind, side, start, top + 19, max(width - 1, 0.5)))
        start += width
    return Markup("").join(parts)


def _short(name: str, most: int = 34) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
