"""The run as a picture: a self-contained SVG, a panel for each method and size, a bar for each system and number of connections. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from tests.bench.plan import METHODS, size_name
from tests.bench.report import Cell, Found, Place, cells, names, places

PANEL_W, PANEL_H, MARGIN = 300, 190, 16
BASE_Y, BARS_H = 150, 110
COLOURS = {"mobula": "#1f6f8b", "swift": "#c0713a", "seaweedfs": "#7a9a4e"}
Point = tuple[Place, str]


def svg(found: Found) -> str:
    """Bars are to scale within a panel; each carries its value: requests a second, or MB a second from 1 MiB on."""
    by_key, systems = cells(found.rows), names(found)
    methods = [m for m in METHODS if any(place[0] == m for place in places(found.rows))]
    sizes = sorted({place[1] for place in places(found.rows)})
    width = MARGIN + len(sizes) * (PANEL_W + MARGIN)
    height = 60 + len(methods) * (PANEL_H + MARGIN)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        *_legend(systems),
    ]
    for row, method in enumerate(methods):
        for column, size_bytes in enumerate(sizes):
            x, y = MARGIN + column * (PANEL_W + MARGIN), 50 + row * (PANEL_H + MARGIN)
            parts += _panel((x, y), method, size_bytes, by_key, systems)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _legend(systems: Sequence[str]) -> list[str]:
    out = [
        f'<text x="{MARGIN}" y="20" font-size="14">Requests a second (from 1 MiB: MB a second); higher is better</text>'
    ]
    for number, name in enumerate(systems):
        x = MARGIN + number * 110
        out.append(f'<rect x="{x}" y="30" width="12" height="12" fill="{COLOURS.get(name, "#888")}"/>')
        out.append(f'<text x="{x + 17}" y="40">{escape(name)}</text>')
    return out


def _panel(
    at: tuple[int, int], method: str, size_bytes: int, by_key: Mapping[Point, Cell], systems: Sequence[str]
) -> list[str]:
    groups = sorted({place[2] for place, name in by_key if place[:2] == (method, size_bytes) and name in systems})
    if not groups:
        return []
    moved = method in ("PUT", "GET") and size_bytes >= 1 << 20

    def value(connections: int, name: str) -> float:
        cell = by_key.get(((method, size_bytes, connections), name))
        return 0.0 if cell is None else cell.mb_s if moved else cell.requests_s

    highest = max(value(c, name) for c in groups for name in systems) or 1.0
    bar_w = (PANEL_W - 20) / (len(groups) * (len(systems) + 1))
    out = [
        f'<g transform="translate({at[0]},{at[1]})">',
        f'<rect width="{PANEL_W}" height="{PANEL_H}" fill="none" stroke="#ccc"/>',
        f'<text x="8" y="18" font-weight="bold">{method} {size_name(size_bytes)}</text>',
    ]
    for group, connections in enumerate(groups):
        left = 10 + group * (len(systems) + 1) * bar_w + bar_w / 2
        for number, name in enumerate(systems):
            amount = value(connections, name)
            tall = BARS_H * amount / highest
            bar_x = left + number * bar_w
            out.append(
                f'<rect x="{bar_x:.1f}" y="{BASE_Y - tall:.1f}" width="{bar_w * 0.9:.1f}" height="{tall:.1f}" '
                f'fill="{COLOURS.get(name, "#888")}"/>'
            )
            out.append(
                f'<text x="{bar_x + bar_w * 0.45:.1f}" y="{BASE_Y - tall - 3:.1f}" text-anchor="middle" font-size="9">'
                f"{amount:.0f}</text>"
            )
        middle = left + len(systems) * bar_w / 2
        out.append(f'<text x="{middle:.1f}" y="{BASE_Y + 16}" text-anchor="middle">c={connections}</text>')
    return [*out, "</g>"]
