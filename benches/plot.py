#!/usr/bin/env python3
"""plot.py RESULTS.json OUT.svg [PEER...] : the ratios of table.py's first table as bars."""
import contextlib
import html
import io
import runpy
import sys

results, out, *peers = sys.argv[1:]
# The table's own figures, without what it prints.
sys.argv = ["table.py", results, *peers]
with contextlib.redirect_stdout(io.StringIO()):
    table = runpy.run_path(str(__import__("pathlib").Path(__file__).with_name("table.py")))
peers, base = table["peers"], table["base"]
COLOURS = ["#1b6ca8", "#2e9e5b", "#8bc34a", "#c0392b", "#8e44ad", "#e67e22", "#7f8c8d"]
BAR, GAP, LEFT, SCALE, MOST = 9, 12, 330, 90, 6.0


def median_ratio(peer, cell, key):
    text = table["ratio"](peer, cell, key).split()[0]
    return None if text == "–" else float(text)


rows = [row for row in table["COSTS"][:-1] + table["SIZES"][:3] if table["of"](base, row[1])]
shapes, y = [], 40
for x, (peer, colour) in enumerate(zip(peers, COLOURS)):
    shapes.append(f'<rect x="{LEFT + 110 * x}" y="8" width="10" height="10" fill="{colour}"/>')
    shapes.append(f'<text x="{LEFT + 110 * x + 14}" y="17">{html.escape(peer)}</text>')
for name, cell, key in rows:
    shapes.append(f'<text x="{LEFT - 8}" y="{y + BAR * len(peers) / 2 + 4}" text-anchor="end">{html.escape(name)}</text>')
    for peer, colour in zip(peers, COLOURS):
        ratio = median_ratio(peer, cell, key)
        if ratio is not None:
            width = min(ratio, MOST) * SCALE
            shapes.append(f'<rect x="{LEFT}" y="{y}" width="{width:.0f}" height="{BAR - 1}" fill="{colour}"/>')
            if ratio > MOST:
                shapes.append(f'<text x="{LEFT + width + 4:.0f}" y="{y + BAR - 1}" font-size="9">{ratio:.1f}</text>')
        y += BAR
    y += GAP
one = LEFT + SCALE
shapes.append(f'<line x1="{one}" y1="28" x2="{one}" y2="{y}" stroke="#444" stroke-dasharray="3 3"/>')
title = f"CPU or memory for each operation, in multiples of {base}'s; shorter needs less"
svg = (
    f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + int(MOST * SCALE) + 50}" height="{y + 24}" '
    f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>{"".join(shapes)}'
    f'<text x="{LEFT}" y="{y + 14}">{html.escape(title)}</text></svg>\n'
)
open(out, "w").write(svg)
