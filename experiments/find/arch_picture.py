"""Two networks side by side, row by row, as SVG: where the one that was found spends more, or less."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any, NamedTuple

from models.complexity import count_params, flops_of_rows
from models.detector import Model
from models.grammar import Row

from ..run.amounts import written

_ROW, _BAR, _TEXT = 20, 230, 300


class _Drawn(NamedTuple):
    text: str
    flops: int


def side_by_side(models: Sequence[Model], sides: Sequence[int], names: Sequence[str]) -> str:
    """An SVG of the rows of two networks, a bar for the FLOPs of each; rows that differ are marked."""
    drawn = [_rows(model, side) for model, side in zip(models, sides, strict=True)]
    largest = max((r.flops for rows in drawn for r in rows), default=1) or 1
    height, half = 46 + _ROW * max(map(len, drawn)), _TEXT + _BAR + 90
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * half} {height}" width="100%" '
        'font-family="system-ui, sans-serif" font-size="12" role="img" aria-label="both architectures">'
    ]
    for k, (rows, model, side) in enumerate(zip(drawn, models, sides, strict=True)):
        x, colour = k * half, ("#2b6cb0", "#8a94a3")[k]
        total = sum(r.flops for r in rows)
        costs = f"{written('params', count_params(model))} parameters, {written('flops', total)} FLOPs at {side}"
        title = html.escape(f"{names[k]}: {costs}")
        parts.append(f'<text x="{x}" y="16" font-size="14" font-weight="600">{title}</text>')
        other = drawn[1 - k]
        for i, row in enumerate(rows):
            y = 40 + i * _ROW
            differs = i >= len(other) or other[i].text != row.text
            weight = ' font-weight="600"' if differs and k == 0 else ""
            parts.append(f'<text x="{x}" y="{y + 11}"{weight}>{html.escape(row.text)}</text>')
            width = _BAR * row.flops / largest
            opacity = "" if differs or k else ' opacity="0.45"'
            bar = f'<rect x="{x + _TEXT}" y="{y}" width="{max(width, 0.5):.1f}" height="{_ROW - 6}" rx="2"'
            parts.append(f'{bar} fill="{colour}"{opacity}/>')
            if row.flops:
                parts.append(
                    f'<text x="{x + _TEXT + width + 5:.1f}" y="{y + 11}" fill="#666" font-size="10">'
                    f"{written('flops', row.flops)}</text>"
                )
    parts.append("</svg>")
    return "".join(parts)


def _rows(model: Model, side: int) -> list[_Drawn]:
    flops = flops_of_rows(model, side, model.config.ch)
    channels = model.channels
    return [
        _Drawn(_text(row, model.config.depth(row), channels[i] if i < len(channels) else None), flops[i])
        for i, row in enumerate(model.config.rows)
    ]


def _text(row: Row, depth: int, channels: Any) -> str:
    """Such as ``6  C3 ×3 · 128 channels · e=0.75``."""
    kernel = row.args[1] if row.module == "Conv" and len(row.args) > 1 and isinstance(row.args[1], int) else None
    said = [f"{row.module.removeprefix('nn.')}{f' ×{depth}' if depth > 1 else ''}"]
    said += (
        [f"{channels} channels"] if isinstance(channels, int) and channels and not isinstance(row.source, tuple) else []
    )
    said += [f"{kernel}×{kernel}"] if kernel else []
    said += [f"{k}={v}" for k, v in row.kwargs.items()]
    return f"{row.index}  {' · '.join(said)}"
